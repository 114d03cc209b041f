"""Images of the rows of a dataset, in whichever of the usual layouts they come, put into the prompt.

    {"prompt": "What is this?", "image": "a.png"}                                   text and one image, or `images`
    {"prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "..."}]}], "images": [...]}
    {"prompt": [{"role": "user", "content": [{"type": "image", "image": "a.png"}, ...]}]}
    {"prompt": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:..."}}, ...]}]}

An image is a path (relative to the dataset's folder), a data URL, bytes or a Pillow image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rollouts.images import image_source, open_image, read_image
from rollouts.prompts import row_content
from rollouts.rows import DatasetError, Row
from rollouts.trajectory import images_of

_COLUMNS = ("images", "image")

# Images of a dataset that are read whole before training; of more, only the first so many.
_CHECKED = 2000


def with_images(rows: Sequence[Row], name: str) -> list[Row]:
    """The rows with every image inside the prompt as a path or data URL. Rows without images stay as they are.

    Args:
        name: of the dataset, for messages; relative paths begin in its folder.

    Raises:
        DatasetError: an image of another kind, or not as many images as places for them; with the row's number.
    """
    folder = Path(name).expanduser().parent
    return [_located(row, folder, f"{name}: row {number}") for number, row in enumerate(rows, start=1)]


def check_images(rows: Sequence[Row], name: str) -> None:
    """Reads the images of the first rows whole.

    Raises:
        DatasetError: one is missing, damaged, enormous, no image, or not of its `image_size`; with the row's number.
    """
    checked = 0
    for number, row in enumerate(rows, start=1):
        prompt = row_content(row, "prompt", name)
        for source in images_of(prompt):
            if checked == _CHECKED:
                return
            checked += 1
            try:
                shown = source if not source.startswith("data:") else "an image"
                size = open_image(read_image(source), shown).size
                told = row.get("image_size")
                if isinstance(told, list | tuple) and len(images_of(prompt)) == 1 and list(told) != list(size):
                    raise DatasetError(f"{shown} has {size[0]} x {size[1]} pixels, image_size is {told}")
            except DatasetError as error:
                raise DatasetError(f"{name}: row {number}: {error}") from None


def _located(row: Row, folder: Path, where: str) -> Row:
    column = next((key for key in _COLUMNS if row.get(key) is not None), None)
    prompt = row.get("prompt")
    if column is None and not _has_parts(prompt):
        return row
    try:
        given = row[column] if column else []
        images = iter([image_source(x, folder) for x in (given if isinstance(given, list | tuple) else [given])])
        content = _filled(prompt, images, folder)
        left = sum(1 for _ in images)
    except DatasetError as error:
        raise DatasetError(f"{where}: {error}") from None
    if left:
        raise DatasetError(f"{where}: {left} more images in column {column!r} than places in the prompt")
    return {key: value for key, value in row.items() if key not in _COLUMNS} | {"prompt": content}


def _has_parts(prompt: object) -> bool:
    return isinstance(prompt, list) and any(
        isinstance(turn, dict) and isinstance(turn.get("content"), list) for turn in prompt
    )


def _filled(prompt: object, images: Iterator[str], folder: Path) -> object:
    """The prompt with an image in every place; images without a place go before the text of the first user turn."""
    if isinstance(prompt, str):
        parts: list[object] = [{"type": "image", "image": image} for image in images]
        return [{"role": "user", "content": [*parts, {"type": "text", "text": prompt}]}]
    if not isinstance(prompt, list):
        return prompt
    if not _has_parts(prompt):
        turns = [dict(turn) if isinstance(turn, dict) else turn for turn in prompt]
        first = next((turn for turn in turns if isinstance(turn, dict) and turn.get("role") == "user"), None)
        if first is not None:
            parts = [{"type": "image", "image": image} for image in images]
            first["content"] = [*parts, {"type": "text", "text": first.get("content")}]
        return turns
    return [_filled_turn(turn, images, folder) for turn in prompt]


def _filled_turn(turn: object, images: Iterator[str], folder: Path) -> object:
    if not isinstance(turn, dict) or not isinstance(turn.get("content"), list):
        return turn
    return {**turn, "content": [_filled_part(part, images, folder) for part in turn["content"]]}


def _filled_part(part: object, images: Iterator[str], folder: Path) -> object:
    if not isinstance(part, dict):
        return part
    if part.get("type") == "text":
        return {"type": "text", "text": part.get("text")}
    if part.get("type") not in ("image", "image_url"):
        return part
    own = next((part[key] for key in ("image", "image_url", "path", "url") if part.get(key) is not None), None)
    if own is not None:
        return {"type": "image", "image": image_source(own, folder)}
    image = next(images, None)
    if image is None:
        raise DatasetError("the prompt has more places for images than the row has images")
    return {"type": "image", "image": image}
