"""Icons as vector shapes on a grid of 24 by 24, drawn four times too large and reduced."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

from PIL import Image, ImageDraw

GRID = 24
_OVERSAMPLING = 4

Points = Sequence[tuple[float, float]]


class Pen:
    """Draws on the grid in white; the result is the mask through which a colour is poured."""

    def __init__(self, size: int) -> None:
        self.pixels = size * _OVERSAMPLING
        self.unit = self.pixels / GRID
        self.image = Image.new("L", (self.pixels, self.pixels), 0)
        self._draw = ImageDraw.Draw(self.image)
        self._width = max(1, round(2 * self.unit))

    def _at(self, points: Points) -> list[tuple[float, float]]:
        return [(x * self.unit, y * self.unit) for x, y in points]

    def line(self, *points: tuple[float, float]) -> None:
        """Joined strokes with round ends."""
        at = self._at(points)
        self._draw.line(at, fill=255, width=self._width, joint="curve")
        for x, y in (at[0], at[-1]):
            r = self._width / 2
            self._draw.ellipse((x - r, y - r, x + r, y + r), fill=255)

    def ring(self, x: float, y: float, radius: float) -> None:
        """A circle's outline."""
        self._draw.ellipse(self._square(x, y, radius), outline=255, width=self._width)

    def disc(self, x: float, y: float, radius: float, fill: int = 255) -> None:
        """A filled circle; fill 0 cuts a hole."""
        self._draw.ellipse(self._square(x, y, radius), fill=fill)

    def arc(self, x: float, y: float, radius: float, start: float, end: float) -> None:
        """Part of a circle, clockwise from start to end in degrees from 3 o'clock."""
        self._draw.arc(self._square(x, y, radius), start, end, fill=255, width=self._width)

    def shape(self, *points: tuple[float, float], fill: int = 255) -> None:
        """A filled polygon."""
        self._draw.polygon(self._at(points), fill=fill)

    def outline(self, *points: tuple[float, float]) -> None:
        """A closed outline."""
        self.line(*points, points[0])

    def _square(self, x: float, y: float, radius: float) -> tuple[float, float, float, float]:
        u = self.unit
        return (x - radius) * u, (y - radius) * u, (x + radius) * u, (y + radius) * u


def _polar(radius: float, degrees: float) -> tuple[float, float]:
    return 12 + radius * math.cos(math.radians(degrees)), 12 + radius * math.sin(math.radians(degrees))


def _gear(p: Pen) -> None:
    for tooth in range(8):
        p.line(_polar(6, tooth * 45), _polar(9.5, tooth * 45))
    p.disc(12, 12, 7.5)
    p.disc(12, 12, 3, fill=0)


def _star(p: Pen) -> None:
    p.shape(*(_polar(10.5 if corner % 2 == 0 else 4.3, corner * 36 - 90) for corner in range(10)))


def _heart(p: Pen) -> None:
    p.disc(7.8, 9, 4.8)
    p.disc(16.2, 9, 4.8)
    p.shape((3.6, 11.2), (20.4, 11.2), (12, 21))


def _bell(p: Pen) -> None:
    p.disc(12, 9.5, 5.5)
    p.shape((6.5, 9.5), (17.5, 9.5), (20, 18), (4, 18))
    p.disc(12, 20, 2)


def _envelope(p: Pen) -> None:
    p.outline((3, 6), (21, 6), (21, 19), (3, 19))
    p.line((3, 6), (12, 13), (21, 6))


def _pencil(p: Pen) -> None:
    p.shape((4, 20), (5, 15), (15, 5), (19, 9), (9, 19))
    p.line((13.5, 3.8), (20.2, 10.5))


def _bin(p: Pen) -> None:
    p.line((4, 6), (20, 6))
    p.line((9, 3.5), (15, 3.5))
    p.outline((6, 6), (7, 21), (17, 21), (18, 6))
    p.line((10, 10), (10, 17))
    p.line((14, 10), (14, 17))


def _house(p: Pen) -> None:
    p.line((2.5, 12), (12, 3), (21.5, 12))
    p.outline((5, 11), (5, 21), (19, 21), (19, 11))
    p.shape((10, 14), (14, 14), (14, 21), (10, 21))


