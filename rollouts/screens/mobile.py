"""Layouts of a phone: first screen, lists, settings, signing in, and a sheet that slides up."""

from __future__ import annotations

from collections.abc import Callable

from rollouts.screens import words
from rollouts.screens.canvas import Canvas
from rollouts.screens.concepts import CONCEPTS
from rollouts.screens.element import Box, Kind
from rollouts.screens.forms import form
from rollouts.screens.widgets import (
    button,
    field,
    icon_button,
    icon_over_text,
    icon_row,
    shrink,
    switch,
    text_element,
)

_APPS = (
    "account",
    "alarm",
    "calendar",
    "camera",
    "cart",
    "chat",
    "favourites",
    "home",
    "mail",
    "maps",
    "music",
    "photos",
    "settings",
    "lock",
    "help",
    "search",
    "share",
    "print",
)
_SECTIONS = ("home", "search", "alerts", "account", "chat", "favourites", "calendar", "cart", "settings")


def status_bar(c: Canvas) -> int:
    """The line with the time; where it ends."""
    height = c.u(24)
    c.fill((0, 0, c.width, height), c.theme.bar)
    time = f"{c.rng.randint(0, 23):02d}:{c.rng.randint(0, 59):02d}"
    c.label(time, (c.u(10), 0, c.width // 2, height), points=11)
    percent = f"{c.rng.randint(3, 100)}%"
    c.label(percent, (c.width // 2, 0, c.width - c.u(10), height), points=11, align="right")
    return height


def top_bar(c: Canvas, title: str, y: int) -> int:
    """A title between icons; where the bar ends."""
    height, side = c.u(46), c.u(34)
    c.fill((0, y, c.width, y + height), c.theme.bar, outline=c.theme.line)
    top, since = y + c.u(6), len(c.elements)
    icon_button(c, (c.u(6), top, c.u(6) + side, top + side), c.rng.choice(("back", "menu")))
    x = c.width - c.u(6)
    rights = words.distinct(c.rng, ("search", "more", "filter", "add", "share"), c.rng.randint(1, 2))
    for place, concept in enumerate(rights):
        left = x - (len(rights) - place) * (side + c.u(4))
        icon_button(c, (left, top, left + side, top + side), concept)
    c.number("top bar", "x", since)
    room = x - len(rights) * (side + c.u(4)) - c.u(8)
    c.label(title, (c.u(50), y, room, y + height), points=c.theme.text_points + 3)
    return y + height


def bottom_bar(c: Canvas) -> int:
    """Sections at the lower edge; where the bar begins."""
    height = c.u(56)
    top = c.height - height
    c.fill((0, top, c.width, c.height), c.theme.bar, outline=c.theme.line)
    concepts = words.distinct(c.rng, _SECTIONS, c.rng.randint(3, 5))
    labelled, wide, since = c.rng.random() < 0.6, c.width // len(concepts), len(c.elements)
    chosen = c.rng.randrange(len(concepts))
    for place, concept in enumerate(concepts):
        box = (place * wide + c.u(2), top + c.u(4), (place + 1) * wide - c.u(2), c.height - c.u(4))
        ink = c.theme.accent if place == chosen else c.theme.text
        if labelled:
            icon_over_text(c, box, concept, Kind.TAB, ink=ink, points=10)
        else:
            icon_button(c, box, concept, ink=ink, kind=Kind.TAB)
    c.number("bottom bar", "x", since)
    return top


def first_screen(c: Canvas) -> None:
    """A grid of apps."""
    y = status_bar(c) + c.u(12)
    t = c.theme
    if c.rng.random() < 0.5:
        field(
            c,
            (c.u(16), y, c.width - c.u(16), y + c.u(36)),
            "",
            value="Search the phone",
            icon="magnifying glass",
            concept="search",
        )
        y += c.u(48)
    columns = c.rng.choice((3, 4))
    cell = (c.width - c.u(16)) // columns
    high = min(cell, c.u(96)) + c.u(10)
    rows = min(c.rng.randint(3, 6), (c.height - y - c.u(8)) // high)
    tinted = c.rng.random() < 0.7
    for place, concept in enumerate(words.distinct(c.rng, _APPS, columns * rows)):
        x, top = c.u(8) + place % columns * cell, y + place // columns * high
        box = shrink((x, top, x + cell, top + high), c.u(6), c.u(5))
        icon_over_text(c, box, concept, Kind.APP, tile=t.accent if tinted else t.bar if t.filled_buttons else None)


def inbox(c: Canvas) -> None:
    """A list of people or files with an icon at the end of each row; perhaps a sheet slides up."""
    t = c.theme
    y = top_bar(c, c.rng.choice(("People", "Team", "Inbox", "Guests")), status_bar(c))
    end = bottom_bar(c)
    row = c.u(c.rng.choice((44, 52, 60)))
    actions = words.distinct(c.rng, ("mail", "camera", "like", "delete", "edit", "chat"), c.rng.randint(1, 2))
    side = c.u(32)
    room = len(actions) * (side + c.u(4)) + c.u(8)
    rows: list[tuple[str, int]] = []
    since = len(c.elements)
    for name in words.people(c.rng, c.rng.randint(4, 10)):
        if y + row > end:
            break
        shown = icon_row(c, (c.u(2), y, c.width - room, y + row - c.u(1)), "person", name)
        rows.append((shown.text, y))
        y += row
    c.number("list", "y", since)
    for name, top in rows:
        c.line(c.u(10), top + row, c.width - c.u(10), top + row, t.line)
        x, upper = c.width - room + c.u(2), top + (row - side) // 2
        for concept in actions:
            icon_button(c, (x, upper, x + side, upper + side), concept, beside=name)
            x += side + c.u(4)
    if c.rng.random() < 0.35:
        sheet(c)


def sheet(c: Canvas) -> None:
    """A sheet of actions over the lower part of the screen."""
    t = c.theme
    keys = words.distinct(
        c.rng, ("share", "copy", "delete", "edit", "print", "download", "favourites"), c.rng.randint(3, 5)
    )
    row = c.u(46)
    box = (c.u(6), c.height - row * len(keys) - c.u(24), c.width - c.u(6), c.height - c.u(8))
    c.open_over(box)
    c.shade()
    c.fill(box, t.surface, radius=c.u(12), outline=t.line)
    y, since = box[1] + c.u(8), len(c.elements)
    for key in keys:
        icon = CONCEPTS[key].icon
        icon_row(
            c, (box[0] + c.u(4), y, box[2] - c.u(4), y + row), icon, CONCEPTS[key].label, Kind.MENU_ITEM, concept=key
        )
        y += row
    c.number("sheet", "y", since)


def options(c: Canvas) -> None:
    """Settings with a switch at the end of each row."""
    y = top_bar(c, c.rng.choice(("Device", "Sound and sight", "Connections")), status_bar(c))
    end = bottom_bar(c) if c.rng.random() < 0.5 else c.height
    row, t = c.u(c.rng.choice((44, 52))), c.theme
    since = len(c.elements)
    for name in words.distinct(c.rng, words.OPTIONS, c.rng.randint(6, 16)):
        if y + row > end:
            break
        c.line(c.u(10), y + row, c.width - c.u(10), y + row, t.line)
        enabled = c.rng.random() > 0.15
        label = c.label(name, (c.u(14), y, c.width - c.u(76), y + row), colour=t.text if enabled else t.muted).text
        middle = y + row // 2
        box = (c.width - c.u(58), middle - c.u(12), c.width - c.u(14), middle + c.u(12))
        switch(c, box, label, on=c.rng.random() < 0.5, enabled=enabled)
        y += row
    c.number("list", "y", since)


def sign_in(c: Canvas) -> None:
    """Name and password, or a longer form, with buttons and a link."""
    y = top_bar(c, c.rng.choice(("Welcome", "Your data", "Join us")), status_bar(c)) + c.u(14)
    t = c.theme
    rows = c.rng.randint(2, 6)
    form(c, (c.u(18), y, c.width - c.u(18), y + rows * c.u(44)), fields=True)
    y += rows * c.u(44) + c.u(12)
    since = len(c.elements)
    for place, concept in enumerate(words.distinct(c.rng, ("sign_in", "sign_up", "cancel"), c.rng.randint(1, 3))):
        box = (c.u(18), y, c.width - c.u(18), y + c.u(38))
        button(c, box, CONCEPTS[concept].label, primary=place == 0, enabled=c.rng.random() > 0.15, concept=concept)
        y += c.u(48)
    c.number("lower part", "y", since)
    width = c.measure(CONCEPTS["forgot"].label) + c.u(18)
    left = (c.width - width) // 2
    text_element(
        c,
        (left, y, left + width, y + c.u(28)),
        CONCEPTS["forgot"].label,
        Kind.LINK,
        ink=t.accent,
        concept="forgot",
        align="middle",
    )


def player(c: Canvas) -> None:
    """A picture with buttons below it."""
    t = c.theme
    y = top_bar(c, c.rng.choice(words.NOUNS).capitalize() + f" {c.rng.randint(1, 99)}", status_bar(c)) + c.u(12)
    picture: Box = (c.u(24), y, c.width - c.u(24), min(y + c.width - c.u(48), c.height - c.u(150)))
    c.fill(picture, t.bar, radius=c.u(t.radius), outline=t.line)
    c.label(
        words.sentence(c.rng), (c.u(24), picture[3] + c.u(8), c.width - c.u(24), picture[3] + c.u(34)), align="middle"
    )
    keys = ["play", "pause", *words.distinct(c.rng, ("like", "share", "download", "favourites"), c.rng.randint(1, 3))]
    c.rng.shuffle(keys)
    side = c.u(44)
    gap = (c.width - len(keys) * side) // (len(keys) + 1)
    x, top, since = gap, picture[3] + c.u(48), len(c.elements)
    for key in keys:
        icon_button(c, (x, top, x + side, top + side), key, framed=True, enabled=c.rng.random() > 0.15)
        x += side + gap
    c.number("row of buttons", "x", since)


MOBILE: dict[str, Callable[[Canvas], None]] = {
    "first screen": first_screen,
    "inbox": inbox,
    "options": options,
    "sign in": sign_in,
    "player": player,
}
