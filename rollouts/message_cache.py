"""The cache of graded answers that PaCoRe's training prompts are made from: its file, and the published layout.

A cache may be larger than memory: `CacheFile` keeps the place of each problem and reads it when it is asked for.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast, overload

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


def to_json(problem: CachedProblem) -> str:
    """One line of a cache."""
    return json.dumps(asdict(problem), ensure_ascii=False) + "\n"


def from_json(row: Mapping[str, Any]) -> CachedProblem:
    """What `to_json` wrote.

    Raises:
        ValueError, TypeError or KeyError: it is something else.
    """
    messages = tuple(CachedMessage(**message) for message in row["messages"])
    if not messages:
        raise ValueError("a problem has at least one message")
    return CachedProblem(row["prompt_id"], row["content"], row["columns"], messages)


def write_cache(path: Path, problems: Iterable[CachedProblem]) -> None:
    """One JSON object per line, written aside and then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.partial")
    with aside.open("w", encoding="utf-8") as file:
        for problem in problems:
            file.write(to_json(problem))
    aside.replace(path)


class CacheFile(Sequence[CachedProblem]):
    """The problems of a cache on disk."""

    def __init__(self, path: Path) -> None:
        """Reads the file once.

        Raises:
            DatasetError: missing or malformed, with file and line.
        """
        self.path = path
        self._starts = array("Q")  # bytes
        self._index: dict[str, int] | None = None
        try:
            with path.open("rb") as file:
                start = 0
                for number, line in enumerate(file, start=1):
                    _parsed(path, number, line)
                    self._starts.append(start)
                    start += len(line)
        except OSError as error:
            raise DatasetError(f"{path}: the message cache cannot be read: {error}") from None

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> CachedProblem: ...
    @overload
    def __getitem__(self, index: slice) -> list[CachedProblem]: ...
    def __getitem__(self, index: int | slice) -> CachedProblem | list[CachedProblem]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        with self.path.open("rb") as file:
            file.seek(self._starts[place])
            return _parsed(self.path, place + 1, file.readline())

    def by_id(self, prompt_id: str) -> CachedProblem:
        """The problem of that id.

        Raises:
            KeyError: there is none.
        """
        if self._index is None:
            self._index = {problem.prompt_id: index for index, problem in enumerate(self)}
        return self[self._index[prompt_id]]


def _parsed(path: Path, number: int, line: bytes) -> CachedProblem:
    try:
        return from_json(json.loads(line))
    except (ValueError, TypeError, KeyError) as error:
        raise DatasetError(f"{path}:{number}: not a cached problem: {error}") from None


# ---------------------------------------------------------------- the layout of the published training data


def to_published(problem: CachedProblem) -> Row:
    """A row of PaCoRe-Train: `conversation`, `responses`, `ground_truth`.

    `responses` are the conclusions, which are all that a cache keeps; `ground_truth` is the column `solution`.

    Raises:
        DatasetError: the problem has no such column.
    """
    if "solution" not in problem.columns:
        raise DatasetError(f"problem {problem.prompt_id} has no column 'solution', which is what ground_truth holds")
    turns = problem.content if not isinstance(problem.content, str) else [{"role": "user", "content": problem.content}]
    responses = [message.conclusion for message in problem.messages]
    return {"conversation": turns, "responses": responses, "ground_truth": problem.columns["solution"]}


def export_published(problems: Iterable[CachedProblem], path: Path) -> int:
    """Writes a cache as a PaCoRe-Train JSONL file; the number of problems.

    Raises:
        DatasetError: see `to_published`.
    """
    count = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for problem in problems:
            file.write(json.dumps(to_published(problem), ensure_ascii=False) + "\n")
            count += 1
    return count


def ready_answers(row: Row, label: str) -> list[str]:
    """The `responses` of a row in the published layout.

    Raises:
        DatasetError: they are no list of texts.
    """
    responses = row.get("responses")
    if not isinstance(responses, list) or not responses or not all(isinstance(text, str) for text in responses):
        raise DatasetError(f"{label}: `responses` must be a list of texts to grade; it is {str(responses)[:80]!r}")
    return cast(list[str], responses)
