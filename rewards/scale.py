"""What makes the scores of a model comparable: mean and standard deviation, fixed or running."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_SMALLEST_STD = 1e-6


@dataclass(frozen=True)
class Scale:
    """What makes the scores of a model comparable."""

    mean: float
    std: float

    @classmethod
    def of(cls, scores: Sequence[float]) -> Scale:
        """Of scores on reference data; the standard deviation is that of the scores, not of a larger population."""
        return cls(statistics.fmean(scores), max(statistics.pstdev(scores), _SMALLEST_STD))

    @classmethod
    def stored(cls, path: Path) -> Scale:
        """Of a file of JSON; (0, 1) where there is none."""
        return cls(**json.loads(path.read_text())) if path.is_file() else cls(0.0, 1.0)

    def __call__(self, score: float) -> float:
        return (score - self.mean) / self.std


@dataclass
class RunningScale:
    """Mean and standard deviation of everything seen so far (Welford's method)."""

    count: int = 0
    mean: float = 0.0
    sum_of_squares: float = 0.0
    """of the differences from the mean"""

    def update(self, scores: Sequence[float]) -> Scale:
        """The scale after these scores too; (mean, 1) until two different ones were seen."""
        for score in scores:
            self.count += 1
            difference = score - self.mean
            self.mean += difference / self.count
            self.sum_of_squares += difference * (score - self.mean)
        std = math.sqrt(self.sum_of_squares / self.count) if self.count else 0.0
        return Scale(self.mean, std if std > _SMALLEST_STD else 1.0)
