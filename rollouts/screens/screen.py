"""A screen from a seed: its size, its look, its layout, and the split that it belongs to."""

from __future__ import annotations

import hashlib
import io
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from PIL import Image

from rollouts.screens.canvas import Canvas
from rollouts.screens.desktop import DESKTOP
from rollouts.screens.element import Element
from rollouts.screens.mobile import MOBILE
from rollouts.screens.theme import pick_theme
from rollouts.screens.web import WEB

Platform = Literal["desktop", "web", "mobile"]
Split = Literal["train", "validation", "test"]
PLATFORMS: tuple[Platform, ...] = ("desktop", "web", "mobile")
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

LAYOUTS = {"desktop": DESKTOP, "web": WEB, "mobile": MOBILE}
_LARGE = ((800, 600, 1.0), (1024, 768, 1.0), (1280, 720, 1.0), (1366, 768, 1.25), (1440, 900, 1.5), (1920, 1080, 2.0))
_SMALL = ((320, 568, 1.0), (360, 640, 1.0), (390, 844, 1.0), (540, 960, 1.5), (720, 1280, 2.0), (600, 800, 1.25))
_SIZES = {"desktop": _LARGE, "web": _LARGE, "mobile": _SMALL}
_SOURCES = {"desktop": ("windows", "macos"), "web": ("shop", "tool"), "mobile": ("android", "ios")}


@dataclass(frozen=True)
class Screen:
    """One screen: the truth about it, and how to draw it."""

    platform: Platform
    layout: str
    """name of the layout, such as `editor`"""
    seed: int
    elements: tuple[Element, ...]
    covered: tuple[Element, ...]
    """partly hidden by an open dialog or menu; never asked for, but no label of theirs is taken as unique"""
    canvas: Canvas

    @property
    def width(self) -> int:
        """Pixels."""
        return self.canvas.width

    @property
    def height(self) -> int:
        """Pixels."""
        return self.canvas.height

    @property
    def theme(self) -> str:
        """Name of the look."""
        return self.canvas.theme.name

    @property
    def source(self) -> str:
        """The kind of system it resembles, in ScreenSpot's words."""
        sources = _SOURCES[self.platform]
        return sources[self.seed % len(sources)]

    @cached_property
    def content(self) -> str:
        """Digest of what is on the screen, without sizes, places and colours: the same content is the same screen."""
        parts = [(str(e.kind), e.text, e.icon, e.beside, e.group, e.enabled) for e in self.elements]
        return hashlib.sha256(json.dumps([self.layout, parts]).encode()).hexdigest()[:16]

    @property
    def split(self) -> Split:
        """Decided by the content alone, so that no content is in two splits: 80% train, 10% validation, 10% test."""
        place = int(self.content, 16) % 10
        return "test" if place == 0 else "validation" if place == 1 else "train"

    def render(self) -> Image.Image:
        """The picture, RGB."""
        return self.canvas.render()

    def png(self) -> bytes:
        """The picture as the bytes of a PNG file."""
        buffer = io.BytesIO()
        self.render().save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()


def make_screen(seed: int, platforms: Sequence[Platform] = PLATFORMS) -> Screen:
    """The screen of a seed; laid out, not yet drawn."""
    rng = random.Random(f"screen {seed}")
    platform = rng.choice(list(platforms))
    width, height, scale = rng.choice(_SIZES[platform])
    layout = rng.choice(list(LAYOUTS[platform]))
    canvas = Canvas(width, height, scale, pick_theme(rng), rng)
    LAYOUTS[platform][layout](canvas)
    return Screen(platform, layout, seed, tuple(canvas.elements), tuple(canvas.covered), canvas)
