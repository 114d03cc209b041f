"""Evaluates a tree at one point: exactly where the value is rational, else to sixty digits.

Exact arithmetic never rounds, so large integers, tiny numbers and long decimals are compared as they are. mpmath is
imported only when a root, a logarithm or pi appears.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from rewards.mathematics.node import Node, TooLarge, Unparsable

PRECISION = 60  # decimal digits
_MAX_BITS = 200_000  # of an exact integer
_MAX_FACTORIAL = 5_000
_MAX_MAGNITUDE = 1e6  # of log2 |x| for inexact numbers

Number = Any  # Fraction, or mpmath's mpf or mpc


class Undefined(ArithmeticError):
    """Division by zero, the logarithm of zero, and other things that have no value."""


_context: Any = None


def high_precision() -> Any:
    """mpmath's context of our precision, loaded at first use."""
    global _context
    if _context is None:
        import mpmath

        _context = mpmath.MPContext()
        _context.dps = PRECISION
    return _context


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


def as_real(value: Number) -> Number:
    """A real number from one whose imaginary part is only noise.

    Raises:
        Undefined: it is not real.
    """
    if isinstance(value, Fraction):
        return value
    imaginary = value.imag
    if abs(imaginary) > abs(value) * 1e-45:
        raise Undefined("not real")
    return value.real


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
        total = _combine(total, evaluate(arg, point), "add")
    return total


def _mul(node: Node, point: Mapping[str, Fraction]) -> Number:
    product: Number = Fraction(1)
    for arg in node.args:
        product = _combine(product, evaluate(arg, point), "mul")
    return product


def _combine(a: Number, b: Number, how: str) -> Number:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        if _bits(a) + _bits(b) > _MAX_BITS:
            raise TooLarge("an integer of more than 200,000 bits")
        return a + b if how == "add" else a * b
    x, y = inexact(a), inexact(b)
    return x + y if how == "add" else x * y


def _div(node: Node, point: Mapping[str, Fraction]) -> Number:
    top, bottom = (evaluate(arg, point) for arg in node.args)
    return divide(top, bottom)


def divide(top: Number, bottom: Number) -> Number:
    if bottom == 0:
        raise Undefined("division by zero")
    if isinstance(top, Fraction) and isinstance(bottom, Fraction):
        return top / bottom
    return inexact(top) / inexact(bottom)


def _neg(node: Node, point: Mapping[str, Fraction]) -> Number:
    return -evaluate(node.args[0], point)


def _pow(node: Node, point: Mapping[str, Fraction]) -> Number:
    base, exponent = (evaluate(arg, point) for arg in node.args)
    return power(base, exponent)


def power(base: Number, exponent: Number) -> Number:
    """base ** exponent; the real root for an odd root of a negative number, as school books have it."""
    if isinstance(base, Fraction) and isinstance(exponent, Fraction):
        exact = _exact_power(base, exponent)
        if exact is not None:
            return exact
        if base < 0 and exponent.denominator % 2 == 1:
            root = power(-base, exponent)
            return root if exponent.numerator % 2 == 0 else -root
    if base == 0:
        if isinstance(exponent, Fraction) and exponent > 0:
            return Fraction(0)
        raise Undefined("a power of zero")
    x, y = inexact(base), inexact(exponent)
    _check_magnitude(abs(y) * abs(high_precision().log(abs(x))) if abs(x) != 0 else 0)
    return x**y


def _exact_power(base: Fraction, exponent: Fraction) -> Fraction | None:
    if exponent.denominator != 1:
        if exponent.denominator > 64 or base < 0:
            return None
        top, bottom = (_exact_root(n, exponent.denominator) for n in (base.numerator, base.denominator))
        if top is None or bottom is None or bottom == 0:
            return None
        return _exact_power(Fraction(top, bottom), Fraction(exponent.numerator))
    n = exponent.numerator
    if base == 0:
        if n < 0:
            raise Undefined("a negative power of zero")
        if n == 0:
            raise Undefined("zero to the power of zero")
        return base
    if abs(base) == 1:
        return base if n % 2 else Fraction(1)
    if _bits(base) * abs(n) > _MAX_BITS:
        raise TooLarge("a power of more than 200,000 bits")
    return base**n


def _exact_root(value: int, degree: int) -> int | None:
    if value < 0 or value.bit_length() > 2_000:
        return None
    if degree == 2:
        root = math.isqrt(value)
    else:
        root = round(value ** (1 / degree)) if value.bit_length() < 900 else 0
        root = next((r for r in (root - 1, root, root + 1) if r >= 0 and r**degree == value), root)
    return root if root**degree == value else None


