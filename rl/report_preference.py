"""Charts of a report that only stages with a learned preference have."""

from __future__ import annotations

from pathlib import Path

from rl.preference_quality import draw_calibration, read_calibration
from rl.report_charts import Chart, one_chart


def calibration_charts(folder: Path, *, salt: str) -> list[Chart]:
    """The calibration of the reward model in a folder; nothing where there is none."""
    bins = read_calibration(folder)
    note = "held-out pairs, 95% intervals; on the dashed line it knows what it knows"
    return [one_chart("Calibration", note, lambda figure: draw_calibration(figure, bins), salt=salt)] if bins else []
