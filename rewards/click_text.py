r"""Finds the clicks in an answer's text; numbers are returned as written, in whatever space they are.

Forms, strongest first; the first form that is present is the only one read:

    1. tool-call or JSON objects:  {"action": "click", "coordinate": [x, y]}, {"point_2d": [x, y]}, {"bbox_2d": [...]}
    2. calls:                      click(x, y), pyautogui.click(x=.., y=..), click(start_box='(x, y)'), tap([x, y])
    3. tags:                       <point>x y</point>, <point x="..." y="...">, <box>[[x1, y1, x2, y2]]</box>,
                                   <|box_start|>(x1, y1),(x2, y2)<|box_end|>, <click>x, y</click>
    4. plain text:                 (x, y) or [x, y], four numbers for a box

A point and a box in one answer belong together: the point is the click, the box the element. Several points are
several clicks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

Numbers = list[float]
RawClick = tuple[Numbers, Numbers | None]  # [x, y], and [x1, y1, x2, y2] if there is a box

_MAX_CHARS = 100_000  # an answer is short; what is longer is not searched
_MAX_CLICKS = 16  # more than one is wrong anyway
_NUMBER = r"(?<![\w.])[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|(?<![\w.])[-+]?(?:nan|inf(?:inity)?)\b"
_NUMBERS = re.compile(_NUMBER, re.I)
_SEP = r"\s*[,;\s]\s*"
_POINT_KEYS = ("coordinate", "coordinates", "point_2d", "point", "click_point", "position", "click", "start_coordinate")
_BOX_KEYS = ("bbox_2d", "bbox", "box_2d", "box", "bounding_box", "start_box")
_CALL = re.compile(
    r"\b(?:left_|right_|middle_|double_|triple_|long_)?(?:click|tap|doubleClick|rightClick|tripleClick|long_press)"
    r"\s*\(([^()]{0,200}(?:\([^()]{0,200}\)[^()]{0,200})*)\)",
    re.I,
)
_TAG = re.compile(r"<\|?(?:point|box|click|bbox|ref_point|box_start|point_start)\|?>([^<]{0,300})<[/|]", re.I)
_POINT_ATTRIBUTES = re.compile(
    rf"<point\b[^<>]{{0,100}}?\bx\d?\s*=\s*[\"']?({_NUMBER})[^<>]{{0,100}}?\by\d?\s*=\s*[\"']?({_NUMBER})", re.I
)
_JSON_START = re.compile(r"\{|\[\s*\{")
_KEYWORD = re.compile(rf"\b(x1|y1|x2|y2|x|y)[\"']?\s*[=:]\s*[\"']?({_NUMBER})", re.I)
_BARE_GROUP = re.compile(rf"[(\[]\s*((?:{_NUMBER})(?:{_SEP}(?:{_NUMBER})){{1,3}})\s*[)\]]", re.I)
_BARE_CORNERS = re.compile(
    rf"[(\[]\s*({_NUMBER}){_SEP}({_NUMBER})\s*[)\]]\s*,?\s*[(\[]\s*({_NUMBER}){_SEP}({_NUMBER})\s*[)\]]", re.I
)
_BARE_LINE = re.compile(rf"\s*({_NUMBER}){_SEP}({_NUMBER})(?:{_SEP}({_NUMBER}){_SEP}({_NUMBER}))?\s*\.?\s*", re.I)


def find_clicks(text: str) -> list[RawClick]:
    """Every click of the answer with its box; empty when there is none."""
    answer = _after_thinking(text)
    if answer is None or len(answer) > _MAX_CHARS:
        return []
    for find in (_from_json, _from_calls, _from_tags, _from_text):
        points, boxes = find(answer)
        if points or boxes:
            return _pair(points, boxes)
    return []


def _pair(points: list[Numbers], boxes: list[Numbers]) -> list[RawClick]:
    """Clicks with the element's box; several boxes beside one point leave open which element is meant."""
    points, boxes = _unique(points), _unique(boxes)
    pairs: list[RawClick]
    if not points:
        pairs = [(_centre(box), box) for box in boxes]
    elif len(boxes) > 1:
        pairs = [(points[0], box) for box in boxes]
    else:
        pairs = [(point, boxes[0] if boxes and len(points) == 1 else None) for point in points]
    return pairs[:_MAX_CLICKS]


def _after_thinking(text: str) -> str | None:
    """What follows the last closed thinking part; None when thinking never ends."""
    head, closed, tail = text.rpartition("</think>")
    if "<think>" in tail:
        return None
    return tail if closed else text


def _from_json(text: str) -> tuple[list[Numbers], list[Numbers]]:
    points: list[Numbers] = []
    boxes: list[Numbers] = []
    for value in _json_values(text):
        _collect(value, points, boxes)
    return points, boxes


def _json_values(text: str) -> Iterator[Any]:
    """Outermost JSON objects and lists of objects in the text, wherever they stand."""
    decoder = json.JSONDecoder()
    position = 0
    while (match := _JSON_START.search(text, position)) is not None:
        try:
            value, position = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            position = match.start() + 1
            continue
        yield value


