"""The elements of an interface: each function draws one, registers it and gives it back."""

from __future__ import annotations

from rollouts.screens.canvas import Canvas
from rollouts.screens.concepts import CONCEPTS
from rollouts.screens.element import Box, Element, Kind
from rollouts.screens.theme import Colour


def shrink(box: Box, dx: int, dy: int | None = None) -> Box:
    """The box without a margin of dx pixels left and right, dy above and below."""
    dy = dx if dy is None else dy
    return box[0] + dx, box[1] + dy, box[2] - dx, box[3] - dy


def button(
    c: Canvas,
    box: Box,
    text: str,
    *,
    primary: bool = False,
    enabled: bool = True,
    concept: str = "",
    icon: str = "",
    beside: str = "",
) -> Element:
    """A push button with text, perhaps with an icon before it."""
    t = c.theme
    face, ink = t.surface, t.text
    if primary and enabled:
        face, ink = (t.accent, t.on_accent) if t.filled_buttons else (t.surface, t.accent)
    if not enabled:
        face, ink = t.bar, t.muted
    c.fill(box, face, radius=c.u(t.radius), outline=t.line)
    inner, icon_box = shrink(box, c.u(8), c.u(2)), None
    if icon:
        side = min(c.line_height(), box[3] - box[1] - c.u(6))
        top = (box[1] + box[3] - side) // 2
        icon_box = c.draw_icon(icon, (inner[0], top, inner[0] + side, top + side), ink)
        inner = (icon_box[2] + c.u(6), inner[1], inner[2], inner[3])
    shown, where = c.draw_text(text, inner, ink, align="left" if icon else "middle")
    return c.add(
        Element(
            Kind.BUTTON, box, shown, icon, concept, beside=beside, enabled=enabled, text_box=where, icon_box=icon_box
        )
    )


def button_width(c: Canvas, text: str, *, icon: bool = False) -> int:
    """Width that a button needs in pixels."""
    return c.measure(text) + 2 * c.u(12) + (c.line_height() + c.u(6) if icon else 0)


