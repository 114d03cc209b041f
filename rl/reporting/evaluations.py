"""The part of a report that shows result files of `stepladder evaluate` in the run directory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from rl.errors import UserError
from rl.inference.accuracy import Estimate
from rl.inference.comparison import Summary, summarize
from rl.inference.comparison_plot import figure, style
from rl.inference.result_file import read_results
from rl.reporting.charts import svg_of


@dataclass(frozen=True)
class EvaluationLine:
    """One result file."""

    file: str
    way: str
    num_problems: int
    accuracy: Estimate
    tokens: float
    """sampled per answer"""


@dataclass(frozen=True)
class EvaluationsReport:
    """All result files of a run directory."""

    svg: Markup
    """accuracy against tokens per answer"""
    lines: Sequence[EvaluationLine]


def evaluations(folder: Path) -> EvaluationsReport | None:
    """What the result files in a folder say; None where there are none. Files that are none are left out."""
    summaries = [summary for path in sorted(folder.glob("*.jsonl")) if (summary := _summary(path)) is not None]
    if not summaries:
        return None
    with style():
        svg = svg_of(figure(summaries))
    return EvaluationsReport(svg, [_line(summary) for summary in summaries])


def _summary(path: Path) -> Summary | None:
    try:
        return summarize(read_results(path))
    except UserError:  # another file, or an evaluation that has no answer yet
        return None


def _line(summary: Summary) -> EvaluationLine:
    first = summary.measures[0]
    return EvaluationLine(
        file=summary.results.path.name,
        way=first.name,
        num_problems=summary.num_problems,
        accuracy=first.estimate,
        tokens=summary.completion_tokens.value,
    )
