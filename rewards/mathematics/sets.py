r"""Sets of real numbers: intervals, unions, differences, and the inequalities that describe them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from rewards.mathematics.arithmetic import Number, Undefined, as_real, inexact, power
from rewards.mathematics.node import Node, Unparsable
from rewards.mathematics.number import evaluate, symbols_of

Bound = Any  # Fraction, mpf, or a float infinity


@dataclass(frozen=True)
class Piece:
    """An interval; a point when both ends are equal and closed."""

    low: Bound
    high: Bound
    low_closed: bool
    high_closed: bool


RealSet = list[Piece]  # sorted, disjoint and not touching
ALL_REALS: RealSet = [Piece(-math.inf, math.inf, False, False)]


def as_real_set(node: Node) -> RealSet | None:
    """The set of reals that a tree describes, or None when it is something else.

    A pair in round brackets reads as an open interval here; that it may also be a point is the caller's concern.
    """
    try:
        return _convert(node)
    except (Unparsable, Undefined):
        return None


def same_set(a: RealSet, b: RealSet) -> bool:
    return len(a) == len(b) and all(
        p.low_closed == q.low_closed and p.high_closed == q.high_closed and same(p.low, q.low) and same(p.high, q.high)
        for p, q in zip(a, b)
    )


def same(a: Bound, b: Bound) -> bool:
    """Whether two numbers are equal to forty digits; exactly where both are rational."""
    if isinstance(a, float) or isinstance(b, float):  # only infinities are floats
        return isinstance(a, float) and isinstance(b, float) and a == b
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a == b
    x, y = inexact(a), inexact(b)
    return bool(abs(x - y) <= 1e-40 * max(abs(x), abs(y)))


def _convert(node: Node) -> RealSet | None:
    if node.kind == "tuple" and len(node.args) == 2:
        return _interval(node)
    if node.kind == "set":
        return normalize([Piece(x, x, True, True) for x in (_bound(arg) for arg in node.args)])
    if _is_all_reals(node):
        return ALL_REALS
    if node.kind == "list" and all(_is_condition(arg) for arg in node.args):
        return _conditions(node)
    if node.kind in ("union", "list"):
        parts = [_convert(arg) for arg in node.args]
        return None if any(p is None for p in parts) else normalize([piece for part in parts for piece in part or []])
    if node.kind in ("minus", "intersect"):
        first, second = (_convert(arg) for arg in node.args)
        if first is None or second is None:
            return None
        return intersect(first, complement(second) if node.kind == "minus" else second)
    if node.kind == "add" and len(node.args) == 2 and _is_all_reals(node.args[0]) and node.args[1].kind == "neg":
        return _convert(Node("minus", (node.args[0], node.args[1].args[0])))
    if node.kind == "builder":
        return _convert(node.args[0])
    if node.kind == "rel":
        return _inequality(node)
    return None


def _is_condition(node: Node) -> bool:
    is_joined = node.kind == "list" and node.name in ("and", "or")
    return node.kind == "rel" or _is_all_reals(node) or (is_joined and all(_is_condition(arg) for arg in node.args))


def _is_all_reals(node: Node) -> bool:
    return node.kind == "const" and node.name == "set_R"


def _conditions(node: Node) -> RealSet | None:
    """Several inequalities: "or" joins them, "and" restricts, and so do commas unless nothing would be left."""
    read = _condition if node.name == "or" and len(symbols_of(node)) == 1 else _convert
    parts = [part for part in map(read, node.args) if part is not None]
    if len(parts) < len(node.args):
        return None
    either = normalize([piece for part in parts for piece in part])
    if node.name == "or":
        return either
    both = ALL_REALS
    for part in parts:
        both = intersect(both, part)
    return both if node.name == "and" else both or either


def _condition(node: Node) -> RealSet | None:
    """An inequality; or x = 3 as a point, beside inequalities."""
    if node.kind == "rel" and node.name == "=" and len(node.args) == 2 and node.args[0].kind == "sym":
        value = _bound(node.args[1])
        return None if isinstance(value, float) else [Piece(value, value, True, True)]
    return _convert(node)


def _interval(node: Node) -> RealSet | None:
    low, high = (_bound(arg) for arg in node.args)
    if not less(low, high) and not (same(low, high) and node.name == "[]"):
        return None
    left = node.name[0] == "[" and not isinstance(low, float)
    right = node.name[1] == "]" and not isinstance(high, float)
    return [Piece(low, high, left, right)]


def _bound(node: Node) -> Bound:
    sign = 1
    while node.kind == "neg":
        node, sign = node.args[0], -sign
    if node.kind == "const" and node.name == "infty":
        return sign * math.inf
    value = as_real(evaluate(node, {}))
    return value if sign == 1 else -value


def less(a: Bound, b: Bound) -> bool:
    if isinstance(a, float) or isinstance(b, float):
        return float(a) < float(b)
    return bool(a < b) if isinstance(a, Fraction) and isinstance(b, Fraction) else bool(inexact(a) < inexact(b))


def normalize(pieces: Sequence[Piece]) -> RealSet:
    """Sorted, with overlapping and touching pieces merged."""
    merged: RealSet = []
    for piece in sorted(pieces, key=lambda p: (_sort_key(p.low), not p.low_closed)):
        last = merged[-1] if merged else None
        touches = last is not None and (
            less(piece.low, last.high) or (same(piece.low, last.high) and (piece.low_closed or last.high_closed))
        )
        if last is None or not touches:
            merged.append(piece)
        elif less(last.high, piece.high):
            merged[-1] = Piece(last.low, piece.high, last.low_closed, piece.high_closed)
        elif same(last.high, piece.high):
            merged[-1] = Piece(last.low, last.high, last.low_closed, last.high_closed or piece.high_closed)
    return merged


def _sort_key(value: Bound) -> Any:
    return value if isinstance(value, (float, Fraction)) else Fraction(str(inexact(value)))


def complement(pieces: RealSet) -> RealSet:
    result: RealSet = []
    low: Bound = -math.inf
    low_closed = False
    for piece in pieces:
        if less(low, piece.low) or (same(low, piece.low) and low_closed and not piece.low_closed):
            result.append(Piece(low, piece.low, low_closed, not piece.low_closed and not isinstance(piece.low, float)))
        low, low_closed = piece.high, not piece.high_closed
    if not (isinstance(low, float) and low > 0):
        result.append(Piece(low, math.inf, low_closed, False))
    return result


def intersect(a: RealSet, b: RealSet) -> RealSet:
    return complement(normalize(complement(a) + complement(b)))


def _inequality(node: Node) -> RealSet | None:
    """A chain in one symbol, each link linear in it or in one absolute value of it."""
    result = ALL_REALS
    sides = tuple(_plain_symbols(side) for side in node.args)
    symbols = {name for side in sides for name in symbols_of(side)}
    if len(symbols) != 1 or node.name == "=":
        return None
    for left, operator, right in zip(sides, node.name.split(";"), sides[1:]):
        link = _link(left, operator, right, symbols.copy().pop())
        if link is None:
            return None
        result = intersect(result, link)
    return result


def _plain_symbols(node: Node) -> Node:
    """f(x) as a symbol of its own: 0 < f(x) < 1 says that f(x) lies in (0, 1)."""
    if node.kind == "func" and node.name.startswith("?"):
        return Node("sym", (), node.name + "".join(arg.name or repr(arg) for arg in node.args))
    return Node(node.kind, tuple(_plain_symbols(arg) for arg in node.args), node.name, node.value)


def _link(left: Node, operator: str, right: Node, symbol: str) -> RealSet | None:
    difference = Node("add", (left, Node("neg", (right,))))
    if "abs" in (left.kind, right.kind):
        return _absolute_link(left, operator, right, symbol)
    line = linear(difference, symbol)
    if line is None:
        return _quadratic_link(difference, operator, symbol)
    slope, offset = line
    root = -offset / slope
    if operator in ("=", "!="):
        point = [Piece(root, root, True, True)]
        return point if operator == "=" else complement(point)
    is_below = (operator[0] == "<") == bool(slope > 0)
    closed = operator.endswith("=")
    return [Piece(-math.inf, root, False, closed)] if is_below else [Piece(root, math.inf, closed, False)]


def _quadratic_link(difference: Node, operator: str, symbol: str) -> RealSet | None:
    """x^2 <= 4, x^2 - 5x + 6 > 0 and the like; None where the difference is no quadratic with two real roots."""
    at = [as_real(evaluate(difference, {symbol: Fraction(x)})) for x in (0, 1, -1, 2, 5)]
    c, a, b = at[0], (at[1] + at[2]) / 2 - at[0], (at[1] - at[2]) / 2
    if a == 0 or not (same(at[3], 4 * a + 2 * b + c) and same(at[4], 25 * a + 5 * b + c)):
        return None
    discriminant = b * b - 4 * a * c
    if not discriminant > 0:
        return None
    root = power(discriminant, Fraction(1, 2)) / abs(2 * a)
    low, high = -b / (2 * a) - root, -b / (2 * a) + root
    points = [Piece(low, low, True, True), Piece(high, high, True, True)]
    if operator in ("=", "!="):
        return points if operator == "=" else complement(points)
    closed = operator.endswith("=")
    between = [Piece(low, high, closed, closed)]
    if (operator[0] == "<") == bool(a > 0):
        return between
    return [Piece(-math.inf, low, False, closed), Piece(high, math.inf, closed, False)]


def _absolute_link(left: Node, operator: str, right: Node, symbol: str) -> RealSet | None:
    if left.kind != "abs":
        flipped = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}.get(operator, operator)
        return _absolute_link(right, flipped, left, symbol) if right.kind == "abs" else None
    if symbols_of(right):
        return None
    inner, minus = left.args[0], Node("neg", (right,))
    below = operator[0] == "<" or operator == "="
    if operator in ("=", "!="):
        return None
    high = _link(inner, operator, right, symbol)
    low = _link(inner, {"<": ">", ">": "<"}[operator[0]] + operator[1:], minus, symbol)
    if high is None or low is None:
        return None
    return intersect(low, high) if below else normalize(low + high)


def linear(node: Node, symbol: str) -> tuple[Number, Number] | None:
    """(slope, value at 0) of an expression that is linear in its one symbol, else None."""
    at = [as_real(evaluate(node, {symbol: Fraction(x)})) for x in (0, 1, 2, 5)]
    slope = at[1] - at[0]
    if slope == 0 or not same(at[2] - at[1], slope) or not same(at[3] - at[2], 3 * slope):
        return None
    return slope, at[0]
