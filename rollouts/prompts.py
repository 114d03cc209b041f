"""Endless, seeded, resumable streams of rows and prompts from tasks, datasets and message caches.

A source gives its i-th row for any i, from the seed alone. So the state of a stream is a few counters.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from rollouts.epoch_order import EpochOrder
from rollouts.rows import DatasetError, Row
from rollouts.tasks import Task
from rollouts.trajectory import ContentPart, ImagePart, Message, Prompt, PromptContent, TextPart, prompt_id_of

# Rows looked at for one that is not held out, before the source is taken to hold nothing else.
_MAX_SKIPS = 10_000


class RowSource(Protocol):
    """Random access to an endless sequence of rows."""

    def row(self, index: int) -> Row:
        """The index-th row, index >= 0. Holds `prompt`; what else depends on the use."""
        ...


@dataclass(frozen=True)
class TaskRows:
    """Rows that a procedural task draws: `draw` is one of the task's methods."""

    draw: Callable[[random.Random], Row]
    seed: int

    def row(self, index: int) -> Row:
        """See `RowSource`."""
        return self.draw(random.Random(f"{self.seed}:{index}"))


@dataclass(frozen=True)
class ShuffledRows:
    """Rows of a dataset, in a new order in every epoch."""

    rows: Sequence[Row]
    seed: int

    @cached_property
    def _order(self) -> EpochOrder:
        return EpochOrder(len(self.rows), self.seed)

    def row(self, index: int) -> Row:
        """See `RowSource`."""
        return self.rows[self._order.position(index)]


@dataclass(frozen=True)
class MixedSource:
    """One source of a mixture."""

    rows: RowSource
    weight: float
    label: str
    reward_names: tuple[str, ...] = ()


class RowStream:
    """Rows of several sources in exact proportion to their weights, without those that are held out."""

    def __init__(self, sources: Sequence[MixedSource], *, held_out: frozenset[str]) -> None:
        self.sources = tuple(sources)
        self.held_out = held_out
        self._positions = [0] * len(self.sources)
        self._drawn = [0] * len(self.sources)

    def take(self, count: int) -> list[tuple[MixedSource, Row]]:
        """The next `count` rows, each with the source that it comes from.

        Raises:
            DatasetError: a source holds nothing but held-out rows, or a row without a prompt.
        """
        return [self._next() for _ in range(count)]

    def _next(self) -> tuple[MixedSource, Row]:
        # The source that lags most behind its share: proportions are exact, and no generator has a state to save.
        behind = min(range(len(self.sources)), key=lambda i: ((self._drawn[i] + 1) / self.sources[i].weight, i))
        self._drawn[behind] += 1
        source = self.sources[behind]
        for _ in range(_MAX_SKIPS):
            row = source.rows.row(self._positions[behind])
            self._positions[behind] += 1
            if row_id(row, source.label) not in self.held_out:
                return source, row
        raise DatasetError(f"{source.label}: {_MAX_SKIPS} rows in a row are held out for evaluation; none is left")

    def state(self) -> dict[str, list[int]]:
        """JSON-able; see `load_state`."""
        return {"positions": list(self._positions), "drawn": list(self._drawn)}

    def load_state(self, state: Mapping[str, Sequence[int]]) -> None:
        """Continues where `state` was taken."""
        self._positions, self._drawn = list(state["positions"]), list(state["drawn"])


def row_id(row: Row, label: str) -> str:
    """Identity of the problem behind a row: of its `problem` where the prompt is made from one, else of its prompt."""
    return prompt_id_of(row_content(row, "problem" if "problem" in row else "prompt", label))


def row_content(row: Row, column: str, label: str) -> PromptContent:
    """The prompt of a row: text, or messages with a role and text, or a list of parts {type: text | image}.

    Raises:
        DatasetError: the column is missing or holds something else.
    """
    value = row.get(column)
    if isinstance(value, str) and value:
        return value
    if isinstance(value, list) and value and all(_is_message(turn) for turn in value):
        return [Message(role=turn["role"], content=_turn_content(turn["content"])) for turn in value]
    shown = "is missing" if column not in row else f"is {str(value)[:80]!r}"
    raise DatasetError(
        f"{label}: column {column!r} {shown}; text or a list of {{role, content}} with text is expected, or with parts "
        "that are text or images"
    )


def _is_message(turn: object) -> bool:
    if not isinstance(turn, dict) or not isinstance(turn.get("role"), str):
        return False
    content = turn.get("content")
    return isinstance(content, str) or (isinstance(content, list) and bool(content) and all(map(_is_part, content)))


def _is_part(part: object) -> bool:
    if not isinstance(part, dict) or part.get("type") not in ("text", "image"):
        return False
    return isinstance(part.get(part["type"]), str)


def _turn_content(content: str | list[dict[str, str]]) -> str | list[ContentPart]:
    if isinstance(content, str):
        return content
    return [
        TextPart(type="text", text=part["text"])
        if part["type"] == "text"
        else ImagePart(type="image", image=part["image"])
        for part in content
    ]


def to_prompt(source: MixedSource, row: Row) -> Prompt:
    """The row as a prompt: its other columns are for rewards."""
    content = row_content(row, "prompt", source.label)
    columns = {key: value for key, value in row.items() if key not in ("prompt", "completion")}
    return Prompt(prompt_id_of(content), content, columns, source.label, source.reward_names)


def as_chat(row: Row, system: str | None) -> Row:
    """The row with its text prompt as the user turn of a conversation."""
    prompt = row.get("prompt")
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if system is not None and isinstance(turns, list):
        turns = [{"role": "system", "content": system}, *turns]
    return {**row, "prompt": turns}


def task_rows(task: Task, view: str, seed: int) -> TaskRows:
    """Rows that a method of the task draws.

    Raises:
        DatasetError: the task has no such method.
    """
    draw = getattr(task, view, None)
    if draw is None:
        raise DatasetError(f"task {type(task).__name__} has no {view} rows")
    return TaskRows(draw, seed)
