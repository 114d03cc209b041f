"""Evaluates a tree at one point: exactly where the value is rational, else to sixty digits.

Exact arithmetic never rounds, so large integers, tiny numbers and long decimals are compared as they are. mpmath is
imported only when a root, a logarithm or pi appears.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction

from rewards.mathematics.arithmetic import Number, Undefined, as_real, combine, divide, high_precision, inexact, power
from rewards.mathematics.functions import MAX_FACTORIAL, call, exact_function, unknown_function
from rewards.mathematics.node import Node, TooLarge, Unparsable


def evaluate(node: Node, point: Mapping[str, Fraction]) -> Number:
    """The value of an expression with its symbols at `point`.

    Raises:
        Undefined: it has no value there.
        TooLarge: it would take too long.
        Unparsable: it is not an expression, but a set, a relation or words.
    """
    rule = _RULES.get(node.kind)
    if rule is None:
        raise Unparsable(f"{node.kind} has no value")
    return rule(node, point)


def symbols_of(node: Node) -> frozenset[str]:
    """Names of the free symbols in a tree; an applied unknown function counts as one symbol."""
    if node.kind == "sym":
        return frozenset({node.name})
    return frozenset().union(*(symbols_of(arg) for arg in node.args)) if node.args else frozenset()


def _value(node: Node, point: Mapping[str, Fraction]) -> Number:
    assert node.value is not None
    return node.value


def _symbol(node: Node, point: Mapping[str, Fraction]) -> Number:
    try:
        return point[node.name]
    except KeyError:
        raise Unparsable(f"no value for {node.name}") from None


def _constant(node: Node, point: Mapping[str, Fraction]) -> Number:
    mp = high_precision()
    if node.name == "infty":
        raise Undefined("infinity")
    values = {"pi": mp.pi, "e": mp.e, "i": mp.mpc(0, 1)}
    if node.name not in values:
        raise Unparsable(f"{node.name} is not a number")
    return +values[node.name]


def _add(node: Node, point: Mapping[str, Fraction]) -> Number:
    total: Number = Fraction(0)
    for arg in node.args:
        total = combine(total, evaluate(arg, point), "add")
    return total


def _mul(node: Node, point: Mapping[str, Fraction]) -> Number:
    product: Number = Fraction(1)
    for arg in node.args:
        product = combine(product, evaluate(arg, point), "mul")
    return product


def _div(node: Node, point: Mapping[str, Fraction]) -> Number:
    top, bottom = (evaluate(arg, point) for arg in node.args)
    return divide(top, bottom)


def _neg(node: Node, point: Mapping[str, Fraction]) -> Number:
    return -evaluate(node.args[0], point)


def _pow(node: Node, point: Mapping[str, Fraction]) -> Number:
    base, exponent = (evaluate(arg, point) for arg in node.args)
    return power(base, exponent)


def _factorial(node: Node, point: Mapping[str, Fraction]) -> Number:
    n = evaluate(node.args[0], point)
    if not isinstance(n, Fraction) or (n < 0 and n.denominator == 1):
        raise Undefined("a factorial of something that is not a natural number")
    if n.denominator != 1:
        return high_precision().gamma(inexact(n) + 1)
    if n > MAX_FACTORIAL:
        raise TooLarge("a factorial of more than 5,000")
    return Fraction(math.factorial(n.numerator))


def _percent(node: Node, point: Mapping[str, Fraction]) -> Number:
    return divide(evaluate(node.args[0], point), Fraction(100))


def _degree(node: Node, point: Mapping[str, Fraction]) -> Number:
    return inexact(evaluate(node.args[0], point)) * high_precision().pi / 180


def _abs(node: Node, point: Mapping[str, Fraction]) -> Number:
    return abs(evaluate(node.args[0], point))


def _floor(node: Node, point: Mapping[str, Fraction]) -> Number:
    value = as_real(evaluate(node.args[0], point))
    rounded = math.floor(value) if node.kind == "floor" else math.ceil(value)
    return Fraction(int(rounded))


def _function(node: Node, point: Mapping[str, Fraction]) -> Number:
    values = [evaluate(arg, point) for arg in node.args]
    if node.name.startswith("?"):
        return unknown_function(node.name, values)
    if node.name == "sqrt":
        return power(values[0], Fraction(1, 2))
    if node.name in ("gcd", "lcm", "max", "min", "binom", "mod"):
        return exact_function(node.name, values)
    return call(node.name, values)


_RULES: dict[str, Callable[[Node, Mapping[str, Fraction]], Number]] = {
    "num": _value,
    "sym": _symbol,
    "const": _constant,
    "add": _add,
    "mul": _mul,
    "div": _div,
    "neg": _neg,
    "pow": _pow,
    "fact": _factorial,
    "percent": _percent,
    "degree": _degree,
    "abs": _abs,
    "floor": _floor,
    "ceil": _floor,
    "func": _function,
}