def _camera(p: Pen) -> None:
    p.outline((3, 7), (8, 7), (9.5, 4), (14.5, 4), (16, 7), (21, 7), (21, 20), (3, 20))
    p.ring(12, 13, 4)


def _person(p: Pen) -> None:
    p.disc(12, 7.5, 4.5)
    p.disc(12, 22, 8)
    p.shape((3, 22), (21, 22), (21, 24), (3, 24), fill=0)


def _tray(p: Pen) -> None:
    p.line((4, 15), (4, 21), (20, 21), (20, 15))


def _arrow_into_tray(p: Pen) -> None:
    _tray(p)
    p.line((12, 3), (12, 16))
    p.line((7.5, 11.5), (12, 16), (16.5, 11.5))


def _arrow_out_of_tray(p: Pen) -> None:
    _tray(p)
    p.line((12, 3), (12, 16))
    p.line((7.5, 7.5), (12, 3), (16.5, 7.5))


def _printer(p: Pen) -> None:
    p.outline((7, 3), (17, 3), (17, 9), (7, 9))
    p.shape((3, 9), (21, 9), (21, 18), (3, 18))
    p.shape((7, 14), (17, 14), (17, 21), (7, 21), fill=0)
    p.outline((7, 14), (17, 14), (17, 21), (7, 21))


def _two_sheets(p: Pen) -> None:
    p.outline((4, 3), (15, 3), (15, 16), (4, 16))
    p.shape((9, 8), (20, 8), (20, 21), (9, 21))


def _folder(p: Pen) -> None:
    p.shape((2.5, 5), (9.5, 5), (12, 8), (21.5, 8), (21.5, 20), (2.5, 20))


def _disk(p: Pen) -> None:
    p.outline((4, 4), (17, 4), (20, 7), (20, 20), (4, 20))
    p.shape((8, 4), (15, 4), (15, 9), (8, 9))
    p.shape((7, 13), (17, 13), (17, 20), (7, 20))


def _calendar(p: Pen) -> None:
    p.outline((4, 5), (20, 5), (20, 21), (4, 21))
    p.shape((4, 5), (20, 5), (20, 10), (4, 10))
    p.line((8, 2.5), (8, 6))
    p.line((16, 2.5), (16, 6))
    for x in (8, 12, 16):
        p.disc(x, 15, 1.3)


def _clock(p: Pen) -> None:
    p.ring(12, 12, 10)
    p.line((12, 6), (12, 12), (16, 14))


def _cart(p: Pen) -> None:
    p.line((2.5, 4), (5.5, 4), (8, 16), (19, 16))
    p.shape((6, 6), (21.5, 6), (19.5, 14), (7.5, 14))
    p.disc(9.5, 20, 1.9)
    p.disc(17.5, 20, 1.9)


def _map_pin(p: Pen) -> None:
    p.disc(12, 9, 7)
    p.shape((5.8, 12), (18.2, 12), (12, 22.5))
    p.disc(12, 9, 2.8, fill=0)


def _note(p: Pen) -> None:
    p.disc(7, 18.5, 3.4)
    p.disc(17, 16.5, 3.4)
    p.line((9.4, 18.5), (9.4, 5), (19.4, 3), (19.4, 16.5))


def _funnel(p: Pen) -> None:
    p.shape((3, 4), (21, 4), (14, 13), (14, 19), (10, 21.5), (10, 13))


def _eye(p: Pen) -> None:
    p.arc(12, 17, 11, 215, 325)
    p.arc(12, 7, 11, 35, 145)
    p.disc(12, 12, 3.4)


def _picture(p: Pen) -> None:
    p.outline((3, 4), (21, 4), (21, 20), (3, 20))
    p.shape((4, 19), (10, 10), (14, 15), (16, 13), (20, 19))
    p.disc(16.5, 8.5, 1.9)


def _padlock(p: Pen) -> None:
    p.arc(12, 9, 5, 180, 360)
    p.line((8, 9), (8, 11))
    p.line((16, 9), (16, 11))
    p.shape((4.5, 11), (19.5, 11), (19.5, 21), (4.5, 21))