def _collect(value: Any, points: list[Numbers], boxes: list[Numbers], depth: int = 0) -> None:
    if depth > 8:
        return
    if isinstance(value, list):
        for item in value:
            if isinstance(item, (dict, list)):
                _collect(item, points, boxes, depth + 1)
    elif isinstance(value, dict):
        _collect_object(value, points, boxes, depth)


def _collect_object(value: dict[str, Any], points: list[Numbers], boxes: list[Numbers], depth: int) -> None:
    lowered = {str(key).lower(): item for key, item in value.items()}
    xy = _number_list([lowered.get("x"), lowered.get("y")])
    if xy is not None:
        points.append(xy)
    corners = _number_list([lowered.get(key) for key in ("x1", "y1", "x2", "y2")])
    if corners is not None:
        boxes.append(corners)
    for key, item in lowered.items():
        numbers = _number_list(item) if key in _POINT_KEYS + _BOX_KEYS else None
        if numbers is not None and len(numbers) in (2, 4):
            (points if len(numbers) == 2 else boxes).append(numbers)
        elif isinstance(item, (dict, list)):
            _collect(item, points, boxes, depth + 1)
        elif isinstance(item, str) and key == "arguments":  # a tool call's arguments may be JSON in a string
            for inner in _json_values(item):
                _collect(inner, points, boxes, depth + 1)


def _number_list(value: Any) -> Numbers | None:
    """A flat list of numbers, also inside one more list or in a string such as "(10, 20)"."""
    if isinstance(value, str):
        numbers = _numbers(value)
        return numbers if re.fullmatch(r"[\s()\[\],;.\d+\-eE]*", value) and numbers else None
    if not isinstance(value, list) or not value:
        return None
    if all(isinstance(item, list) for item in value):
        flat = [number for item in value for number in item]
        return _number_list(flat) if len(flat) <= 4 else None
    try:
        return [float(item) for item in value if not isinstance(item, bool)]
    except (TypeError, ValueError, OverflowError):
        return None


def _from_calls(text: str) -> tuple[list[Numbers], list[Numbers]]:
    points: list[Numbers] = []
    boxes: list[Numbers] = []
    for match in _CALL.finditer(text):
        _sort_in(_call_numbers(match.group(1)), points, boxes)
    if points or boxes:  # a box tag beside a call is the element's box
        boxes.extend(_from_tags(text)[1])
    return points, boxes


def _call_numbers(arguments: str) -> Numbers:
    """Coordinates of a call: by name where they are named, else the first numbers before any named option."""
    named = {name.lower(): float(number) for name, number in _KEYWORD.findall(arguments)}
    for names in (("x", "y"), ("x1", "y1", "x2", "y2")):
        if all(name in named for name in names):
            return [named[name] for name in names]
    positional = re.split(r"\b(?!start_box|point|coordinate|box|bbox|position|pos|at)[a-zA-Z_]\w*\s*=(?!=)", arguments)[
        0
    ]
    numbers = _numbers(positional)
    is_box = bool(re.search(r"box", arguments)) or len(numbers) == 4
    return numbers[:4] if is_box and len(numbers) >= 4 else numbers[:2]


def _from_tags(text: str) -> tuple[list[Numbers], list[Numbers]]:
    points: list[Numbers] = []
    boxes: list[Numbers] = []
    for match in _TAG.finditer(text):
        numbers = _numbers(match.group(1))
        for start in range(0, len(numbers) - len(numbers) % 4, 4) if len(numbers) > 4 else [0]:
            _sort_in(numbers[start : start + 4], points, boxes)
    for x, y in _POINT_ATTRIBUTES.findall(text):
        points.append([float(x), float(y)])
    return points, boxes


def _from_text(text: str) -> tuple[list[Numbers], list[Numbers]]:
    points: list[Numbers] = []
    boxes: list[Numbers] = []
    boxes.extend([float(g) for g in match.groups()] for match in _BARE_CORNERS.finditer(text))
    rest = _BARE_CORNERS.sub(" ", text)
    for match in _BARE_GROUP.finditer(rest):
        _sort_in(_numbers(match.group(1)), points, boxes)
    whole = _BARE_LINE.fullmatch(text[:300]) if not points and not boxes else None
    if whole is not None:
        _sort_in([float(g) for g in whole.groups() if g is not None], points, boxes)
    named = {n.lower(): float(v) for n, v in _KEYWORD.findall(text)} if not points and not boxes else {}
    if "x" in named and "y" in named:
        points.append([named["x"], named["y"]])
    return points, boxes


def _sort_in(numbers: Numbers, points: list[Numbers], boxes: list[Numbers]) -> None:
    if len(numbers) == 2:
        points.append(numbers)
    elif len(numbers) == 4:
        boxes.append(numbers)


def _numbers(text: str) -> Numbers:
    return [float(number) for number in _NUMBERS.findall(text)]


def _centre(box: Numbers) -> Numbers:
    return [box[0] / 2 + box[2] / 2, box[1] / 2 + box[3] / 2]  # halves first: the sum may overflow


def _unique(items: list[Numbers]) -> list[Numbers]:
    return [item for i, item in enumerate(items) if item not in items[:i]]