def _factorial(node: Node, point: Mapping[str, Fraction]) -> Number:
    n = evaluate(node.args[0], point)
    if not isinstance(n, Fraction) or (n < 0 and n.denominator == 1):
        raise Undefined("a factorial of something that is not a natural number")
    if n.denominator != 1:
        return high_precision().gamma(inexact(n) + 1)
    if n > _MAX_FACTORIAL:
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
        return _unknown_function(node.name, values)
    if node.name == "sqrt":
        return power(values[0], Fraction(1, 2))
    if node.name in ("gcd", "lcm", "max", "min", "binom", "mod"):
        return _exact_function(node.name, values)
    rule = _FUNCTIONS.get(node.name)
    if rule is None or len(values) != (2 if node.name.endswith("_base") else 1):
        raise Unparsable(f"the function {node.name}")
    return _call(rule, values)


def _unknown_function(name: str, values: list[Number]) -> Number:
    """Some number that depends on the name and the arguments alone, so that f(x) + 1 is 1 + f(x)."""
    text = name + "".join(str(v) if isinstance(v, Fraction) else high_precision().nstr(v, 40) for v in values)
    digest = hashlib.sha256(text.encode()).digest()
    return Fraction(int.from_bytes(digest[:4]) + 1, int.from_bytes(digest[4:8]) + 1)


def _call(rule: Callable[..., Any], values: list[Number]) -> Number:
    arguments = [inexact(value) for value in values]
    try:
        value = rule(high_precision(), *arguments)
    except (ZeroDivisionError, ValueError, OverflowError) as error:
        raise Undefined(str(error)) from None
    if not high_precision().isfinite(value):
        raise Undefined("the logarithm of zero, or the like")
    return value


def _exact_function(name: str, values: list[Number]) -> Number:
    if name in ("max", "min"):
        reals = [as_real(value) for value in values]
        return max(reals) if name == "max" else min(reals)
    if name == "binom" and len(values) == 2:
        falling = _falling_binomial(*values)
        if falling is not None:
            return falling
    if not all(isinstance(value, Fraction) and value.denominator == 1 and value >= 0 for value in values):
        raise Unparsable(f"{name} of something that is not a natural number")
    integers = [value.numerator for value in values]
    if name == "mod":
        if len(integers) != 2 or integers[1] == 0:
            raise Undefined("a remainder of a division by zero")
        return Fraction(integers[0] % integers[1])
    if name == "binom":
        if len(integers) != 2 or integers[0] > _MAX_FACTORIAL:
            raise TooLarge("a large binomial")
        return Fraction(math.comb(*integers))
    return Fraction(math.gcd(*integers) if name == "gcd" else math.lcm(*integers))


def _falling_binomial(top: Number, bottom: Number) -> Number | None:
    """n (n - 1) ... (n - k + 1) / k! for a fraction n and a small whole k; None for other arguments."""
    if not (isinstance(top, Fraction) and isinstance(bottom, Fraction)) or top.denominator == 1:
        return None
    if bottom.denominator != 1 or not 0 <= bottom <= 20:
        return None
    product = Fraction(1)
    for i in range(int(bottom)):
        product *= (top - i) / (i + 1)
    return product


def inexact(value: Number) -> Number:
    """A Fraction as an mpmath number."""
    if isinstance(value, Fraction):
        mp = high_precision()
        return mp.mpf(value.numerator) / value.denominator
    return value


def _check_magnitude(log_value: Number) -> None:
    if log_value > _MAX_MAGNITUDE:
        raise TooLarge("a power with more than a million digits")


def _guarded_exp(mp: Any, x: Any) -> Any:
    _check_magnitude(abs(x))
    return mp.exp(x)


def _log_base(mp: Any, x: Any, base: Any) -> Any:
    return mp.log(x) / mp.log(base)


def _trig(name: str) -> Callable[[Any, Any], Any]:
    def call(mp: Any, x: Any) -> Any:
        if abs(x) > 1e15:
            raise TooLarge("a trigonometric function of a huge number")
        if name in ("sinh", "cosh", "tanh"):
            _check_magnitude(abs(x))
        return getattr(mp, name)(x)

    return call


def _bits(value: Fraction) -> int:
    return value.numerator.bit_length() + value.denominator.bit_length()


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: _trig(name) for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh")},
    "arcsin": lambda mp, x: mp.asin(x),
    "arccos": lambda mp, x: mp.acos(x),
    "arctan": lambda mp, x: mp.atan(x),
    "ln": lambda mp, x: mp.log(x),
    "log": lambda mp, x: mp.log(x),  # of no stated base: natural, on both sides alike
    "lg": lambda mp, x: mp.log(x) / mp.log(10),
    "exp": _guarded_exp,
    "abs": lambda mp, x: abs(x),
    "log_base": _log_base,
    "Re": lambda mp, x: x.real,
    "Im": lambda mp, x: x.imag,
    "arg": lambda mp, x: mp.arg(x),
}
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
