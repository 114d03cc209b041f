"""Scores a file of responses: one JSON object a line in, the same with reward, status and message out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from rewards.registry import PROVIDED, load_reward, required_columns
from rewards.result import RewardResult, RewardStatus
from rewards.worker import RewardPool

_CHUNK_ROWS = 256  # read, scored and written at a time; a file may be larger than memory
_OUTPUT_KEYS = ("reward", "status", "message")

Row = dict[str, Any]


class ScoreFileError(ValueError):
    """The file cannot be scored; the message names the file, the line and what is wrong."""


@dataclass
class ScoreSummary:
    """What scoring a file came to."""

    num_rows: int = 0
    counts: Counter[RewardStatus] = field(default_factory=Counter)
    total: float = 0.0  # sum of the rewards of the ok rows
    lowest: float | None = None
    highest: float | None = None
    first_failures: list[str] = field(default_factory=list)  # "line 7: timeout: no answer within 5 s"
    logged: dict[str, list[float]] = field(default_factory=dict)  # [sum, rows] of what the reward logged, by name

    @property
    def mean(self) -> float | None:
        """Mean reward over ok rows; None when there are none."""
        num_ok = self.counts[RewardStatus.OK]
        return self.total / num_ok if num_ok else None

    @property
    def metrics(self) -> dict[str, float]:
        """Mean of each metric that the reward logged, over the rows that have it."""
        return {name: total / count for name, (total, count) in sorted(self.logged.items())}

    def add(self, line: int, result: RewardResult) -> None:
        self.num_rows += 1
        self.counts[result.status] += 1
        for name, value in result.metrics.items():
            total, count = self.logged.get(name, (0.0, 0))
            self.logged[name] = [total + value, count + 1]
        if result.value is not None:
            self.total += result.value
            self.lowest = result.value if self.lowest is None else min(self.lowest, result.value)
            self.highest = result.value if self.highest is None else max(self.highest, result.value)
        elif result.failed and len(self.first_failures) < 10:
            self.first_failures.append(f"line {line}: {result.status}: {result.message}")

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {status}" for status, count in self.counts.most_common())
        if self.mean is None:
            return f"{self.num_rows} rows: {counts or 'nothing to score'}"
        return f"{self.num_rows} rows: {counts}; mean {self.mean:.4f}, from {self.lowest:g} to {self.highest:g}"


def score_file(
    path: str | Path,
    spec: str,
    *,
    args: Mapping[str, object] | None = None,
    out: str | Path | None = None,
    timeout_s: float = 30.0,
    num_workers: int = 1,
    value_range: tuple[float, float] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> ScoreSummary:
    """Score every row of a JSONL file with the reward that `spec` names.

    Args:
        path: lines of {"completion": ..., "prompt": ..., other columns}; prompt may be left out.
        args: options of the reward.
        out: where to write rows with "reward", "status" and "message" added; None to write nothing.
        timeout_s: of one row, in seconds.
        on_progress: called with the number of rows done so far.

    Raises:
        ScoreFileError: the file is missing, a line is not a JSON object, or a column that the reward needs is not
            there; nothing is lost of what was written before.
        RewardSpecError: the reward cannot be loaded.
    """
    source = Path(path)
    needed = required_columns(load_reward(spec, **(args or {})))
    if out is not None and Path(out).resolve() == source.resolve():
        raise ScoreFileError(f"{source}: the output would overwrite the input; name another file")
    summary = ScoreSummary()
    with ExitStack() as stack:
        pool = RewardPool(
            spec, args=args or {}, timeout_s=timeout_s, num_workers=num_workers, value_range=value_range
        )  # fmt: skip
        stack.callback(pool.close)  # it starts with the first rows, so that a bad line is named at once
        sink = stack.enter_context(open(out, "w", encoding="utf-8")) if out is not None else None
        for lines, rows in _chunks(source, needed, spec):
            results = _score_rows(pool, rows)
            for line, row, result in zip(lines, rows, results):
                summary.add(line, result)
                _write(sink, row, result)
            if on_progress is not None:
                on_progress(summary.num_rows)
    return summary


def _score_rows(pool: RewardPool, rows: list[Row]) -> list[RewardResult]:
    names = {name for row in rows for name in row} - {"prompt", "completion", *_OUTPUT_KEYS} - PROVIDED
    columns = {name: [row.get(name) for row in rows] for name in names}
    return pool.score([row.get("prompt", "") for row in rows], [row["completion"] for row in rows], columns)


def _write(sink: IO[str] | None, row: Row, result: RewardResult) -> None:
    if sink is not None:
        scored = {**row, "reward": result.value, "status": str(result.status), "message": result.message}
        sink.write(json.dumps(scored, ensure_ascii=False) + "\n")


def _chunks(path: Path, needed: frozenset[str], spec: str) -> Iterator[tuple[list[int], list[Row]]]:
    lines: list[int] = []
    rows: list[Row] = []
    for line, row in _read(path):
        _check_columns(path, line, row, needed, spec)
        lines.append(line)
        rows.append(row)
        if len(rows) == _CHUNK_ROWS:
            yield lines, rows
            lines, rows = [], []
    if rows:
        yield lines, rows


def _read(path: Path) -> Iterator[tuple[int, Row]]:
    try:
        with open(path, encoding="utf-8") as stream:
            for line, text in enumerate(stream, start=1):
                if text.strip():
                    yield line, _parse(path, line, text)
    except OSError as error:
        raise ScoreFileError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ScoreFileError(f"{path}: not UTF-8 text: {error}") from error


def _parse(path: Path, line: int, text: str) -> Row:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ScoreFileError(f"{path}, line {line}: not JSON: {error}") from error
    if not isinstance(row, dict):
        raise ScoreFileError(f"{path}, line {line}: expected a JSON object, found {type(row).__name__}")
    return row


def _check_columns(path: Path, line: int, row: Row, needed: frozenset[str], spec: str) -> None:
    for name in ["completion", *sorted(needed)]:
        if name not in row:
            why = "every row needs one" if name == "completion" else f"reward {spec!r} needs it"
            raise ScoreFileError(f"{path}, line {line}: no {name!r} ({why}); the row has {sorted(row)}")
