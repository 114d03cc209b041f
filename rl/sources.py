"""From a source in the recipe to rows: which view of a task, which file, which message cache."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rl.inference.voting import elected_message
from rl.recipe import Source, WeightedSource
from rl.recipe.sources import DatasetSource, MessageCacheSource, TaskSource
from rollouts.layouts import converted
from rollouts.message_cache import CacheFile
from rollouts.pacore import PacorePrompts
from rollouts.prompts import MixedSource, RowSource, RowStream, ShuffledRows, as_chat, row_id, task_rows
from rollouts.row_images import with_images
from rollouts.rows import DatasetError, Row, read_rows
from rollouts.tasks import load_task
from rollouts.trajectory import PromptContent

View = Literal["problem", "demonstration", "preference"]

NEEDED_COLUMNS: dict[View, tuple[str, ...]] = {
    "problem": ("prompt",),
    "demonstration": ("prompt", "completion"),
    "preference": ("chosen", "rejected"),
}


@dataclass(frozen=True)
class SourceOpener:
    """Opens sources for one run."""

    cache_path: Callable[[str], Path]
    """path of a message_cache stage's kept problems"""
    num_tokens: Callable[[PromptContent], int] | None = None
    """tokens of a prompt, for sources with a budget"""

    def rows(self, source: Source, view: View, *, seed: int) -> RowSource:
        """The source's endless rows.

        Raises:
            ValueError: an unknown task or argument (from rollouts.tasks).
            DatasetError: a file that is missing, malformed or lacks a column.
        """
        if isinstance(source, TaskSource):
            return task_rows(load_task(source.task, **source.args), view, seed)
        if isinstance(source, DatasetSource):
            return ShuffledRows(dataset_rows(source, view), seed)
        problems = CacheFile(self.cache_path(source.message_cache))
        low, high = source.messages
        fits = self._fits(source)
        return PacorePrompts(problems, low, high, source.template, seed, fits, source.overflow, elected_message)

    def _fits(self, source: MessageCacheSource) -> Callable[[PromptContent], bool]:
        """Whether a synthesis prompt is within the source's budget."""
        num_tokens, limit = self.num_tokens, source.max_prompt_tokens
        if num_tokens is None or limit is None:
            return lambda content: True
        return lambda content: num_tokens(content) <= limit

    def stream(
        self, mixture: Sequence[WeightedSource], view: View, *, seed: int, held_out: frozenset[str]
    ) -> RowStream:
        """The sources mixed by weight, without held-out rows."""
        opened = [
            MixedSource(
                self.rows(mixed.source, view, seed=stream_seed(seed, index)),
                mixed.weight,
                mixed.label,
                tuple(mixed.rewards),
            )
            for index, mixed in enumerate(mixture)
        ]
        return RowStream(opened, held_out=held_out)


def dataset_rows(source: DatasetSource, view: View) -> Sequence[Row]:
    """The rows of a dataset, checked for the columns that the view needs.

    Raises:
        DatasetError: names the dataset and the missing column.
    """
    rows = read_rows(source.dataset, split=source.split, config=source.config, columns=source.columns)
    if source.layout != "none" and view == "problem":
        rows = converted(rows, source.dataset, source.layout)
    for number, row in enumerate(rows, start=1):
        for column in NEEDED_COLUMNS[view]:
            if column not in row:
                raise DatasetError(
                    f"{source.dataset}: row {number} has no column {column!r}; it has: {', '.join(row)}. "
                    f"Name it under `columns`"
                )
    rows = with_images(rows, source.dataset)
    return [as_chat(row, source.system) for row in rows] if source.chat else rows


def held_out_rows(rows: RowSource, count: int, label: str) -> list[Row]:
    """The first `count` rows with different problems: a held-out set.

    Raises:
        DatasetError: there are not that many different problems.
    """
    found: dict[str, Row] = {}
    for index in range(20 * count + 100):
        row = rows.row(index)
        found.setdefault(row_id(row, label), row)
        if len(found) == count:
            return list(found.values())
    raise DatasetError(f"{label}: has only {len(found)} different problems, num_prompts is {count}")


def stream_seed(seed: int, index: int) -> int:
    """Seed of the index-th source of a mixture."""
    return random.Random(f"{seed}:{index}").getrandbits(31)

