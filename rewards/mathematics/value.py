"""Whether two expressions have the same value.

Numbers are equal when they are equal: exactly where rational, to forty digits where not. The one tolerance: a decimal
of at least six significant digits, six of them after the point (three in a reference), equals a number that it is a
correct rounding (or cutting-off) of, so 0.333333 is 1/3 and 0.333 is not; whole numbers are never rounded.
Expressions with symbols are equal when they agree, to forty digits, at points drawn for the purpose, which is how
identities are tested; the points are fixed, so that a verdict never changes between runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from fractions import Fraction

from rewards.mathematics.arithmetic import Number, Undefined, as_real, inexact
from rewards.mathematics.node import Node, Unparsable
from rewards.mathematics.number import evaluate, symbols_of

_MIN_SIGNIFICANT = 6
_MIN_FRACTIONAL = 6  # of an answer; a reference that is itself a decimal was rounded by its author
_MIN_FRACTIONAL_GOLD = 3
# Values for symbols: positive first, where roots and logarithms are real; then negative ones, which count where both
# sides are real. Odd and unrelated, so that no identity holds at them by accident.
_POSITIVE = [
    Fraction(n, d) for n, d in ((37, 23), (71, 29), (13, 41), (97, 31), (53, 47), (19, 67), (83, 17), (61, 43))
]
NUM_POSITIVE, NUM_NEGATIVE = 4, 3


def same_value(gold: Node, pred: Node) -> bool:
    """Whether two expressions have the same value, at every point where they have symbols."""
    symbols = symbols_of(gold) | symbols_of(pred)
    if not symbols:
        try:
            return _same_number(evaluate(gold, {}), evaluate(pred, {}), gold, pred)
        except Undefined:
            return False  # 1/0 is not an answer, whatever it is compared with
    if len(symbols) > 12:
        raise Unparsable("more than twelve symbols")
    return _agree_everywhere(gold, pred, symbols)


def _agree_everywhere(gold: Node, pred: Node, symbols: frozenset[str]) -> bool:
    num_agreed = 0
    for number, point in enumerate(itertools.islice(points(symbols), NUM_POSITIVE + NUM_NEGATIVE)):
        try:
            a, b = evaluate(gold, point), evaluate(pred, point)
            if number >= NUM_POSITIVE:
                a, b = as_real(a), as_real(b)
        except Undefined:
            continue
        if not close(a, b):
            return False
        num_agreed += 1
    return num_agreed >= 3


def points(symbols: frozenset[str]) -> Iterator[Mapping[str, Fraction]]:
    names = sorted(symbols)
    for shift in range(NUM_POSITIVE):
        yield {
            name: _POSITIVE[(i * 3 + shift * 2 + i // 8) % 8] + i // 8 + shift * i % 5 for i, name in enumerate(names)
        }
    for shift in range(NUM_NEGATIVE):
        yield {
            name: (_POSITIVE[(i * 5 + shift) % 8] + shift + i // 8) * (-1 if (i + shift) % 2 == 0 or shift == 2 else 1)
            for i, name in enumerate(names)
        }


def close(a: Number, b: Number) -> bool:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a == b
    x, y = inexact(a), inexact(b)
    scale = max(abs(x), abs(y))
    if scale > 1e35 or (scale and scale < 1e-35):
        # whole numbers of this size are exact; what is not may hide a difference beyond its last digit
        return bool(abs(x - y) <= 1e-50 * scale)
    return bool(abs(x - y) <= 1e-40 * max(scale, 1e-5))


def _same_number(a: Number, b: Number, gold: Node, pred: Node) -> bool:
    if close(a, b):
        return True
    return _is_rounding(gold, a, pred, b, _MIN_FRACTIONAL_GOLD) or _is_rounding(pred, b, gold, a, _MIN_FRACTIONAL)


def _is_rounding(decimal: Node, value: Number, other: Node, exact: Number, min_fractional: int) -> bool:
    """Whether `decimal` is a written decimal, long enough, that rounds or cuts off the other value."""
    digits = _written_digits(decimal)
    if digits is None or not isinstance(value, Fraction):
        return False
    significant, fractional, unit = digits
    if significant < _MIN_SIGNIFICANT or fractional < min_fractional:
        return False
    if isinstance(exact, Fraction) and (exact.denominator == 1 or (exact / unit).denominator == 1):
        return False  # a whole number is never rounded; and these digits could have said it exactly
    theirs = _written_digits(other)
    if theirs is not None and (theirs[2] >= unit or fractional < _MIN_SIGNIFICANT):
        return False  # two decimals: the other must say more, and this one must have six places
    try:
        target = inexact(as_real(exact))
    except Undefined:
        return False
    written, last = inexact(value), inexact(unit)
    is_cut_off = abs(target) >= abs(written) and abs(target - written) < last
    return bool(is_cut_off or abs(target - written) <= last / 2)


def _power_of_ten(node: Node) -> int | None:
    """k of 10^k, where k is a whole number of ordinary size."""
    if node.kind != "pow" or node.args[0].name != "10":
        return None
    sign, exponent = (-1, node.args[1].args[0]) if node.args[1].kind == "neg" else (1, node.args[1])
    if exponent.kind != "num" or exponent.value is None or exponent.value.denominator != 1 or exponent.value > 300:
        return None
    return sign * int(exponent.value)


def _written_digits(node: Node) -> tuple[int, int, Fraction] | None:
    """(significant digits, digits after the point, one unit of the last) of a decimal literal, else None."""
    while node.kind in ("neg", "percent"):
        node = node.args[0]
    if node.kind == "mul" and len(node.args) == 2 and _power_of_ten(node.args[1]) is not None:
        mantissa = _written_digits(node.args[0])
        scale = Fraction(10) ** (_power_of_ten(node.args[1]) or 0)
        return None if mantissa is None else (mantissa[0], mantissa[1], mantissa[2] * scale)
    if node.kind != "num" or "." not in node.name or "e" in node.name.lower():
        return None
    whole, _, fraction = node.name.partition(".")
    significant = len((whole + fraction).lstrip("0"))
    return significant, len(fraction), Fraction(1, 10 ** len(fraction))
