"""Over-optimisation of a learned reward: the proxy goes on rising while what it stands for falls.

Source: Gao, Schulman, Hilton 2022, https://arxiv.org/abs/2210.10760: gold reward over KL rises, peaks and falls.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Standard errors by which two measurements in a row must lie below the best one. Noise around a gold score that stays
# where it is then gives an alarm in 1 of 100 runs of 20 measurements (at 2.5 in 6 of 100).
_CLEARLY = 3.0


@dataclass(frozen=True)
class WatchPoint:
    """One held-out measurement during a stage."""

    iteration: int
    """counted from 1"""
    kl: float
    """nats per response, to the reference"""
    proxy: float
    """mean of the learned reward over the iteration's responses"""
    gold: float
    """the held-out score"""
    gold_error: float
    """its standard error"""


@dataclass(frozen=True)
class OverOptimisation:
    """Where the gold score was best, and where it is now."""

    reward: str
    evaluation: str
    best: WatchPoint
    now: WatchPoint

    def __str__(self) -> str:
        best, now = self.best, self.now
        return (
            f"over-optimisation: the reward {self.reward!r} rose from {best.proxy:.3f} to {now.proxy:.3f} while the "
            f"held-out score {self.evaluation!r} fell from {best.gold:.3f} to {now.gold:.3f} (iterations "
            f"{best.iteration} to {now.iteration}, KL {best.kl:.2f} to {now.kl:.2f} nats per response); raise the KL "
            f"coefficient, stop earlier, or train the reward model on responses like the present ones"
        )


def watch_points(rows: Sequence[Mapping[str, Any]], reward: str, evaluation: str) -> list[WatchPoint]:
    """The iterations of a stage that have all of KL, proxy and gold.

    Args:
        rows: lines of metrics.jsonl of the stage.
        reward: label of the learned reward.
        evaluation: name of the held-out set.
    """
    names = ("kl_ref_per_response", f"reward/{reward}", f"held_out/{evaluation}", f"held_out_error/{evaluation}")
    found = []
    for row in rows:
        values = [row.get(name) for name in names]
        if all(isinstance(value, int | float) and math.isfinite(value) for value in values):
            found.append(WatchPoint(int(row["iteration"]) + 1, *map(float, values)))  # type: ignore[arg-type]
    return found


def over_optimised(points: Sequence[WatchPoint], reward: str, evaluation: str) -> OverOptimisation | None:
    """The finding, or None: the last two gold scores are clearly below the best one, and the proxy is higher."""
    if len(points) < 3:
        return None
    best = max(points[:-2], key=lambda point: point.gold)
    recent = points[-2:]
    fell = all(best.gold - p.gold > _CLEARLY * math.hypot(best.gold_error, p.gold_error) for p in recent)
    rose = sum(p.proxy for p in recent) / 2 > best.proxy
    return OverOptimisation(reward, evaluation, best, points[-1]) if fell and rose else None


def first_finding(points: Sequence[WatchPoint], reward: str, evaluation: str) -> OverOptimisation | None:
    """The first time that a stage was over-optimised, if it ever was."""
    findings = (over_optimised(points[:end], reward, evaluation) for end in range(3, len(points) + 1))
    return next((finding for finding in findings if finding is not None), None)
