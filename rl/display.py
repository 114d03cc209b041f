"""What a person sees while a run goes on: a live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.measure import Measurement as RichMeasurement
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from rl.phases import shares
from rl.run_directory import StageRecord

# label, metric, format
_COLUMNS = (
    ("reward", "reward_mean", "{:.3f}"),
    ("accuracy", "accuracy", "{:.3f}"),
    ("loss", "loss", "{:.4f}"),
    ("tokens", "completion_tokens_mean", "{:.1f}"),
    ("KL ref", "kl_ref", "{:.4f}"),
    ("approx KL", "approx_kl", "{:.4f}"),
    ("clip", "clipfrac", "{:.3f}"),
    ("entropy", "entropy", "{:.3f}"),
    ("expl. var.", "explained_variance", "{:.2f}"),
    ("gap", "rollout_gap_mean", "{:.1e}"),
    ("tok/s", "tokens_per_s", "{:.0f}"),
)
_ROWS_SHOWN = 8
_PLAIN_LINES_PER_STAGE = 12


class Display(Protocol):
    """Told of everything that happens."""

    def stage_started(self, name: str, kind: str, total: int, done: int) -> None:
        """`done` of `total` iterations were done before (a resumed stage)."""

    def iteration(self, index: int, metrics: Mapping[str, float]) -> None:
        """One iteration (step, chunk) of the current stage is done."""

    def stage_finished(self, name: str, record: StageRecord) -> None:
        """The current stage is done and measured."""

    def message(self, text: str) -> None:
        """Anything else worth a line."""

    def table(self, records: Mapping[str, StageRecord]) -> None:
        """The table at the end."""

    def close(self) -> None:
        """Gives the terminal back."""


def make_display() -> Display:
    """Live on a terminal, plain lines elsewhere."""
    console = Console()
    return LiveDisplay(console) if console.is_terminal else PlainDisplay(console)


def cells(metrics: Mapping[str, float]) -> dict[str, str]:
    """The metrics that a person watches, by label, formatted."""
    return {label: text.format(metrics[name]) for label, name, text in _COLUMNS if name in metrics}


def time_shares(metrics: Mapping[str, float]) -> str:
    """For example "rollout 62% scoring 1% learning 36% publishing 1%"."""
    return " ".join(f"{name} {share:.0%}" for name, share in shares(metrics).items())


def print_results(console: Console, records: Mapping[str, StageRecord], *, width: int) -> None:
    """The stages with every held-out score before and after; as a list of scores where a table would be cut."""
    table = result_table(records)
    wide = console.options.update(max_width=10_000)
    if RichMeasurement.get(console, wide, table).maximum > width:
        table = result_list(records)
    needed = RichMeasurement.get(console, wide, table).maximum
    # rich cuts what is wider than its console, also where lines can be longer than that.
    Console(file=console.file, width=needed, force_terminal=console.is_terminal).print(table)


def result_table(records: Mapping[str, StageRecord]) -> Table:
    """A row per stage: kind, iterations, time, and each held-out score."""
    table = _stage_table()
    names = list(dict.fromkeys(name for record in records.values() for name in record.after))
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for stage, record in records.items():
        scores = [_change(record, name) for name in names]
        table.add_row(*_stage_cells(stage, record), *(scores if record.after else [""] * len(names)))
    return table


def result_list(records: Mapping[str, StageRecord]) -> Table:
    """The same in a few columns, however many held-out sets there are: a row per stage and score."""
    table = _stage_table()
    table.add_column("held-out", no_wrap=True)
    table.add_column("score", justify="right", no_wrap=True)
    for stage, record in records.items():
        first, empty = _stage_cells(stage, record), ("", "", "", "")
        scores = [(name, _change(record, name)) for name in record.after] or [("", "")]
        for number, score in enumerate(scores):
            table.add_row(*(empty if number else first), *score)
    return table


def _stage_table() -> Table:
    table = Table(title="stages and held-out scores (before -> after)")
    for column in ("stage", "kind", "iterations", "time"):
        table.add_column(column, justify="left" if column in ("stage", "kind") else "right", no_wrap=True)
    return table


def _stage_cells(stage: str, record: StageRecord) -> tuple[str, str, str, str]:
    return stage, record.kind, str(record.iterations), f"{record.seconds:.1f} s"


def _change(record: StageRecord, name: str) -> str:
    return f"{_score(record.before, name)} -> {_score(record.after, name)}"


def _score(scores: Mapping[str, float], name: str) -> str:
    return f"{scores[name]:.3f}" if name in scores else "-"


class PlainDisplay:
    """Lines; of a long stage only about a dozen, so that a log stays readable."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._total, self._name = 0, ""

    def stage_started(self, name: str, kind: str, total: int, done: int) -> None:
        """See `Display`."""
        self._total, self._name = total, name
        resumed = f", continued after {done}" if done else ""
        self._print(f"[{name}] {kind}, {total} iterations{resumed}")

    def iteration(self, index: int, metrics: Mapping[str, float]) -> None:
        """See `Display`."""
        every = max(self._total // _PLAIN_LINES_PER_STAGE, 1)
        if (index + 1) % every and index + 1 != self._total:
            return
        numbers = "  ".join(f"{label} {text}" for label, text in cells(metrics).items())
        spent = time_shares(metrics) if "reward_mean" in metrics else ""
        self._print(f"[{self._name}] {index + 1}/{self._total}  {numbers}  {spent}")

    def stage_finished(self, name: str, record: StageRecord) -> None:
        """See `Display`."""
        self._print(f"[{name}] done in {record.seconds:.1f} s  {_summary(record)}")

    def message(self, text: str) -> None:
        """See `Display`."""
        self._print(text)

    def table(self, records: Mapping[str, StageRecord]) -> None:
        """See `Display`."""
        print_results(self._console, records, width=max(self._console.width, 160))

    def close(self) -> None:
        """See `Display`."""

    def _print(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)


class LiveDisplay:
    """A progress bar and the last iterations, redrawn in place."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} {task.fields[left]}"),
        )
        self._live = Live(console=console, refresh_per_second=4, transient=True)
        self._rows: deque[tuple[int, Mapping[str, float]]] = deque(maxlen=_ROWS_SHOWN)
        self._started, self._done_before = 0.0, 0

    def stage_started(self, name: str, kind: str, total: int, done: int) -> None:
        """See `Display`."""
        for task in self._progress.task_ids:
            self._progress.remove_task(task)
        self._task = self._progress.add_task(f"{name} ({kind})", total=total, completed=done, left="")
        self._rows.clear()
        self._started, self._done_before = time.monotonic(), done
        self._live.start()
        self._draw()

    def iteration(self, index: int, metrics: Mapping[str, float]) -> None:
        """See `Display`."""
        self._rows.append((index + 1, metrics))
        done = index + 1 - self._done_before
        total = self._progress.tasks[0].total or 0
        left = (time.monotonic() - self._started) / max(done, 1) * (total - index - 1)
        self._progress.update(self._task, completed=index + 1, left=f"{left:.0f} s left")
        self._draw()

    def _draw(self) -> None:
        table = Table(box=None)
        labels = list(dict.fromkeys(label for _, metrics in self._rows for label in cells(metrics)))
        for column in ("iteration", *labels):
            table.add_column(column, justify="right")
        for number, metrics in self._rows:
            shown = cells(metrics)
            table.add_row(str(number), *(shown.get(label, "") for label in labels))
        spent = time_shares(self._rows[-1][1]) if self._rows and "reward_mean" in self._rows[-1][1] else ""
        self._live.update(Group(self._progress, table, spent))

    def stage_finished(self, name: str, record: StageRecord) -> None:
        """See `Display`."""
        self._live.stop()
        self.message(f"{name}: done in {record.seconds:.1f} s  {_summary(record)}")

    def message(self, text: str) -> None:
        """See `Display`."""
        self._console.print(text, highlight=False, markup=False)

    def table(self, records: Mapping[str, StageRecord]) -> None:
        """See `Display`."""
        print_results(self._console, records, width=self._console.width)

    def close(self) -> None:
        """See `Display`."""
        self._live.stop()


def _summary(record: StageRecord) -> str:
    scores = [f"{name} {_score(record.before, name)} -> {value:.3f}" for name, value in record.after.items()]
    # Details of a held-out set, named set/detail, are many: they stand in state.json and in the report.
    details = [f"{name} {value:.3f}" for name, value in record.details.items() if "/" not in name]
    return "  ".join([*scores, *details])
