"""Colours and shapes of an interface."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Theme:
    """One look. Text on `page`, `surface` and `bar` is drawn in `text`, on `accent` in `on_accent`."""

    name: str
    page: Colour
    surface: Colour
    bar: Colour
    text: Colour
    muted: Colour
    """secondary text, and what is greyed out"""
    line: Colour
    accent: Colour
    on_accent: Colour
    radius: int
    """of corners, in points"""
    text_points: int = 13
    filled_buttons: bool = True


_LIGHT = Theme(
    "light", (240, 242, 245), (255, 255, 255), (228, 231, 236), (28, 32, 38), (140, 146, 154), (205, 210, 216),
    (30, 100, 220), (255, 255, 255), 4,
)  # fmt: skip
_DARK = Theme(
    "dark", (24, 26, 30), (38, 41, 47), (48, 52, 59), (232, 234, 238), (128, 134, 143), (72, 77, 86),
    (86, 156, 255), (12, 18, 30), 6,
)  # fmt: skip
_CONTRAST = Theme(
    "high contrast", (0, 0, 0), (0, 0, 0), (0, 0, 0), (255, 255, 255), (120, 160, 120), (255, 255, 255),
    (255, 235, 0), (0, 0, 0), 0, 14, False,
)  # fmt: skip
_SEPIA = Theme(
    "sepia", (238, 226, 204), (250, 243, 228), (222, 206, 178), (60, 44, 28), (158, 140, 116), (200, 182, 150),
    (150, 74, 32), (255, 248, 236), 8, 14,
)  # fmt: skip
_CLASSIC = Theme(
    "classic", (170, 190, 190), (198, 198, 198), (198, 198, 198), (0, 0, 0), (128, 128, 128), (110, 110, 110),
    (0, 0, 140), (255, 255, 255), 0, 12, False,
)  # fmt: skip
_PASTEL = Theme(
    "pastel", (246, 240, 250), (255, 255, 255), (232, 222, 248), (40, 30, 54), (150, 140, 162), (214, 202, 228),
    (103, 58, 183), (255, 255, 255), 14, 14,
)  # fmt: skip

THEMES = (_LIGHT, _DARK, _CONTRAST, _SEPIA, _CLASSIC, _PASTEL)

_ACCENTS: tuple[Colour, ...] = ((30, 100, 220), (0, 120, 90), (180, 30, 60), (120, 60, 180), (190, 80, 0), (40, 60, 80))


def pick_theme(rng: random.Random) -> Theme:
    """A theme, with another accent colour and corner where the look is light and modern."""
    theme = rng.choice(THEMES)
    if theme in (_LIGHT, _PASTEL):
        theme = replace(theme, accent=rng.choice(_ACCENTS), radius=rng.choice((2, 4, 8, 14)))
    return replace(theme, text_points=theme.text_points + rng.choice((-1, 0, 0, 1)))
