"""Predicted clicks against the annotations of ScreenSpot and its kin: hit or not, by section and element type."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from rewards.gui_click import Click, ClickOutcome, Space, as_numbers, judge_click, parse_click
from rl.errors import UserError
from rl.intervals import wilson
from rollouts.rows import DatasetError, Row, read_rows
from rollouts.screenspot import Annotations, ScreenTarget

_ANSWERS = ("completion", "point", "box")


@dataclass(frozen=True)
class Judged:
    """One prediction and how it ended."""

    target: ScreenTarget
    answer: str
    click: Click | None
    """in pixels of the screenshot; None where no single click can be read"""
    outcome: ClickOutcome

    @property
    def is_hit(self) -> bool:
        """Whether the click lies in the box, edges included."""
        return self.outcome is ClickOutcome.HIT


@dataclass(frozen=True)
class Cell:
    """Hits among the rows of one section and one element type."""

    hits: int
    total: int

    @property
    def share(self) -> float:
        """Hits per row, in [0, 1]."""
        return self.hits / self.total


@dataclass(frozen=True)
class GroundingScores:
    """What the papers report. `cells` is keyed by (section, text | icon); a missing key has no rows."""

    cells: Mapping[tuple[str, str], Cell]
    overall: Cell
    num_unreadable: int
    num_refused: int
    is_pro: bool

    @property
    def sections(self) -> list[str]:
        """In the order of their first rows."""
        return list(dict.fromkeys(section for section, _ in self.cells))

    def together(self, section: str) -> Cell:
        """Both element types of a section."""
        cells = [cell for (name, _), cell in self.cells.items() if name == section]
        return Cell(sum(cell.hits for cell in cells), sum(cell.total for cell in cells))

    @property
    def mean_of_cells(self) -> float:
        """Mean of the shares of all cells: the average of ScreenSpot's first paper; ScreenSpot-Pro's is `overall`."""
        return sum(cell.share for cell in self.cells.values()) / len(self.cells)

    def as_json(self) -> dict[str, object]:
        """Everything, for a file."""
        low, high = wilson(self.overall.share, self.overall.total)
        return {
            "layout": "screenspot-pro" if self.is_pro else "screenspot",
            "cells": {
                f"{s}/{t}": {"hits": c.hits, "total": c.total, "share": c.share} for (s, t), c in self.cells.items()
            },
            "overall": {"hits": self.overall.hits, "total": self.overall.total, "share": self.overall.share},
            "overall_interval_95": [low, high],
            "mean_of_cells": self.mean_of_cells,
            "unreadable": self.num_unreadable,
            "refused_rows": self.num_refused,
        }


def judge_predictions(
    annotations: Annotations,
    predictions: str,
    *,
    coordinate_space: str | None = None,
    input_size: Sequence[float] | None = None,
) -> list[Judged]:
    """Each prediction of a JSONL file against its target.

    A line has `completion` (the model's text), `point` [x, y] or `box` [x1, y1, x2, y2]; null is an answer that could
    not be read. It may have `coordinate_space` and `input_size` of its own. Lines with `id`, or with `img_filename` and
    `instruction`, find their target by these; otherwise line n belongs to row n.

    Raises:
        UserError: a line without an answer, without a coordinate space, or without a target; a target without a line.
    """
    try:
        rows = read_rows(predictions)
    except DatasetError as error:
        raise UserError(str(error)) from None
    paired = _paired(annotations, rows, predictions)
    return [
        _judged(target, rows[place], f"{predictions}: row {place + 1}", coordinate_space, input_size)
        for target, place in zip(annotations.targets, paired)
    ]


def scores(judged: Sequence[Judged], annotations: Annotations) -> GroundingScores:
    """Counts by section and element type."""
    keys = dict.fromkeys((j.target.section, j.target.element_type) for j in judged)
    cells = {}
    for key in keys:
        members = [j for j in judged if (j.target.section, j.target.element_type) == key]
        cells[key] = Cell(sum(j.is_hit for j in members), len(members))
    return GroundingScores(
        cells=cells,
        overall=Cell(sum(j.is_hit for j in judged), len(judged)),
        num_unreadable=sum(j.outcome in (ClickOutcome.UNREADABLE, ClickOutcome.AMBIGUOUS) for j in judged),
        num_refused=len(annotations.refused),
        is_pro=annotations.is_pro,
    )


def write_scores(path: Path, result: GroundingScores) -> None:
    """As JSON."""
    try:
        path.write_text(json.dumps(result.as_json(), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None


def _paired(annotations: Annotations, rows: Sequence[Row], name: str) -> list[int]:
    """For each target the place of its prediction."""
    in_order = all(_key(row) in (None, *_keys(target)) for row, target in zip(rows, annotations.targets))
    if in_order and len(rows) == len(annotations.targets) and not annotations.refused:
        return list(range(len(rows)))
    by_key: dict[tuple[str, ...], int] = {}
    for place, row in enumerate(rows):
        key = _key(row)
        if key is None:
            break
        if key in by_key:
            raise UserError(f"{name}: rows {by_key[key] + 1} and {place + 1} are both for {' / '.join(key)}")
        by_key[key] = place
    else:
        return [_place(by_key, target, len(key or ()), name) for target in annotations.targets]
    if annotations.refused:
        raise UserError(
            f"{name}: with bad annotation rows left out, predictions must name theirs by id or img_filename"
        )
    if len(rows) != len(annotations.targets):
        raise UserError(
            f"{name}: {len(rows)} predictions for {len(annotations.targets)} annotations; give one a row in the same "
            "order, or let every prediction have `id`, or `img_filename` and `instruction`"
        )
    return list(range(len(rows)))


def _key(row: Row) -> tuple[str, ...] | None:
    if row.get("id") is not None:
        return (str(row["id"]),)
    if row.get("img_filename") and row.get("instruction"):
        return str(row["img_filename"]), str(row["instruction"])
    return None


def _keys(target: ScreenTarget) -> tuple[tuple[str, ...], ...]:
    return (target.row_id,), (target.img_filename, target.instruction)


def _place(by_key: Mapping[tuple[str, ...], int], target: ScreenTarget, width: int, name: str) -> int:
    key = _keys(target)[0 if width == 1 else 1]
    if key not in by_key:
        raise UserError(f"{name}: no prediction for {target.file} row {target.row} ({' / '.join(key)})")
    return by_key[key]


def _judged(
    target: ScreenTarget, row: Row, where: str, coordinate_space: str | None, input_size: Sequence[float] | None
) -> Judged:
    text = _answer(row, where)
    space = _space(row.get("coordinate_space") or coordinate_space, where)
    resized = row.get("input_size") or input_size
    if resized is not None and not isinstance(resized, Sequence):
        raise UserError(f"{where}: input_size {resized!r} is not [width, height]")
    try:
        outcome = judge_click(text, target.box, target.image_size, space, resized)
        click = parse_click(text, image_size=target.image_size, coordinate_space=space, input_size=resized)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None
    return Judged(target, text, click, outcome)


def _answer(row: Row, where: str) -> str:
    """The answer as text that the click parser reads; nothing where the answer is null, which is then unreadable."""
    present = [key for key in _ANSWERS if key in row]
    given = [key for key in present if row[key] is not None]
    if not present or len(given) > 1:
        raise UserError(f"{where}: needs one of {', '.join(_ANSWERS)}, has {', '.join(given) or 'none of them'}")
    if not given:
        return ""
    key, value = given[0], row[given[0]]
    if key == "completion":
        if not isinstance(value, str):
            raise UserError(f"{where}: completion is the model's text, not {type(value).__name__}")
        return value
    if as_numbers(value, 2 if key == "point" else 4) is None:
        form = "[x, y]" if key == "point" else "[x1, y1, x2, y2]"
        raise UserError(f"{where}: {key} {value!r} is not {form}; null stands for an answer that could not be read")
    return json.dumps({key: value})


def _space(name: object, where: str) -> Space:
    for known in get_args(Space):
        if name == known:
            return known
    allowed = ", ".join(get_args(Space))
    if name is None:
        raise UserError(f"{where}: what do the numbers mean? Name it with --coordinate-space or a column: {allowed}")
    raise UserError(f"{where}: coordinate_space {name!r} is unknown; allowed are {allowed}")
