"""Other rewards for pointing at things: plain IoU, GIoU, and a smooth one by distance.

All are bounded and finite for every answer. An unreadable answer, or one with several clicks, earns the lowest value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from rewards.completions import completion_text, per_row
from rewards.gui_click import Box, Click, box_iou, check_box, is_proper_box, parse_click

Score = Callable[[Click, Box], float]


def gui_iou_reward(
    completions: Sequence[Any],
    target_box: Any,
    image_size: Any,
    *,
    coordinate_space: Any = "pixels",
    input_size: Any = None,
    **columns: Any,
) -> list[float | None]:
    """IoU of the predicted box and the target, in [0, 1]; 0.0 for an answer without a box."""
    return _score_rows(completions, target_box, image_size, coordinate_space, input_size, _iou, lowest=0.0)


def gui_giou_reward(
    completions: Sequence[Any],
    target_box: Any,
    image_size: Any,
    *,
    coordinate_space: Any = "pixels",
    input_size: Any = None,
    **columns: Any,
) -> list[float | None]:
    """Generalized IoU of the predicted box and the target, in [-1, 1]; -1.0 for an answer without a box."""
    return _score_rows(completions, target_box, image_size, coordinate_space, input_size, _giou, lowest=-1.0)


def gui_gaussian_reward(
    completions: Sequence[Any],
    target_box: Any,
    image_size: Any,
    *,
    coordinate_space: Any = "pixels",
    input_size: Any = None,
    sigma_scale: float = 0.5,
    coverage_weight: float = 0.0,
    **columns: Any,
) -> list[float | None]:
    """A Gaussian of the click's distance from the target's centre, in [0, 1]: dense where hit or miss is sparse.

        point = exp(-((x - cx)^2 / (2 sx^2) + (y - cy)^2 / (2 sy^2))),  sx = sigma_scale * width, sy = ... * height

    With coverage_weight w > 0 an answer that gives a box earns (1 - w) * point + w * coverage, where coverage is the
    Bhattacharyya coefficient of the two boxes' Gaussians (1 for equal boxes).

    In the manner of GUI-G2, https://arxiv.org/abs/2507.15846 (its sigma adapts to the element's size likewise; the
    weighting of its two terms is an argument here).

    Args:
        sigma_scale: standard deviation in units of the target's width and height; above 0.
        coverage_weight: in [0, 1].
    """
    if not sigma_scale > 0 or not 0 <= coverage_weight <= 1:
        raise ValueError(f"sigma_scale {sigma_scale} must be above 0 and coverage_weight {coverage_weight} in [0, 1]")

    def score(click: Click, target: Box) -> float:
        value = gaussian_point(click.point, target, sigma_scale)
        if click.box is None or coverage_weight == 0.0:
            return value
        return (1 - coverage_weight) * value + coverage_weight * gaussian_coverage(click.box, target, sigma_scale)

    return _score_rows(completions, target_box, image_size, coordinate_space, input_size, score, lowest=0.0)


def box_giou(a: Any, b: Any) -> float:
    """Generalized IoU in [-1, 1]: IoU minus the share of the enclosing box that neither covers.

    -1.0 for anything that is not two proper finite boxes. Source: Rezatofighi et al. 2019,
    https://arxiv.org/abs/1902.09630, algorithm 1.
    """
    if not (is_proper_box(a) and is_proper_box(b)):
        return -1.0
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    if not (math.isfinite(hull) and hull > 0.0 and math.isfinite(areas) and areas > 0.0):
        return -1.0
    iou = box_iou(a, b)
    union = areas / (1.0 + iou)  # iou = (areas - union) / union
    return min(1.0, max(-1.0, iou - (hull - union) / hull))


def gaussian_point(point: tuple[float, float], target: Box, sigma_scale: float) -> float:
    """exp of minus half the squared distance from the target's centre in units of sigma; in [0, 1]."""
    distance = sum(
        ((at - (low / 2 + high / 2)) / _sigma(low, high, sigma_scale)) ** 2
        if abs(at) < 1e150 and abs(low) < 1e150 and abs(high) < 1e150
        else math.inf
        for at, low, high in zip(point, target[:2], target[2:])
    )
    return math.exp(-distance / 2)


def gaussian_coverage(box: Box, target: Box, sigma_scale: float) -> float:
    """Bhattacharyya coefficient of the Gaussians that two boxes stand for; in [0, 1]."""
    coefficient = 1.0
    for low, high, t_low, t_high in zip(box[:2], box[2:], target[:2], target[2:]):
        if max(abs(low), abs(high), abs(t_low), abs(t_high)) > 1e75:
            return 0.0
        s1, s2 = _sigma(low, high, sigma_scale), _sigma(t_low, t_high, sigma_scale)
        spread = s1 * s1 + s2 * s2
        shift = (low + high - t_low - t_high) / 2
        coefficient *= math.sqrt(min(1.0, 2 * s1 * s2 / spread)) * math.exp(-shift * shift / (4 * spread))
    return coefficient


def _sigma(low: float, high: float, scale: float) -> float:
    return max((high - low) * scale, 1e-3)  # a target without extent still has a centre; a thousandth of a pixel


def _score_rows(
    completions: Sequence[Any],
    target_box: Any,
    image_size: Any,
    coordinate_space: Any,
    input_size: Any,
    score: Score,
    *,
    lowest: float,
) -> list[float | None]:
    num_rows = len(completions)
    values: list[float | None] = []
    for completion, target, size, space, resized in zip(
        completions,
        per_row("target_box", target_box, num_rows, nested=True),
        per_row("image_size", image_size, num_rows, nested=True),
        per_row("coordinate_space", coordinate_space, num_rows),
        per_row("input_size", input_size, num_rows, nested=True),
    ):
        if target is None:
            values.append(None)
            continue
        text = completion_text(completion)
        click = parse_click(text, image_size=size, coordinate_space=space, input_size=resized)
        values.append(lowest if click is None else score(click, check_box("target_box", target)))
    return values


def _iou(click: Click, target: Box) -> float:
    return box_iou(click.box, target)


def _giou(click: Click, target: Box) -> float:
    return box_giou(click.box, target)
