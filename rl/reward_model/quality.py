"""How good a reward model is on held-out pairs: accuracy with its interval, loss, calibration."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rewards.scale import Scale
from rl.intervals import wilson

# In the folder of a preference model.
CALIBRATION, CALIBRATION_PLOT = "calibration.json", "calibration.png"
_NUM_BINS = 10


@dataclass(frozen=True)
class PairScores:
    """Scores of both sides of each pair, in the same order."""

    chosen: tuple[float, ...]
    rejected: tuple[float, ...]

    @property
    def differences(self) -> list[float]:
        """Score of chosen minus score of rejected, by pair."""
        return [a - b for a, b in zip(self.chosen, self.rejected, strict=True)]

    def normalised(self) -> PairScores:
        """On the scale of all of them: mean 0, standard deviation 1."""
        scale = Scale.of([*self.chosen, *self.rejected])
        return PairScores(tuple(map(scale, self.chosen)), tuple(map(scale, self.rejected)))

    @classmethod
    def mean(cls, members: Sequence[PairScores]) -> PairScores:
        """Of an ensemble: the mean of its members' scores."""
        sides = [[sum(scores) / len(members) for scores in zip(*side)] for side in
                 ([m.chosen for m in members], [m.rejected for m in members])]  # fmt: skip
        return cls(tuple(sides[0]), tuple(sides[1]))


@dataclass(frozen=True)
class CalibrationBin:
    """Pairs on whose better side the model is about equally sure."""

    low: float
    high: float
    confidence: float
    """mean probability, under the model, of the side that it prefers; in [0.5, 1]"""
    accuracy: float
    """share of these pairs on which that side is the chosen one; a tie counts half"""
    count: int


def quality(scores: PairScores) -> dict[str, float]:
    """Numbers for the record of the stage.

    `accuracy` is the share of pairs with the higher score on the chosen side, a tie counting half, `accuracy_low` and
    `accuracy_high` its 95% interval (Wilson); `held_out_loss` the mean of -log sigmoid(difference) in nats;
    `calibration_error` the mean over pairs of |confidence - accuracy| of their bin.
    """
    differences = scores.differences
    accuracy = sum((d > 0) + 0.5 * (d == 0) for d in differences) / len(differences)
    low, high = wilson(accuracy, len(differences))
    bins = calibration(scores)
    error = sum(b.count * abs(b.confidence - b.accuracy) for b in bins) / len(differences)
    every = [*scores.chosen, *scores.rejected]
    mean = sum(every) / len(every)
    return {
        "accuracy": accuracy,
        "accuracy_low": low,
        "accuracy_high": high,
        "held_out_loss": sum(_softplus(-d) for d in differences) / len(differences),
        "calibration_error": error,
        "score_mean": mean,
        "score_std": math.sqrt(sum((x - mean) ** 2 for x in every) / len(every)),
    }


def calibration(scores: PairScores, num_bins: int = _NUM_BINS) -> list[CalibrationBin]:
    """Pairs in bins of equal width by sigmoid(|difference|), without empty bins."""
    found: dict[int, list[tuple[float, float]]] = {}
    for difference in scores.differences:
        confidence = 1.0 / (1.0 + math.exp(-min(abs(difference), 700.0)))
        index = min(int((confidence - 0.5) * 2 * num_bins), num_bins - 1)
        found.setdefault(index, []).append((confidence, (difference > 0) + 0.5 * (difference == 0)))
    width = 0.5 / num_bins
    return [
        CalibrationBin(
            low=0.5 + index * width,
            high=0.5 + (index + 1) * width,
            confidence=sum(confidence for confidence, _ in own) / len(own),
            accuracy=sum(hit for _, hit in own) / len(own),
            count=len(own),
        )
        for index, own in sorted(found.items())
    ]


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def write_calibration(folder: Path, scores: PairScores) -> None:
    """The bins as JSON, for the report, and as a plot in PNG."""
    bins = calibration(scores)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CALIBRATION).write_text(json.dumps([asdict(b) for b in bins], indent=1))
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5, 4.5), layout="constrained", dpi=120)
    draw_calibration(figure, bins)
    figure.savefig(folder / CALIBRATION_PLOT)


def read_calibration(folder: Path) -> list[CalibrationBin]:
    """What `write_calibration` wrote; empty where there is none."""
    path = folder / CALIBRATION
    return [CalibrationBin(**b) for b in json.loads(path.read_text())] if path.is_file() else []


def draw_calibration(figure, bins: Sequence[CalibrationBin]) -> None:  # type: ignore[no-untyped-def]
    """Accuracy over confidence with 95% intervals; the diagonal is a model that knows what it knows."""
    axes = figure.add_subplot()
    axes.plot([0.5, 1], [0.5, 1], color="#9aa3ad", linewidth=1, linestyle="--")
    for b in bins:
        low, high = wilson(b.accuracy, b.count)
        axes.plot([b.confidence] * 2, [low, high], color="#2563a8", linewidth=1)
        axes.plot([b.confidence], [b.accuracy], "o", color="#2563a8", markersize=3 + 5 * b.count / _largest(bins))
    axes.set_xlabel("confidence of the model")
    axes.set_ylabel("share of pairs it gets right")
    axes.set_xlim(0.48, 1.02)


def _largest(bins: Sequence[CalibrationBin]) -> int:
    return max(b.count for b in bins)
