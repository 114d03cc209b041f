"""What an evaluation prints: how far it is, a table for each file, and how files differ."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from rl.inference.accuracy import Estimate
from rl.inference.comparison import Summary, difference, summarize
from rl.inference.result_file import read_results

if TYPE_CHECKING:
    from rl.inference.answering import Progress


class ProgressLine:
    """How far an evaluation is, on standard error: a line that changes on a terminal, else one every ten seconds."""

    def __init__(self, out: str, num_done: int) -> None:
        self._console = Console(stderr=True, soft_wrap=True)
        self._start = time.monotonic()
        self._told = self._start
        if num_done:
            self._console.print(f"{out} has {num_done} answers already; going on from there", highlight=False)

    def update(self, progress: Progress) -> None:
        """Prints where it is time."""
        now = time.monotonic()
        if now - self._told < (0.5 if self._console.is_terminal else 10.0) and progress.done < progress.total:
            return
        self._told = now
        speed = progress.completion_tokens / max(now - self._start, 1e-9)
        accuracy = f"{progress.right / progress.graded:.3f}" if progress.graded else "-"
        text = f"{progress.done}/{progress.total} answers, accuracy {accuracy}, {speed:,.0f} tokens/s"
        text += f", {progress.failed} failed" if progress.failed else ""
        self._console.print(text, end="\r" if self._console.is_terminal else "\n", highlight=False)

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._console.is_terminal:
            self._console.print()


def print_report(files: Sequence[Path], *, plot: Path | None, json_path: Path | None = None) -> None:
    """A table for each file, the difference of each to the first, and the figure and JSON where they are wanted."""
    console = Console()
    summaries = [summarize(read_results(path)) for path in files]
    for summary in summaries:
        console.print(_table(summary))
    for summary in summaries[1:]:
        _print_difference(console, summary, summaries[0])
    if json_path is not None:
        json_path.write_text(json.dumps([_as_json(summary) for summary in summaries], indent=1), encoding="utf-8")
    if plot is not None:
        from rl.inference.comparison_plot import plot as draw

        draw(summaries, plot)
        console.print(f"wrote {plot}", highlight=False)


def _table(summary: Summary) -> Table:
    settings = summary.results.settings
    title = f"{summary.results.path}: {settings.model}, {summary.num_problems} problems, {summary.num_answers} answers"
    if summary.results.failures:
        title += f", {len(summary.results.failures)} failed"
    if summary.num_ungraded:
        title += f", {summary.num_ungraded} without a grade"
    if summary.num_retries:
        title += f", {summary.num_retries} requests tried again"
    table = Table(title=title, title_justify="left")
    for column in ("measure", "value", "95% interval", "tokens per answer"):
        table.add_column(column, justify="left" if column == "measure" else "right")
    for measure in summary.measures:
        tokens = "" if measure.tokens_per_answer is None else f"{measure.tokens_per_answer:,.0f}"
        table.add_row(measure.name, *_cells(measure.estimate, "{:.3f}"), tokens)
    costs = {"prompt tokens per answer": summary.prompt_tokens, "seconds per answer": summary.seconds}
    for name, estimate in costs.items():
        table.add_row(name, *_cells(estimate, "{:,.1f}"), "")
    return table


def _cells(estimate: Estimate, form: str) -> tuple[str, str]:
    return form.format(estimate.value), f"{form.format(estimate.low)} to {form.format(estimate.high)}"


def _print_difference(console: Console, one: Summary, first: Summary) -> None:
    found = difference(one, first)
    names = f"{one.results.path} minus {first.results.path}"
    if found is None:
        console.print(f"{names}: they have no problem in common", highlight=False)
    else:
        console.print(f"{names}: {found[0]} in accuracy, over {found[1]} problems", highlight=False)


def _as_json(summary: Summary) -> dict[str, object]:
    return {
        "file": str(summary.results.path),
        "model": summary.results.settings.model,
        "problems": summary.num_problems,
        "answers": summary.num_answers,
        "failed": len(summary.results.failures),
        "ungraded": summary.num_ungraded,
        "retries": summary.num_retries,
        "measures": [asdict(measure) for measure in summary.measures],
        "completion_tokens": asdict(summary.completion_tokens),
        "prompt_tokens": asdict(summary.prompt_tokens),
        "seconds": asdict(summary.seconds),
    }


