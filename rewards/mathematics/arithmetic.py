"""Arithmetic on exact fractions and, where a result is irrational, to sixty digits; what would explode is refused."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from rewards.mathematics.node import TooLarge

PRECISION = 60  # decimal digits
MAX_BITS = 200_000  # of an exact integer
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


def combine(a: Number, b: Number, how: str) -> Number:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        if num_bits(a) + num_bits(b) > MAX_BITS:
            raise TooLarge("an integer of more than 200,000 bits")
        return a + b if how == "add" else a * b
    x, y = inexact(a), inexact(b)
    return x + y if how == "add" else x * y


def divide(top: Number, bottom: Number) -> Number:
    if bottom == 0:
        raise Undefined("division by zero")
    if isinstance(top, Fraction) and isinstance(bottom, Fraction):
        return top / bottom
    return inexact(top) / inexact(bottom)


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
    check_magnitude(abs(y) * abs(high_precision().log(abs(x))) if abs(x) != 0 else 0)
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
    if num_bits(base) * abs(n) > MAX_BITS:
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


def inexact(value: Number) -> Number:
    """A Fraction as an mpmath number."""
    if isinstance(value, Fraction):
        mp = high_precision()
        return mp.mpf(value.numerator) / value.denominator
    return value


def check_magnitude(log_value: Number) -> None:
    if log_value > _MAX_MAGNITUDE:
        raise TooLarge("a power with more than a million digits")


def num_bits(value: Fraction) -> int:
    return value.numerator.bit_length() + value.denominator.bit_length()
