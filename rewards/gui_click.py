r"""Rewards for clicking the right place on a screen.

What one answer earns (all five numbers are arguments; +2.0 and -0.5 need a whole episode, see episode_reward):

    | answer                                                            | outcome    | reward |
    |-------------------------------------------------------------------|------------|--------|
    | its click lies in the target (edges included)                     | hit        | +1.0   |
    | its click misses, its predicted box has IoU > 0.5 with the target | near       | +0.5   |
    | its click misses                                                  | miss       | -1.0   |
    | no click can be read, or it has no finite coordinates             | unreadable | -1.0   |
    | two or more different clicks                                      | ambiguous  | -1.0   |
    | a step that has no target, such as typing (target_box None)       | no click   | None   |

The click of an answer that gives only a box is the box's centre. Such an answer can never be "near": if the centre
of a box lies outside the target, then so does the half of the box on the far side of that edge, the overlap is at
most half the box, and IoU <= 0.5. The +0.5 therefore needs a click given beside a box, or a clickable region that is
smaller than the element's box (column `click_box`: the click is judged by it, the overlap by `target_box`).

What numbers mean is never guessed from their size: (1, 1) is a pixel, a corner and a permille all at once.
`coordinate_space` says which; `input_size` gives the size of the resized image when pixels count on that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from rewards.click_text import find_clicks
from rewards.completions import completion_text, per_row

Space = Literal["pixels", "unit", "grid1000", "percent"]
Point = tuple[float, float]
Box = tuple[float, float, float, float]

_FULL_SCALE: Mapping[str, float] = {"unit": 1.0, "percent": 100.0, "grid1000": 1000.0}


class ClickOutcome(StrEnum):
    """How one click ended."""

    HIT = "hit"
    NEAR = "near"
    MISS = "miss"
    UNREADABLE = "unreadable"
    AMBIGUOUS = "ambiguous"


@dataclass(frozen=True)
class Click:
    """Where an answer clicks, in screen pixels; `box` is the element's box if the answer gives one."""

    point: Point
    box: Box | None = None


def gui_click_reward(
    completions: Sequence[Any],
    target_box: Any,
    image_size: Any,
    *,
    coordinate_space: Any = "pixels",
    input_size: Any = None,
    click_box: Any = None,
    hit: float = 1.0,
    near: float = 0.5,
    wrong: float = -1.0,
    near_iou: float = 0.5,
    log_metric: Callable[[str, float], None] | None = None,
    log_extra: Callable[[str, list[Any]], None] | None = None,
    **columns: Any,
) -> list[float | None]:
    """+1.0 inside the target, +0.5 beside it with a matching box, -1.0 otherwise; see the table above.

    Args:
        completions: answers, as text or message lists.
        target_box: [x1, y1, x2, y2] of each row in screen pixels; None where the step needs no click.
        image_size: [width, height] of each row's screen in pixels.
        coordinate_space: "pixels", "unit" (0 to 1), "percent" (0 to 100) or "grid1000" (0 to 1000), one for all
            rows or a column.
        input_size: [width, height] of the resized image that "pixels" refer to; one for all rows or a column.
        click_box: clickable region where it is smaller than the element's box; one or a column.
        hit, near, wrong: the published values.
        near_iou: an overlap must be above this to count as near.

    Returns:
        one of hit, near, wrong for each completion; None for rows without a target.

    Raises:
        ValueError: a target box, image size or coordinate space is malformed: that is the data's fault, not the
            answer's.
    """
    num_rows = len(completions)
    outcomes = [
        None if target is None else judge_click(text, target, size, space, resized, region, near_iou)
        for text, target, size, space, resized, region in zip(
            map(completion_text, completions),
            per_row("target_box", target_box, num_rows, nested=True),
            per_row("image_size", image_size, num_rows, nested=True),
            per_row("coordinate_space", coordinate_space, num_rows),
            per_row("input_size", input_size, num_rows, nested=True),
            per_row("click_box", click_box, num_rows, nested=True),
        )
    ]
    _log(outcomes, log_metric, log_extra)
    values = {ClickOutcome.HIT: hit, ClickOutcome.NEAR: near}
    return [None if outcome is None else values.get(outcome, wrong) for outcome in outcomes]


