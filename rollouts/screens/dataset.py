"""Screens as a dataset on disk, in the layout in which ScreenSpot is published.

    OUT/images/000000.png
    OUT/annotations.jsonl      one instruction a line

        {"img_filename": "000000.png", "bbox": [412, 63, 24, 24], "instruction": "Click the gear icon.",
         "data_type": "icon", "data_source": "windows", "platform": "desktop", "kind": "icon", ...}

`bbox` is [x, y, width, height] in pixels. `data_type` is `text` where the target shows text, else `icon`.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rollouts.rows import DatasetError, Row
from rollouts.screens.chromium import chromium_screens, find_chromium
from rollouts.screens.element import Box
from rollouts.screens.instructions import Instruction, pick
from rollouts.screens.screen import PLATFORMS, Platform, Screen, Split, make_screen

Renderer = Literal["pillow", "chromium"]
_SEEDS_APART = 10_000_000


def screens(seed: int, split: Split, platforms: Sequence[Platform] = PLATFORMS) -> Generator[Screen]:
    """Endless screens of one split, no content twice; the same for the same arguments."""
    seen: set[str] = set()
    for number in itertools.count(seed * _SEEDS_APART):
        screen = make_screen(number, platforms)
        if screen.split == split and screen.content not in seen:
            seen.add(screen.content)
            yield screen


@dataclass(frozen=True)
class Exported:
    """What was written."""

    num_screens: int
    num_instructions: int
    samples: tuple[tuple[Screen, Instruction], ...]
    """the first ones, for a contact sheet"""


def export(
    folder: Path,
    *,
    count: int,
    seed: int = 0,
    split: Split = "train",
    platforms: Sequence[Platform] = PLATFORMS,
    per_screen: int = 1,
    num_samples: int = 0,
    renderer: Renderer = "pillow",
    on_progress: Callable[[int], None] = lambda done: None,
) -> Exported:
    """Writes `count` screens with up to `per_screen` instructions each.

    Raises:
        DatasetError: the folder exists and is not empty, or cannot be written; Chromium is missing or ends.
    """
    if renderer == "chromium":
        find_chromium()
    images = folder / "images"
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise DatasetError(f"{folder}: is there already and not an empty folder; name a new one")
        images.mkdir(parents=True)
    except OSError as error:
        raise DatasetError(f"{folder}: cannot be written: {error.strerror}") from None
    samples: list[tuple[Screen, Instruction]] = []
    num_instructions = 0
    stream = (screens if renderer == "pillow" else chromium_screens)(seed, split, platforms)
    with closing(stream), (folder / "annotations.jsonl").open("w", encoding="utf-8") as file:
        for number, screen in enumerate(itertools.islice(stream, count)):
            chosen = pick(screen, per_screen, random.Random(f"instructions {screen.seed}"))
            (images / f"{number:06d}.png").write_bytes(screen.png())
            for instruction in chosen:
                file.write(json.dumps(annotation(screen, instruction, f"{number:06d}.png")) + "\n")
            num_instructions += len(chosen)
            samples += [(screen, chosen[0])] if len(samples) < num_samples else []
            on_progress(number + 1)
    return Exported(count, num_instructions, tuple(samples))


def annotation(screen: Screen, instruction: Instruction, img_filename: str) -> Row:
    """One line of annotations.jsonl."""
    target = screen.elements[instruction.target]
    return {
        "img_filename": img_filename,
        "bbox": _extent(target.box),
        "instruction": instruction.text,
        "data_type": "text" if target.text else "icon",
        "data_source": screen.source,
        "platform": screen.platform,
        "kind": instruction.kind,
        "role": str(target.kind),
        "layout": screen.layout,
        "theme": screen.theme,
        "split": screen.split,
        "seed": screen.seed,
        "hard_negatives": [_extent(screen.elements[index].box) for index in instruction.hard_negatives],
    }


def _extent(box: Box) -> list[int]:
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]