def icon_button(
    c: Canvas,
    box: Box,
    concept: str,
    *,
    ink: Colour | None = None,
    framed: bool = False,
    enabled: bool = True,
    beside: str = "",
    kind: Kind = Kind.BUTTON,
) -> Element:
    """A button that shows only the icon of its concept."""
    t = c.theme
    if framed:
        c.fill(box, t.surface, radius=c.u(t.radius), outline=t.line)
    colour = t.muted if not enabled else ink or t.text
    margin = max(c.u(3), (min(box[2] - box[0], box[3] - box[1])) // 5)
    icon = CONCEPTS[concept].icon
    where = c.draw_icon(icon, shrink(box, margin), colour)
    return c.add(Element(kind, box, "", icon, concept, beside=beside, enabled=enabled, icon_box=where))


def field(
    c: Canvas,
    box: Box,
    label: str,
    *,
    value: str = "",
    enabled: bool = True,
    icon: str = "",
    concept: str = "",
    kind: Kind = Kind.FIELD,
    typed: bool = False,
) -> Element:
    """A box to type into, or a drop-down list; `label` is the text that stands beside it; what was typed is darker."""
    t = c.theme
    c.fill(box, t.surface if enabled else t.bar, radius=c.u(min(t.radius, 8)), outline=t.line)
    inner, icon_box = shrink(box, c.u(8), c.u(1)), None
    side = min(c.line_height(), inner[3] - inner[1])
    top = (box[1] + box[3] - side) // 2
    if icon:
        icon_box = c.draw_icon(icon, (inner[0], top, inner[0] + side, top + side), t.muted)
        inner = (icon_box[2] + c.u(6), inner[1], inner[2], inner[3])
    if kind is Kind.DROPDOWN:
        x, y, r = box[2] - c.u(14), (box[1] + box[3]) // 2, c.u(4)
        c.line(x - r, y - r // 2, x, y + r // 2, t.text, 1.5)
        c.line(x, y + r // 2, x + r, y - r // 2, t.text, 1.5)
        inner = (inner[0], inner[1], inner[2] - c.u(16), inner[3])
    shown, where = "", None
    if value:
        shown, where = c.draw_text(value, inner, t.text if enabled and (typed or kind is Kind.DROPDOWN) else t.muted)
    return c.add(
        Element(kind, box, shown, icon, concept, beside=label, enabled=enabled, text_box=where, icon_box=icon_box)
    )


def tick(c: Canvas, box: Box, text: str, *, on: bool, enabled: bool = True, round_mark: bool = False) -> Element:
    """A check box, or a round one of several options; the text belongs to it."""
    t = c.theme
    side = min(c.u(14), box[3] - box[1])
    top = (box[1] + box[3] - side) // 2
    mark = (box[0], top, box[0] + side, top + side)
    ink = t.accent if enabled else t.muted
    if round_mark:
        c.disc(mark, t.surface, outline=ink)
        if on:
            c.disc(shrink(mark, side // 4), ink)
    else:
        c.fill(mark, ink if on else t.surface, radius=c.u(min(t.radius, 3)), outline=ink if enabled else t.line)
        if on:
            x, y = mark[0], mark[1]
            c.line(x + side // 5, y + side // 2, x + side * 2 // 5, y + side * 3 // 4, t.on_accent, 1.5)
            c.line(x + side * 2 // 5, y + side * 3 // 4, x + side * 4 // 5, y + side // 4, t.on_accent, 1.5)
    shown, where = c.draw_text(text, (mark[2] + c.u(7), box[1], box[2], box[3]), t.text if enabled else t.muted)
    area = (box[0], box[1], where[2], box[3])
    kind = Kind.RADIO if round_mark else Kind.CHECKBOX
    return c.add(Element(kind, area, shown, enabled=enabled, text_box=where))


def switch(c: Canvas, box: Box, label: str, *, on: bool, enabled: bool = True) -> Element:
    """A sliding switch that fills the box; `label` is the text that stands beside it."""
    t = c.theme
    height = box[3] - box[1]
    c.fill(box, (t.accent if enabled else t.muted) if on else t.line, radius=height // 2)
    left = box[2] - height if on else box[0]
    knob = t.bar if not enabled else t.on_accent if on else t.surface
    c.disc(shrink((left, box[1], left + height, box[3]), c.u(2)), knob, outline=None if enabled else t.muted)
    return c.add(Element(Kind.SWITCH, box, beside=label, enabled=enabled))


def text_element(
    c: Canvas,
    box: Box,
    text: str,
    kind: Kind,
    *,
    ink: Colour | None = None,
    concept: str = "",
    align: str = "left",
    enabled: bool = True,
    points: float | None = None,
    margin: float = 8,
) -> Element:
    """Clickable text without a frame: a menu, a menu item, a tab, a link, a row."""
    colour = c.theme.muted if not enabled else ink or c.theme.text
    shown, where = c.draw_text(text, shrink(box, c.u(margin), 0), colour, align=align, points=points)
    return c.add(Element(kind, box, shown, concept=concept, enabled=enabled, text_box=where))


def icon_row(
    c: Canvas, box: Box, icon: str, text: str, kind: Kind = Kind.ROW, *, concept: str = "", ink: Colour | None = None
) -> Element:
    """An icon with text to the right of it."""
    t = c.theme
    side = min(c.u(18), box[3] - box[1] - c.u(4))
    x, y = box[0] + c.u(8), (box[1] + box[3] - side) // 2
    icon_box = c.draw_icon(icon, (x, y, x + side, y + side), ink or t.text)
    shown, where = c.draw_text(text, (icon_box[2] + c.u(8), box[1], box[2] - c.u(4), box[3]), ink or t.text)
    return c.add(Element(kind, box, shown, icon, concept, text_box=where, icon_box=icon_box))


def icon_over_text(
    c: Canvas,
    box: Box,
    concept: str,
    kind: Kind,
    *,
    ink: Colour | None = None,
    tile: Colour | None = None,
    points: float = 11,
) -> Element:
    """An icon with its label below, as on a phone's first screen or bottom bar."""
    t = c.theme
    height = c.line_height(points)
    upper = (box[0], box[1], box[2], box[3] - height)
    side = min(upper[2] - upper[0], upper[3] - upper[1]) - c.u(4)
    x, y = (upper[0] + upper[2] - side) // 2, upper[1] + c.u(2)
    square = (x, y, x + side, y + side)
    if tile is not None:
        c.fill(square, tile, radius=c.u(t.radius + 4))
    colour = t.on_accent if tile == t.accent else ink or t.text
    where = c.draw_icon(CONCEPTS[concept].icon, shrink(square, side // 5 if tile else c.u(1)), colour)
    shown, text_box = c.draw_text(
        CONCEPTS[concept].label, (box[0], box[3] - height, box[2], box[3]), ink or t.text, points=points, align="middle"
    )
    return c.add(Element(kind, box, shown, CONCEPTS[concept].icon, concept, text_box=text_box, icon_box=where))