def judge_click(
    text: str,
    target_box: Sequence[float],
    image_size: Sequence[float],
    coordinate_space: Space = "pixels",
    input_size: Sequence[float] | None = None,
    click_box: Sequence[float] | None = None,
    near_iou: float = 0.5,
) -> ClickOutcome:
    """How the click in one answer ended."""
    target = check_box("target_box", target_box)
    region = target if click_box is None else check_box("click_box", click_box)
    clicks = read_clicks(text, image_size=image_size, coordinate_space=coordinate_space, input_size=input_size)
    if not clicks:
        return ClickOutcome.UNREADABLE
    if len(clicks) > 1:
        return ClickOutcome.AMBIGUOUS
    click = clicks[0]
    if contains(region, click.point):
        return ClickOutcome.HIT
    if click.box is not None and box_iou(click.box, target) > near_iou:
        return ClickOutcome.NEAR
    return ClickOutcome.MISS


def parse_click(
    text: str,
    *,
    image_size: Sequence[float],
    coordinate_space: Space = "pixels",
    input_size: Sequence[float] | None = None,
) -> Click | None:
    """The one click that an answer makes, in screen pixels.

    None when there is no click, when a coordinate is not finite, and when the answer clicks in several places.
    Text inside <think>...</think> is not an answer. A click may lie off the screen: it is wrong, not unreadable.

    Raises:
        ValueError: image_size, input_size or coordinate_space is malformed.
    """
    clicks = read_clicks(text, image_size=image_size, coordinate_space=coordinate_space, input_size=input_size)
    return clicks[0] if len(clicks) == 1 else None


def read_clicks(
    text: str,
    *,
    image_size: Sequence[float],
    coordinate_space: Space = "pixels",
    input_size: Sequence[float] | None = None,
) -> list[Click]:
    """The different clicks of an answer, in screen pixels; empty when none can be read."""
    scale_x, scale_y = pixel_scale(image_size, coordinate_space, input_size)
    clicks: list[Click] = []
    for numbers, box_numbers in find_clicks(text):
        point = (numbers[0] * scale_x, numbers[1] * scale_y)
        box = (
            None if box_numbers is None else _ordered_box([n * s for n, s in zip(box_numbers, (scale_x, scale_y) * 2)])
        )
        if not all(map(math.isfinite, point)) or (box and not all(map(math.isfinite, box))):
            return []
        click = Click(point, box)
        if click not in clicks:
            clicks.append(click)
    return clicks


def pixel_scale(
    image_size: Sequence[float], coordinate_space: Space = "pixels", input_size: Sequence[float] | None = None
) -> tuple[float, float]:
    """What to multiply (x, y) by to get screen pixels."""
    width, height = _check_size("image_size", image_size)
    if coordinate_space == "pixels":
        in_width, in_height = _check_size("input_size", input_size) if input_size is not None else (width, height)
        return width / in_width, height / in_height
    if coordinate_space not in _FULL_SCALE:
        allowed = ", ".join(["pixels", *_FULL_SCALE])
        raise ValueError(f"coordinate_space {coordinate_space!r} is unknown; allowed are {allowed}")
    full = _FULL_SCALE[coordinate_space]
    return width / full, height / full


def box_iou(a: Any, b: Any) -> float:
    """Intersection over union in [0, 1]; 0.0 for anything that is not two proper finite boxes."""
    if not (is_proper_box(a) and is_proper_box(b)):
        return 0.0
    overlap = _span(a[0], a[2], b[0], b[2]) * _span(a[1], a[3], b[1], b[3])
    union = _area(a) + _area(b) - overlap
    if not (math.isfinite(union) and union > 0.0):  # areas may overflow, or vanish, in floating point
        return 0.0
    return min(1.0, max(0.0, overlap / union))


