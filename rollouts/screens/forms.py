"""Forms: labels with fields, lists to choose from, switches and ticks, as many as there is room for."""

from __future__ import annotations

from rollouts.screens import words
from rollouts.screens.canvas import Canvas
from rollouts.screens.element import Box, Kind
from rollouts.screens.widgets import field, switch, tick


def form(c: Canvas, box: Box, *, fields: bool = False) -> None:
    """Rows of a form from the top of the box down; with `fields`, only boxes to type into and one tick."""
    row = c.u(c.rng.choice((34, 38, 44)))
    count = (box[3] - box[1]) // row
    texts = iter(words.distinct(c.rng, words.FIELDS, count))
    options = iter(words.distinct(c.rng, words.OPTIONS, count))
    values = iter(words.distinct(c.rng, words.CHOICES, count))
    labels_left = box[2] - box[0] > c.u(300)
    since = len(c.elements)
    for place in range(count):
        area = (box[0], box[1] + place * row, box[2], box[1] + (place + 1) * row)
        kind = "field" if fields and place < count - 1 else c.rng.choice(("field", "field", "tick", "switch", "list"))
        if fields and place == count - 1:
            kind = "tick"
        text = next(texts if kind == "field" else options, "")
        value = next(values, "") if kind == "list" else ""
        if text and not (kind == "list" and not value):
            _row(c, area, kind, text, value, labels_left)
    c.number("form", "y", since)


def _row(c: Canvas, box: Box, kind: str, text: str, value: str, labels_left: bool) -> None:
    enabled = c.rng.random() > 0.12
    ink = c.theme.text if enabled else c.theme.muted
    middle, height = (box[1] + box[3]) // 2, c.u(26)
    top = middle - height // 2
    if kind == "tick":
        tick(c, (box[0], top, box[2], top + height), text, on=c.rng.random() < 0.5, enabled=enabled)
        return
    split = box[0] + (box[2] - box[0]) * (38 if labels_left else 46) // 100
    label = c.label(text, (box[0], top, split - c.u(8), top + height), colour=ink).text
    if kind == "switch":
        switch(
            c, (split, top + c.u(3), split + c.u(38), top + c.u(23)), label, on=c.rng.random() < 0.5, enabled=enabled
        )
    elif kind == "list":
        field(c, (split, top, box[2], top + height), label, value=value, enabled=enabled, kind=Kind.DROPDOWN)
    else:
        field(c, (split, top, box[2], top + height), label, enabled=enabled)
