"""Screens for tiny models: 48 x 48 pixels, a few large buttons that differ in colour, on a grid of 6 x 6 cells."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass

from PIL import Image, ImageDraw

from rollouts.screens.element import Box, Element, Kind, overlap

CELL = 8
"""pixels; boxes begin and end at multiples of it"""
CELLS = 6
"""cells of a side"""
SIZE = CELL * CELLS

COLOURS = {"red": "#d82020", "green": "#209040", "blue": "#2050d0", "yellow": "#e0b010"}
_BACKGROUNDS = ("#ffffff", "#f0f0f0", "#202428", "#d8e0e8")


@dataclass(frozen=True)
class TinyScreen:
    """One screen: the truth about it, and how to draw it."""

    elements: tuple[Element, ...]
    """buttons; `text` is the colour of each, and no two are equal"""
    background: str

    def render(self) -> Image.Image:
        """The picture, RGB."""
        image = Image.new("RGB", (SIZE, SIZE), self.background)
        draw = ImageDraw.Draw(image)
        for element in self.elements:
            x1, y1, x2, y2 = element.box
            draw.rounded_rectangle((x1, y1, x2 - 1, y2 - 1), radius=2, fill=COLOURS[element.text], outline="#808080")
        return image

    def png(self) -> bytes:
        """The picture as the bytes of a PNG file."""
        buffer = io.BytesIO()
        self.render().save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()


def make_tiny_screen(rng: random.Random, *, buttons: int) -> TinyScreen:
    """A screen with `buttons` buttons of different colours, two or three cells wide and high.

    The last column and row of cells stay free, so that a click beyond the edge of a button is on the screen.
    """
    colours = rng.sample(sorted(COLOURS), buttons)
    while True:  # three large boxes of four tries do not overlap
        boxes = [_box(rng) for _ in colours]
        if not any(overlap(a, b) for place, a in enumerate(boxes) for b in boxes[:place]):
            elements = tuple(Element(Kind.BUTTON, box, text=colour) for box, colour in zip(boxes, colours))
            return TinyScreen(elements, rng.choice(_BACKGROUNDS))


def _box(rng: random.Random) -> Box:
    width, height = rng.randint(2, 3), rng.randint(2, 3)
    x, y = rng.randint(0, CELLS - 1 - width), rng.randint(0, CELLS - 1 - height)
    return x * CELL, y * CELL, (x + width) * CELL, (y + height) * CELL
