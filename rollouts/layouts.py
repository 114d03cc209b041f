"""Published data files as rows with `prompt` and the columns that rewards take, by the layout that they have.

A layout is known by its columns. AIME, MATH-500 and GSM8K files, PaCoRe-Train and ScreenSpot annotations are known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollouts.images import image_size
from rollouts.rows import DatasetError, Row


@dataclass(frozen=True)
class Layout:
    """One layout and how its rows become ours."""

    name: str
    columns: tuple[frozenset[str], ...]
    """sets of columns, in lower case; a row that has all of one of them has this layout"""
    convert: Callable[[Mapping[str, Any], Path], Row]
    """a row, with keys in lower case, and the folder of its file -> `prompt` and columns for rewards"""

    def matches(self, row: Row) -> bool:
        """Whether a row has this layout."""
        keys = {key.lower() for key in row}
        return any(columns <= keys for columns in self.columns)


def _pacore_train(row: Mapping[str, Any], folder: Path) -> Row:
    kept = {key: value for key, value in row.items() if key not in ("conversation", "ground_truth")}
    return {**kept, "prompt": _turns(row["conversation"]), "solution": _ground_truth(row["ground_truth"])}


def _messages(row: Mapping[str, Any], folder: Path) -> Row:
    kept = {key: value for key, value in row.items() if key not in ("messages", "ground_truth")}
    return {**kept, "prompt": _turns(row["messages"]), "solution": _ground_truth(row["ground_truth"])}


def _turns(conversation: Any) -> object:
    """Turns with `role` and `content`, also where a file calls them `from` and `value`."""
    names = {"human": "user", "gpt": "assistant"}
    if not isinstance(conversation, list):
        return conversation
    return [
        {"role": names.get(turn["from"], turn["from"]), "content": turn["value"]} if "from" in turn else turn
        for turn in conversation
    ]


def _ground_truth(value: Any) -> object:
    """The reference, also where it is {"answer": ...}."""
    return value["answer"] if isinstance(value, dict) and "answer" in value else value


def _problem_and_answer(row: Mapping[str, Any], folder: Path) -> Row:
    """AIME and MATH-500: `answer` is the reference; a worked `solution` beside it is not."""
    kept = {key: value for key, value in row.items() if key not in ("problem", "question", "answer", "solution")}
    answer = row["answer"]
    prompt = row["problem"] if "problem" in row else row["question"]
    return {**kept, "prompt": prompt, "solution": str(answer) if isinstance(answer, int) else answer}


def _gsm8k(row: Mapping[str, Any], folder: Path) -> Row:
    """`answer` is a worked solution that ends with `#### 72`."""
    reference = str(row["answer"]).rpartition("####")[2].strip()
    return {"prompt": row["question"], "solution": reference.replace(",", "")}


def _screenspot(row: Mapping[str, Any], folder: Path) -> Row:
    """A box in pixels, [x, y, width, height]; in ScreenSpot-Pro (it has `img_size`) [x1, y1, x2, y2]."""
    image = find_image(str(row["img_filename"]), folder)
    x, y, third, fourth = (float(value) for value in row["bbox"])
    size = list(row["img_size"]) if row.get("img_size") else _image_size(image)
    box = [x, y, third, fourth] if row.get("img_size") else [x, y, x + third, y + fourth]
    kept = {key: row[key] for key in _SCREENSPOT_KEPT if key in row}
    return {**kept, "prompt": str(row["instruction"]), "target_box": box, "image_size": size, "image": str(image)}


_SCREENSPOT_KEPT = ("data_type", "data_source", "ui_type", "platform", "application", "group", "id", "img_filename")
_IMAGE_FOLDERS = ("images", "screenspot_imgs", "screenspotv2_image")


def find_image(name: str, folder: Path) -> Path:
    """Where an image is: beside the annotations, or in a folder of images there or one level up."""
    below = [folder / sub / part for sub in _IMAGE_FOLDERS for part in dict.fromkeys((name, Path(name).name))]
    beside = [folder.parent / sub / name for sub in _IMAGE_FOLDERS]
    return next((path for path in (folder / name, *below, *beside) if path.is_file()), folder / name)


def _image_size(image: Path) -> list[int]:
    """[width, height] in pixels."""
    if not image.is_file():
        raise DatasetError(
            f"{image}: ScreenSpot boxes need the size of their screenshot, and there is no such file "
            f"(looked beside the annotations and in {', '.join(_IMAGE_FOLDERS)})"
        )
    return list(image_size(image))


LAYOUTS = (
    Layout("pacore-train", (frozenset({"conversation", "responses", "ground_truth"}),), _pacore_train),
    Layout("messages", (frozenset({"messages", "ground_truth"}),), _messages),
    Layout("screenspot", (frozenset({"img_filename", "bbox", "instruction"}),), _screenspot),
    Layout("gsm8k", (), _gsm8k),  # by its `####`, see layout_of
    Layout("problem-answer", (frozenset({"problem", "answer"}),), _problem_and_answer),
    Layout("question-answer", (frozenset({"question", "answer"}),), _problem_and_answer),
)


def layout_of(row: Row) -> Layout | None:
    """The layout of a row; None where it is none of those known, or has a `prompt` already."""
    if "prompt" in row:
        return None
    by_name = {layout.name: layout for layout in LAYOUTS}
    if {"question", "answer"} <= set(row) and "####" in str(row["answer"]):
        return by_name["gsm8k"]
    return next((layout for layout in LAYOUTS if layout.matches(row)), None)


def converted(rows: Sequence[Row], name: str, layout: str = "auto") -> list[Row]:
    """The rows with `prompt` and the columns that rewards take.

    Args:
        name: of the data, for messages; its folder is where screenshots are looked for.
        layout: a name in LAYOUTS; auto: known by the columns of each row, rows of no known layout stay as they are.

    Raises:
        DatasetError: a row does not have the layout, or a value in it is malformed.
    """
    by_name = {known.name: known for known in LAYOUTS}
    if layout != "auto" and layout not in by_name:
        raise DatasetError(f"{name}: no layout {layout!r}; there are: auto, {', '.join(by_name)}")
    return [
        _converted(row, layout_of(row) if layout == "auto" else by_name[layout], name, number)
        for number, row in enumerate(rows, start=1)
    ]


def _converted(row: Row, layout: Layout | None, name: str, number: int) -> Row:
    if layout is None:
        return row
    lower = {key.lower(): value for key, value in row.items()}
    try:
        return layout.convert(lower, Path(name).expanduser().parent)
    except DatasetError as error:
        raise DatasetError(f"{name}: row {number}: {error}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{name}: row {number} does not have the layout {layout.name}: {error!r}") from None
