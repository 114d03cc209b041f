"""Trajectories of the log of rollouts that a report shows."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from rl.reporting.charts import Row, is_number
from rl.rollout_log import thumbnail

# Of the log of rollouts only the first and the last lines are looked at: it can hold gigabytes.
_LINES_AT_EACH_END = 64
_SAMPLES = 4
# The lines of one iteration are often samples of the same prompt.
_ITERATIONS_AT_EACH_END = 3
_MAX_CHARACTERS = 6000


@dataclass(frozen=True)
class Turn:
    """A part of a prompt."""

    role: str
    text: str
    images: tuple[str, ...] = ()
    """small pictures as data URLs"""


@dataclass(frozen=True)
class Sample:
    """A logged trajectory."""

    iteration: int
    origin: str
    turns: tuple[Turn, ...]
    completion: str
    reward: float | None
    terms: Mapping[str, Any]
    finish_reason: str
    num_tokens: int | None


def logged_samples(path: Path) -> tuple[list[Sample], list[Sample]]:
    """A handful of the first and of the last iterations of a log of rollouts (rollouts/<stage>.jsonl)."""
    if not path.exists():
        return [], []
    with path.open("rb") as lines:
        head = [*islice(lines, _LINES_AT_EACH_END)]
        tail = [*deque(chain(head, lines), maxlen=_LINES_AT_EACH_END)]
    first, last = [*_rows_of(head)], [*_rows_of(tail)]
    begin = list(dict.fromkeys(_iteration(row) for row in first))[:_ITERATIONS_AT_EACH_END]
    end = [index for index in dict.fromkeys(map(_iteration, last)) if index not in begin][-_ITERATIONS_AT_EACH_END:]
    early = _varied([row for row in first if _iteration(row) in begin])
    late = _varied(sorted((row for row in last if _iteration(row) in end), key=_iteration, reverse=True))
    folder = path.parent
    return [_sample(row, folder) for row in early], [_sample(row, folder) for row in late]


def _iteration(row: Row) -> int:
    """Counted from 1, as everywhere a person sees it; 0 for a damaged line."""
    return int(row["iteration"]) + 1 if is_number(row.get("iteration")) else 0


def _varied(rows: Sequence[Row]) -> list[Row]:
    """A handful: other sources, prompts and rewards before more of the same."""
    left, chosen = list(rows), list[Row]()
    seen: Counter[tuple[str, object]] = Counter()
    while left and len(chosen) < _SAMPLES:
        row = min(left, key=lambda row: [seen[name, str(row.get(name))] for name in ("origin", "prompt_id", "reward")])
        left.remove(row)
        chosen.append(row)
        seen.update((name, str(row.get(name))) for name in ("origin", "prompt_id", "reward"))
    return chosen


def _sample(row: Row, folder: Path) -> Sample:
    terms, tokens = row.get("terms"), row.get("num_tokens")
    return Sample(
        iteration=_iteration(row),
        origin=str(row.get("origin", "")),
        turns=tuple(_turns(row.get("prompt"), folder)),
        completion=shortened("\n".join(map(str, row.get("turns") or [row.get("completion", "")]))),
        reward=row["reward"] if is_number(row.get("reward")) else None,
        terms=terms if isinstance(terms, dict) else {},
        finish_reason=str(row.get("finish_reason", "")),
        num_tokens=tokens if isinstance(tokens, int) else None,
    )


def _turns(prompt: object, folder: Path) -> Iterator[Turn]:
    for turn in prompt if isinstance(prompt, list) else [{"role": "prompt", "content": prompt}]:
        if isinstance(turn, dict):
            yield _turn(turn, folder)


def _turn(turn: Row, folder: Path) -> Turn:
    content, role = turn.get("content"), str(turn.get("role"))
    if not isinstance(content, list):
        return Turn(role, shortened(str(content)))
    parts = [part for part in content if isinstance(part, dict)]
    text = "".join(str(part.get("text", "")) for part in parts if part.get("type") == "text")
    shown = [thumbnail(str(part["image"]), folder) for part in parts if part.get("image")]
    missing = sum(picture is None for picture in shown)
    note = f"\n[{missing} images can no longer be read]" if missing else ""
    return Turn(role, shortened(text) + note, tuple(picture for picture in shown if picture is not None))


def shortened(text: str) -> str:
    """Beginning and end of a text that is too long to show."""
    left = len(text) - _MAX_CHARACTERS
    if left <= 0:
        return text
    half = _MAX_CHARACTERS // 2
    return f"{text[:half]}\n[... {left:,} characters are left out ...]\n{text[-half:]}"


def _rows_of(lines: Sequence[bytes]) -> Iterator[Row]:
    """Whole lines only: a crash can leave the last one cut."""
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            yield row
