"""Where a screen is laid out: measures text, registers elements, and keeps what is to be drawn for later."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

from rollouts.screens.concepts import CONCEPTS
from rollouts.screens.element import Box, Element, Kind, Series, overlap
from rollouts.screens.icons import icon_mask
from rollouts.screens.theme import Colour, Theme

Painter = Callable[[Image.Image, ImageDraw.ImageDraw], None]


@lru_cache(maxsize=64)
def font(pixels: int) -> ImageFont.FreeTypeFont:
    """Pillow's own typeface, so that a screen does not depend on the fonts of the machine."""
    loaded = ImageFont.load_default(pixels)
    if not isinstance(loaded, ImageFont.FreeTypeFont):
        raise RuntimeError("this Pillow was built without FreeType, which the text of screens needs")
    return loaded


@lru_cache(maxsize=100_000)
def text_width(text: str, pixels: int) -> int:
    """Pixels from the first column to the last one, advance and overhang included."""
    face = font(pixels)
    return math.ceil(max(face.getlength(text), face.getbbox(text)[2]))


@lru_cache(maxsize=64)
def line_height(pixels: int) -> int:
    """Pixels from the highest ascender to the lowest descender."""
    return sum(font(pixels).getmetrics())


class Canvas:
    """A screen under construction. Positions are pixels; `u` turns points into pixels."""

    def __init__(self, width: int, height: int, scale: float, theme: Theme, rng: random.Random) -> None:
        self.width = width
        self.height = height
        self.scale = scale
        self.theme = theme
        self.rng = rng
        self.elements: list[Element] = []
        self.covered: list[Element] = []
        """partly hidden by a dialog or menu: no ground truth, but seen by whoever looks for a label"""
        self.painters: list[Painter] = []

    def u(self, points: float) -> int:
        """Points in pixels, at least 1."""
        return max(1, round(points * self.scale))

    # -- drawing ------------------------------------------------------------------------------------------------------

    def fill(self, box: Box, colour: Colour, *, radius: int = 0, outline: Colour | None = None) -> None:
        """A rectangle; radius in pixels."""
        x1, y1, x2, y2 = box
        radius = min(radius, (x2 - x1) // 2, (y2 - y1) // 2)
        width = self.u(1)

        def paint(image: Image.Image, draw: ImageDraw.ImageDraw) -> None:
            area = (x1, y1, x2 - 1, y2 - 1)
            if radius > 1:
                draw.rounded_rectangle(area, radius, fill=colour, outline=outline, width=width)
            else:
                draw.rectangle(area, fill=colour, outline=outline, width=width)

        self.painters.append(paint)

    def disc(self, box: Box, colour: Colour, outline: Colour | None = None) -> None:
        """An ellipse that fills the box."""
        area = (box[0], box[1], box[2] - 1, box[3] - 1)
        width = self.u(1.5)
        self.painters.append(lambda image, draw: draw.ellipse(area, fill=colour, outline=outline, width=width))

    def line(self, x1: int, y1: int, x2: int, y2: int, colour: Colour, points: float = 1) -> None:
        """A straight line."""
        width = self.u(points)
        self.painters.append(lambda image, draw: draw.line((x1, y1, x2, y2), fill=colour, width=width))

    def shade(self) -> None:
        """Darkens everything drawn so far, as behind a dialog."""

        def paint(image: Image.Image, draw: ImageDraw.ImageDraw) -> None:
            image.paste(image.point(lambda value: value * 0.55))

        self.painters.append(paint)

    def draw_icon(self, name: str, box: Box, colour: Colour) -> Box:
        """The largest square icon in the middle of the box; where it is."""
        side = min(box[2] - box[0], box[3] - box[1])
        x, y = (box[0] + box[2] - side) // 2, (box[1] + box[3] - side) // 2
        self.painters.append(lambda image, draw: image.paste(colour, (x, y), icon_mask(name, side)))
        return x, y, x + side, y + side

    def draw_text(
        self, text: str, box: Box, colour: Colour, *, points: float | None = None, align: str = "left"
    ) -> tuple[str, Box]:
        """One line, centred in height, cut with ... where it is too wide; the text shown, and where it is."""
        pixels = self.text_pixels(points)
        shown = self._cut(text, box[2] - box[0], pixels)
        width, height = text_width(shown, pixels), line_height(pixels)
        assert height <= box[3] - box[1], f"{text!r}: a line of {height} pixels in a box {box}"
        slack = box[2] - box[0] - width
        x = box[0] + (0 if align == "left" else slack if align == "right" else slack // 2)
        y = (box[1] + box[3] - height) // 2
        self.painters.append(lambda image, draw: draw.text((x, y), shown, fill=colour, font=font(pixels), anchor="la"))
        return shown, (x, y, x + width, y + height)

    def _cut(self, text: str, room: int, pixels: int) -> str:
        if text_width(text, pixels) <= room:
            return text
        kept = text
        while kept and text_width(kept.rstrip() + "...", pixels) > room:
            kept = kept[:-1]
        assert kept, f"no room for {text!r} in {room} pixels"
        return kept.rstrip() + "..."

    def text_pixels(self, points: float | None = None) -> int:
        """Size of the typeface in pixels."""
        return self.u(self.theme.text_points if points is None else points)

    def measure(self, text: str, points: float | None = None) -> int:
        """Width of a line in pixels."""
        return text_width(text, self.text_pixels(points))

    def line_height(self, points: float | None = None) -> int:
        """Height of a line in pixels."""
        return line_height(self.text_pixels(points))

    # -- elements -----------------------------------------------------------------------------------------------------

    def add(self, element: Element) -> Element:
        """Registers an element."""
        self.elements.append(element)
        return element

    def label(
        self,
        text: str,
        box: Box,
        *,
        colour: Colour | None = None,
        points: float | None = None,
        align: str = "left",
        group: str = "",
    ) -> Element:
        """Text that cannot be clicked; its box is that of the text."""
        shown, where = self.draw_text(text, box, colour or self.theme.text, points=points, align=align)
        return self.add(Element(Kind.LABEL, where, text=shown, text_box=where, group=group, clickable=False))

    def number(self, group: str, axis: str, since: int) -> None:
        """Numbers the clickable elements registered from index `since` on as one series of the group."""
        members = [i for i in range(since, len(self.elements)) if self.elements[i].clickable]
        for place, index in enumerate(members):
            self.elements[index] = replace(self.elements[index], group=group, series=Series(axis, place, len(members)))

    def open_over(self, box: Box) -> None:
        """A dialog or menu opens: what it touches is no longer ground truth, the rest cannot be clicked."""
        self.covered += [element for element in self.elements if overlap(element.box, box)]
        self.elements = [
            replace(element, clickable=False) for element in self.elements if not overlap(element.box, box)
        ]

    def render(self) -> Image.Image:
        """The picture."""
        image = Image.new("RGB", (self.width, self.height), self.theme.page)
        draw = ImageDraw.Draw(image)
        for paint in self.painters:
            paint(image, draw)
        return image


def concept_text(concept: str) -> str:
    """The label of a concept."""
    return CONCEPTS[concept].label
