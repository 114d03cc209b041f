"""Charts of a report that only stages with a learned preference have."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rl.intervals import Z
from rl.over_optimisation import WatchPoint, first_finding, watch_points
from rl.reporting.charts import Chart, one_chart
from rl.reward_model.quality import draw_calibration, read_calibration

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PROXY, _GOLD = "#d9772b", "#2563a8"


def watched_rewards(section: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(label, evaluation) of each reward of a stage of a resolved recipe that has a gold evaluation."""
    rewards = [reward for reward in section.get("rewards") or [] if isinstance(reward, dict) and reward.get("gold")]
    return [(str(r.get("name") or str(r.get("fn")).rpartition(":")[2]), str(r["gold"])) for r in rewards]


def watch_charts(rows: Sequence[Mapping[str, Any]], watched: Sequence[tuple[str, str]], *, salt: str) -> list[Chart]:
    """Learned reward and gold score over KL, for each watched reward that was measured at least twice."""
    charts = []
    for reward, evaluation in watched:
        points = watch_points(rows, reward, evaluation)
        if len(points) > 1:
            note = f"learned reward {reward} (left) and held-out {evaluation} with 95% intervals (right) over KL"
            draw = functools.partial(_draw, points=points, reward=reward, evaluation=evaluation)
            charts.append(one_chart("Proxy and gold", note, draw, salt=salt))
    return charts


def watch_warnings(rows: Sequence[Mapping[str, Any]], watched: Sequence[tuple[str, str]]) -> list[str]:
    """What the stage should have been stopped for."""
    found = [first_finding(watch_points(rows, reward, gold), reward, gold) for reward, gold in watched]
    return [str(finding) for finding in found if finding is not None]


def _draw(figure: Figure, points: Sequence[WatchPoint], reward: str, evaluation: str) -> None:
    by_kl = sorted(points, key=lambda point: point.kl)
    left = figure.add_subplot()
    right = left.twinx()
    kl = [point.kl for point in by_kl]
    left.plot(kl, [point.proxy for point in by_kl], "o-", color=_PROXY, markersize=3, linewidth=1.2)
    errors = [Z * point.gold_error for point in by_kl]
    right.errorbar(
        kl, [point.gold for point in by_kl], yerr=errors, fmt="o-", color=_GOLD, markersize=3, linewidth=1.2
    )
    left.set_xlabel("KL to the reference, nats per response")
    left.set_ylabel(reward, color=_PROXY)
    right.set_ylabel(evaluation, color=_GOLD)
    right.spines["right"].set_visible(True)
    right.grid(False)


def calibration_charts(folder: Path, *, salt: str) -> list[Chart]:
    """The calibration of the reward model in a folder; nothing where there is none."""
    bins = read_calibration(folder)
    note = "held-out pairs, 95% intervals; on the dashed line it knows what it knows"
    return [one_chart("Calibration", note, lambda figure: draw_calibration(figure, bins), salt=salt)] if bins else []
