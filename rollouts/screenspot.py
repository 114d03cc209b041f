"""The annotation files of ScreenSpot, ScreenSpot-V2 and ScreenSpot-Pro as they are published, checked row by row.

    ScreenSpot, V2   screenspot_{mobile,desktop,web}[_v2].json: one list of
                     {"img_filename": "web_1.png", "bbox": [42, 1102, 197, 70], "instruction": "view the details",
                      "data_type": "text", "data_source": "shop"}             bbox is [x, y, width, height]
    ScreenSpot-Pro   annotations/<application>_<platform>.json: one list of
                     {"img_filename": "vscode_mac/1.png", "bbox": [473, 183, 503, 219], "img_size": [2560, 1664],
                      "instruction": "Refresh the file explorer.", "ui_type": "icon", "group": "Dev",
                      "application": "vscode", "platform": "macos", "id": "vscode_macos_0"}
                                                                              bbox is [x1, y1, x2, y2]

Boxes are in pixels of the screenshot. Sources: Cheng et al. 2024, https://arxiv.org/abs/2401.10935; Wu et al. 2024,
https://arxiv.org/abs/2410.23218; Li et al. 2025, https://arxiv.org/abs/2504.07981.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollouts.images import image_size
from rollouts.layouts import converted
from rollouts.rows import DatasetError, Row, read_rows

_PLATFORM_OF_SOURCE = {"ios": "mobile", "android": "mobile", "windows": "desktop", "macos": "desktop"}
_PLATFORMS = ("mobile", "desktop", "web")


@dataclass(frozen=True)
class ScreenTarget:
    """One instruction and where it leads."""

    file: str
    row: int
    """of the file, from 1"""
    image: Path
    image_size: tuple[int, int]
    """width, height in pixels"""
    instruction: str
    box: tuple[float, float, float, float]
    """x1, y1, x2, y2 in pixels"""
    section: str
    """what results are grouped by: the platform, or in ScreenSpot-Pro the group of applications"""
    element_type: str
    """text or icon"""
    row_id: str
    """`id` where the file has one, else empty"""
    img_filename: str


@dataclass(frozen=True)
class Annotations:
    """The rows that can be used, and what was wrong with the others."""

    targets: tuple[ScreenTarget, ...]
    refused: tuple[str, ...]
    """one message for each row left out; empty unless rows may be left out"""
    is_pro: bool


def read_annotations(files: Sequence[str], *, images: Path | None = None, skip_bad_rows: bool = False) -> Annotations:
    """All rows of annotation files, in order.

    Args:
        images: folder of the screenshots; by default they are looked for beside the files.
        skip_bad_rows: leave out rows with a bad image or box, instead of stopping at the first.

    Raises:
        DatasetError: with file and row: an image that is missing, truncated, enormous or not an image; a box outside
            the image, inverted or not in pixels; a row of another layout; or no row that can be used.
    """
    targets: list[ScreenTarget] = []
    refused: list[str] = []
    sizes: dict[Path, tuple[int, int]] = {}
    pro: set[bool] = set()
    for file in files:
        for number, row in enumerate(read_rows(file), start=1):
            pro.add("img_size" in row)
            try:
                targets.append(_target(row, file, number, images, sizes))
            except DatasetError as error:
                if not skip_bad_rows:
                    raise
                refused.append(str(error))
    if not targets:
        raise DatasetError(f"{', '.join(files)}: no row can be used; the first: {refused[0]}")
    if len(pro) > 1:
        raise DatasetError(f"{', '.join(files)}: some rows are ScreenSpot-Pro's (with img_size), some are not")
    return Annotations(tuple(targets), tuple(refused), pro == {True})


def _target(
    row: Row, file: str, number: int, images: Path | None, sizes: dict[Path, tuple[int, int]]
) -> ScreenTarget:  # fmt: skip
    where = f"{file}: row {number}"
    row = {key.lower(): value for key, value in row.items()}
    try:
        (ours,) = converted([row], str(images / "x") if images else file, layout="screenspot")
    except DatasetError as error:
        reason = str(error).partition(": row 1")[2].lstrip(": ")  # the reader of one row calls it row 1
        raise DatasetError(f"{where}: {reason}") from None
    image = Path(str(ours["image"]))
    if image not in sizes:
        try:
            sizes[image] = image_size(image, decode=True)
        except DatasetError as error:
            raise DatasetError(f"{where}: {error}") from None
    size = sizes[image]
    claimed = row.get("img_size")
    if isinstance(claimed, (list, tuple)) and tuple(claimed) != size:
        raise DatasetError(f"{where}: img_size is {list(claimed)}, but {image} has {size[0]} x {size[1]} pixels")
    return ScreenTarget(
        file=file,
        row=number,
        image=image,
        image_size=size,
        instruction=str(ours["prompt"]),
        box=_checked_box(ours["target_box"], row["bbox"], size, where),
        section=_section(ours, file),
        element_type=_element_type(ours, where),
        row_id=str(ours.get("id", "")),
        img_filename=str(ours["img_filename"]),
    )


def _checked_box(box: Any, given: object, size: tuple[int, int], where: str) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (float(value) for value in box)
    width, height = size
    if isinstance(given, Sequence) and all(abs(float(value)) <= 1 for value in given):
        raise DatasetError(f"{where}: bbox {given} looks like shares of the screen; published files have pixels")
    if not (x1 < x2 and y1 < y2):
        raise DatasetError(f"{where}: bbox {given} is inverted or empty: as corners it is {[x1, y1, x2, y2]}")
    if not (x1 >= 0 and y1 >= 0 and x2 <= width and y2 <= height):
        raise DatasetError(
            f"{where}: bbox {given}, as corners {[x1, y1, x2, y2]}, is not inside the image of {width} x {height}"
        )
    return x1, y1, x2, y2


def _section(row: Row, file: str) -> str:
    if row.get("group"):
        return str(row["group"])
    if row.get("platform"):
        return str(row["platform"])
    named = [platform for platform in _PLATFORMS if platform in Path(file).stem.lower()]
    if len(named) == 1:
        return named[0]
    return _PLATFORM_OF_SOURCE.get(str(row.get("data_source", "")).lower(), "web")


def _element_type(row: Row, where: str) -> str:
    given = str(row.get("ui_type") or row.get("data_type") or "").lower()
    if given not in ("text", "icon"):
        raise DatasetError(f"{where}: the type of the element is {given!r}; allowed are text, icon")
    return given
