"""Confidence intervals of shares and means, at 95%."""

from __future__ import annotations

import math
from collections.abc import Sequence

Z = 1.959963984540054  # the normal distribution has 95% of its mass within this many standard deviations


def wilson(share: float, count: int) -> tuple[float, float]:
    """Interval of a share of `count` independent trials, inside [0, 1] also at 0 and 1.

    Source: Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953.

    Raises:
        ValueError: `share` is outside [0, 1] or `count` is not positive.
    """
    if not 0 <= share <= 1 or count < 1:
        raise ValueError(f"share {share} must be in [0, 1] and count {count} positive")
    square = Z * Z / count
    centre = (share + square / 2) / (1 + square)
    half = Z * math.sqrt(share * (1 - share) / count + square / (4 * count)) / (1 + square)
    return max(centre - half, 0.0), min(centre + half, 1.0)


def standard_error(values: Sequence[float]) -> float:
    """Of the mean of independent values; 0 for fewer than two."""
    if len(values) < 2:
        return 0.0
    mean = sum(values) / len(values)
    return math.sqrt(sum((x - mean) ** 2 for x in values) / (len(values) - 1) / len(values))


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Interval of the mean of independent values, by the normal approximation."""
    mean, half = sum(values) / len(values), Z * standard_error(values)
    return mean - half, mean + half
