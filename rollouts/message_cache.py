"""The cache of graded answers that PaCoRe's training prompts are made from, and its file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rollouts.rows import DatasetError, Row
from rollouts.trajectory import PromptContent


@dataclass(frozen=True)
class CachedMessage:
    """One graded answer."""

    conclusion: str
    reward: float
    correct: bool
    num_tokens: int
    """sampled for the whole response, not only the conclusion"""


@dataclass(frozen=True)
class CachedProblem:
    """A problem with its graded answers."""

    prompt_id: str
    content: PromptContent
    columns: Row
    messages: tuple[CachedMessage, ...]

    @property
    def accuracy(self) -> float:
        """Share of right messages."""
        return sum(message.correct for message in self.messages) / len(self.messages)


def write_cache(path: Path, problems: Sequence[CachedProblem]) -> None:
    """One JSON object per line."""
    lines = [json.dumps(asdict(problem), ensure_ascii=False) + "\n" for problem in problems]
    path.write_text("".join(lines), encoding="utf-8")


def read_cache(path: Path) -> list[CachedProblem]:
    """What `write_cache` wrote.

    Raises:
        DatasetError: missing or malformed, with file and line.
    """
    return list(_cached_problems(path))


def _cached_problems(path: Path) -> Iterator[CachedProblem]:
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except OSError as error:
        raise DatasetError(f"{path}: the message cache cannot be read: {error}") from None
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            messages = tuple(CachedMessage(**message) for message in row["messages"])
            yield CachedProblem(row["prompt_id"], row["content"], row["columns"], messages)
        except (ValueError, TypeError, KeyError) as error:
            raise DatasetError(f"{path}:{number}: not a cached problem: {error}") from None