def _speech_bubble(p: Pen) -> None:
    p.outline((3, 4), (21, 4), (21, 16), (11, 16), (6, 21), (6, 16), (3, 16))


def _circular_arrow(p: Pen) -> None:
    p.arc(12, 12, 9, 20, 320)
    p.shape((15, 9), (21.5, 9), (21.5, 2.5))


def _curved(p: Pen, mirrored: bool) -> None:
    def at(x: float, y: float) -> tuple[float, float]:
        return (24 - x, y) if mirrored else (x, y)

    p.line(at(5, 9), at(14, 9), at(18, 11), at(19, 14), at(18, 17), at(14, 19), at(8, 19))
    p.line(at(9.5, 4.5), at(5, 9), at(9.5, 13.5))


def _share(p: Pen) -> None:
    p.line((6, 12), (18, 5.5))
    p.line((6, 12), (18, 18.5))
    for x, y in ((6, 12), (18, 5.5), (18, 18.5)):
        p.disc(x, y, 3.2)


def _question_mark(p: Pen) -> None:
    p.ring(12, 12, 10)
    p.arc(12, 9.5, 3.8, 180, 60)
    p.line((12.7, 12.6), (12, 14.4))
    p.disc(12, 17.6, 1.3)


def _lens(p: Pen) -> None:
    p.ring(10, 10, 7.5)
    p.line((15.5, 15.5), (21, 21))


def _strokes(*lines: Points) -> Callable[[Pen], None]:
    def draw(p: Pen) -> None:
        for line in lines:
            p.line(*line)

    return draw


def _two_bars(p: Pen) -> None:
    p.shape((6, 4), (10, 4), (10, 20), (6, 20))
    p.shape((14, 4), (18, 4), (18, 20), (14, 20))


def _dots(p: Pen) -> None:
    for y in (5, 12, 19):
        p.disc(12, y, 2.1)


ICONS: dict[str, Callable[[Pen], None]] = {
    "arrow curved left": lambda p: _curved(p, mirrored=False),
    "arrow curved right": lambda p: _curved(p, mirrored=True),
    "arrow into tray": _arrow_into_tray,
    "arrow left": _strokes([(21, 12), (3, 12)], [(10, 5), (3, 12), (10, 19)]),
    "arrow out of tray": _arrow_out_of_tray,
    "arrow right": _strokes([(3, 12), (21, 12)], [(14, 5), (21, 12), (14, 19)]),
    "bell": _bell,
    "bin": _bin,
    "calendar": _calendar,
    "camera": _camera,
    "cart": _cart,
    "circular arrow": _circular_arrow,
    "clock": _clock,
    "cross": _strokes([(5, 5), (19, 19)], [(19, 5), (5, 19)]),
    "dash": _strokes([(4, 12), (20, 12)]),
    "disk": _disk,
    "envelope": _envelope,
    "eye": _eye,
    "folder": _folder,
    "funnel": _funnel,
    "gear": _gear,
    "heart": _heart,
    "house": _house,
    "magnifying glass": _lens,
    "map pin": _map_pin,
    "note": _note,
    "padlock": _padlock,
    "pencil": _pencil,
    "person": _person,
    "picture": _picture,
    "plus": _strokes([(12, 4), (12, 20)], [(4, 12), (20, 12)]),
    "printer": _printer,
    "question mark": _question_mark,
    "sheet": lambda p: p.outline((6, 3), (14, 3), (19, 8), (19, 21), (6, 21)),
    "speech bubble": _speech_bubble,
    "square": lambda p: p.outline((5, 5), (19, 5), (19, 19), (5, 19)),
    "star": _star,
    "three dots": _dots,
    "three joined dots": _share,
    "three lines": _strokes([(3, 6), (21, 6)], [(3, 12), (21, 12)], [(3, 18), (21, 18)]),
    "triangle": lambda p: p.shape((6, 3), (21, 12), (6, 21)),
    "two bars": _two_bars,
    "two sheets": _two_sheets,
}


@lru_cache(maxsize=4096)
def icon_mask(name: str, size: int) -> Image.Image:
    """The icon as a mask of size x size pixels; the same object is given again."""
    pen = Pen(size)
    ICONS[name](pen)
    return pen.image.reduce(_OVERSAMPLING)
