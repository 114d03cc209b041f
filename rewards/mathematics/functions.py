"""The values of named functions: sines and logarithms to sixty digits, gcd and binomials exactly."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from rewards.mathematics.arithmetic import Number, Undefined, as_real, check_magnitude, high_precision, inexact
from rewards.mathematics.node import TooLarge, Unparsable

MAX_FACTORIAL = 5_000


def unknown_function(name: str, values: list[Number]) -> Number:
    """Some number that depends on the name and the arguments alone, so that f(x) + 1 is 1 + f(x)."""
    text = name + "".join(str(v) if isinstance(v, Fraction) else high_precision().nstr(v, 40) for v in values)
    digest = hashlib.sha256(text.encode()).digest()
    return Fraction(int.from_bytes(digest[:4]) + 1, int.from_bytes(digest[4:8]) + 1)


def call(name: str, values: list[Number]) -> Number:
    """A function of the table at the end, to sixty digits.

    Raises:
        Unparsable: there is no such function of so many numbers.
        Undefined: it has no value there.
    """
    rule = _FUNCTIONS.get(name)
    if rule is None or len(values) != (2 if name.endswith("_base") else 1):
        raise Unparsable(f"the function {name}")
    return _evaluated(rule, values)


def _evaluated(rule: Callable[..., Any], values: list[Number]) -> Number:
    arguments = [inexact(value) for value in values]
    try:
        value = rule(high_precision(), *arguments)
    except (ZeroDivisionError, ValueError, OverflowError) as error:
        raise Undefined(str(error)) from None
    if not high_precision().isfinite(value):
        raise Undefined("the logarithm of zero, or the like")
    return value


def exact_function(name: str, values: list[Number]) -> Number:
    """Largest, smallest, binomials, and functions of whole numbers."""
    if name in ("max", "min"):
        reals = [as_real(value) for value in values]
        return max(reals) if name == "max" else min(reals)
    if name == "binom" and len(values) == 2:
        falling = _falling_binomial(*values)
        if falling is not None:
            return falling
        if any(isinstance(value, Fraction) and value.denominator != 1 for value in values):
            return _evaluated(lambda mp, n, k: mp.binomial(n, k), values)  # by the gamma function
    if not all(isinstance(value, Fraction) and value.denominator == 1 and value >= 0 for value in values):
        raise Unparsable(f"{name} of something that is not a natural number")
    integers = [value.numerator for value in values]
    if name == "mod":
        if len(integers) != 2 or integers[1] == 0:
            raise Undefined("a remainder of a division by zero")
        return Fraction(integers[0] % integers[1])
    if name == "binom":
        if len(integers) != 2 or integers[0] > MAX_FACTORIAL:
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


def _guarded_exp(mp: Any, x: Any) -> Any:
    check_magnitude(abs(x))
    return mp.exp(x)


def _log_base(mp: Any, x: Any, base: Any) -> Any:
    return mp.log(x) / mp.log(base)


def _trig(name: str) -> Callable[[Any, Any], Any]:
    def call(mp: Any, x: Any) -> Any:
        if abs(x) > 1e15:
            raise TooLarge("a trigonometric function of a huge number")
        if name in ("sinh", "cosh", "tanh"):
            check_magnitude(abs(x))
        return getattr(mp, name)(x)

    return call


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
