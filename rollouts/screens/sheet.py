"""Pictures to look at: boxes drawn on screens, and many screens on one sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

from rollouts.screens.canvas import font, line_height, text_width
from rollouts.screens.instructions import Instruction
from rollouts.screens.screen import Screen

_TARGET, _NEGATIVE, _ENABLED, _DISABLED, _LABEL = "#ff0050", "#ff9900", "#00a060", "#8060c0", "#4080ff"


def annotated(screen: Screen, instruction: Instruction | None = None) -> Image.Image:
    """The screen with a frame around each element.

    Green: can be clicked; violet: greyed out, or behind a dialog; blue: a label; orange: a hard negative of the
    instruction; red: its target.
    """
    image = screen.render()
    draw = ImageDraw.Draw(image)
    negatives = instruction.hard_negatives if instruction else ()
    for index, element in enumerate(screen.elements):
        colour = _ENABLED if element.is_target else _LABEL if element.kind == "label" else _DISABLED
        width = 1
        if instruction and index == instruction.target:
            colour, width = _TARGET, max(3, screen.width // 300)
        elif index in negatives:
            colour, width = _NEGATIVE, max(2, screen.width // 450)
        x1, y1, x2, y2 = element.box
        draw.rectangle((x1, y1, x2 - 1, y2 - 1), outline=colour, width=width)
    return image


def contact_sheet(items: Sequence[tuple[Screen, Instruction]], *, columns: int = 4, cell: int = 460) -> Image.Image:
    """Screens with their boxes and instructions in a grid; `cell` pixels a side."""
    foot, pad = line_height(13) * 2 + 8, 8
    rows = math.ceil(len(items) / columns)
    sheet = Image.new("RGB", (columns * cell, rows * (cell + foot)), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (screen, instruction) in enumerate(items):
        x, y = place % columns * cell, place // columns * (cell + foot)
        image = annotated(screen, instruction)
        image.thumbnail((cell - pad, cell - pad), Image.Resampling.LANCZOS)
        sheet.paste(image, (x + (cell - image.width) // 2, y + pad // 2))
        for number, line in enumerate(_two_lines(f"[{instruction.kind}] {instruction.text}", cell - pad)):
            draw.text((x + pad, y + cell + number * line_height(13)), line, fill="black", font=font(13), anchor="la")
    return sheet


def _two_lines(text: str, width: int) -> list[str]:
    head = text
    while text_width(head, 13) > width:
        head = head.rpartition(" ")[0]
    return [head, text[len(head) :].strip()]