def is_proper_box(box: Any) -> bool:
    """True for four finite numbers x1 < x2, y1 < y2."""
    if not isinstance(box, (list, tuple)) or len(box) != 4:
        return False
    if not all(isinstance(n, (int, float)) and abs(n) <= 1e300 for n in box):  # also False for NaN
        return False
    return bool(box[0] < box[2] and box[1] < box[3])


def contains(box: Sequence[float], point: Point) -> bool:
    """Whether the point lies in the box, edges included."""
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]


def check_box(name: str, box: Any) -> Box:
    """The box as four floats.

    Raises:
        ValueError: it is not x1 <= x2, y1 <= y2, all finite.
    """
    numbers = as_numbers(box, 4)
    if numbers is None or not (numbers[0] <= numbers[2] and numbers[1] <= numbers[3]):
        raise ValueError(f"{name} {box!r} is not [x1, y1, x2, y2] with x1 <= x2, y1 <= y2, all finite")
    return numbers[0], numbers[1], numbers[2], numbers[3]


def as_numbers(values: Any, count: int) -> list[float] | None:
    """`count` finite floats, or None."""
    try:
        numbers = [float(v) for v in values]
    except (TypeError, ValueError, OverflowError):
        return None
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else None


def episode_reward(
    click_outcomes: Sequence[float | None],
    *,
    completed: bool,
    terminated_early: bool,
    completion_bonus: float = 2.0,
    early_penalty: float = -0.5,
) -> float:
    """The reward of a multi-step task: its steps' click rewards, plus what the task's outcome adds.

        | the environment says            | adds                                                          |
        |---------------------------------|---------------------------------------------------------------|
        | completed                       | +2.0, also when a click on the way was wrong                  |
        | not completed, stopped early    | -0.5                                                          |
        | completed and "stopped early"   | +2.0 alone: a task that is done cannot be stopped too early   |
        | neither (the step limit)        | nothing                                                       |

    Args:
        click_outcomes: reward of each step's click; None for a step without a click, which adds nothing.
        completed: what the environment says; never the model's own claim.
        terminated_early: the model ended the episode itself, before the task was done.

    Raises:
        ValueError: a click reward is not finite.
    """
    rewards = [float(reward) for reward in click_outcomes if reward is not None]
    if not all(map(math.isfinite, rewards)):
        raise ValueError(f"click rewards must be finite, not {rewards}")
    outcome = completion_bonus if completed else early_penalty if terminated_early else 0.0
    return sum(rewards) + outcome


def _ordered_box(numbers: Sequence[float]) -> Box:
    """Corners may be given in either order."""
    x1, y1, x2, y2 = numbers
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def _check_size(name: str, size: Any) -> tuple[float, float]:
    numbers = as_numbers(size, 2)
    if numbers is None or min(numbers) <= 0:
        raise ValueError(f"{name} {size!r} is not [width, height], both positive")
    return numbers[0], numbers[1]


def _span(a1: float, a2: float, b1: float, b2: float) -> float:
    return max(0.0, min(a2, b2) - max(a1, b1))


def _area(box: Sequence[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _log(
    outcomes: Sequence[ClickOutcome | None],
    log_metric: Callable[[str, float], None] | None,
    log_extra: Callable[[str, list[Any]], None] | None,
) -> None:
    judged = [outcome for outcome in outcomes if outcome is not None]
    if log_extra is not None:
        log_extra("click", [None if outcome is None else str(outcome) for outcome in outcomes])
        log_extra("gui/grounding_accuracy", [None if o is None else float(o is ClickOutcome.HIT) for o in outcomes])
        log_extra("gui/unreadable", [None if o is None else float(o is ClickOutcome.UNREADABLE) for o in outcomes])
    elif log_metric is not None and judged:
        log_metric("gui/grounding_accuracy", judged.count(ClickOutcome.HIT) / len(judged))
        log_metric("gui/unreadable", judged.count(ClickOutcome.UNREADABLE) / len(judged))
