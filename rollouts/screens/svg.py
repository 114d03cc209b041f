"""The icons of `rollouts.screens.icons` as SVG, for pages that a browser draws."""

from __future__ import annotations

import math
from functools import lru_cache

from rollouts.screens.icons import ICONS, Pen, Points


class SvgPen(Pen):
    """Draws the icons of `rollouts.screens.icons` as SVG: white shows, black cuts a hole."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def line(self, *points: tuple[float, float]) -> None:
        self.parts.append(f'<polyline points="{_points(points)}" fill="none" stroke="#fff"/>')

    def ring(self, x: float, y: float, radius: float) -> None:
        self.parts.append(f'<circle cx="{x}" cy="{y}" r="{radius - 1}" fill="none" stroke="#fff"/>')

    def disc(self, x: float, y: float, radius: float, fill: int = 255) -> None:
        self.parts.append(f'<circle cx="{x}" cy="{y}" r="{radius}" fill="{_grey(fill)}"/>')

    def arc(self, x: float, y: float, radius: float, start: float, end: float) -> None:
        sweep, r = (end - start) % 360, radius - 1
        (x1, y1), (x2, y2) = (
            (x + r * math.cos(math.radians(a)), y + r * math.sin(math.radians(a))) for a in (start, end)
        )
        path = f"M{x1:.2f} {y1:.2f}A{r} {r} 0 {int(sweep > 180)} 1 {x2:.2f} {y2:.2f}"
        self.parts.append(f'<path d="{path}" fill="none" stroke="#fff"/>')

    def shape(self, *points: tuple[float, float], fill: int = 255) -> None:
        self.parts.append(f'<polygon points="{_points(points)}" fill="{_grey(fill)}"/>')


def _points(points: Points) -> str:
    return " ".join(f"{x:.2f},{y:.2f}" for x, y in points)


def _grey(value: int) -> str:
    return "#fff" if value else "#000"


@lru_cache(maxsize=256)
def svg(icon: str) -> str:
    """An icon in the colour of the text around it."""
    pen, name = SvgPen(), icon.replace(" ", "-")
    ICONS[icon](pen)
    return (
        f'<svg viewBox="0 0 24 24"><mask id="{name}"><g stroke-width="2" stroke-linecap="round" '
        f'stroke-linejoin="round">{"".join(pen.parts)}</g></mask>'
        f'<rect width="24" height="24" fill="currentColor" mask="url(#{name})"/></svg>'
    )
