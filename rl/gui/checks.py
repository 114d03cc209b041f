"""What is wrong with rows of screens and clicks, before a model is loaded: boxes, and what coordinates mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import get_args

from rewards.gui_click import Space, as_numbers
from rl.recipe import RewardSection
from rollouts.rows import Row
from rollouts.trajectory import images_of

# Rewards that read coordinates from what the policy wrote.
_CLICK_REWARDS = ("gui_click", "gui_iou", "gui_giou", "gui_gaussian")


def click_problems(rows: Sequence[Row], reward: RewardSection, key: str, source: str) -> Iterator[str]:
    """`key.args: what is wrong` of a click reward on these rows, of the first bad row.

    Rows with images must say what the numbers of a click mean; in rows of text alone they are the prompt's own.
    """
    if reward.fn not in _CLICK_REWARDS:
        return
    allowed = ", ".join(get_args(Space))
    for number, row in enumerate(rows, start=1):
        where = f"{source!r}: row {number}"
        space = row.get("coordinate_space", reward.args.get("coordinate_space"))
        prompt = row.get("prompt")
        if space is None and isinstance(prompt, list) and images_of(prompt):
            yield (
                f"{key}.args: {where}: {reward.fn} on screenshots needs coordinate_space, which says what the numbers "
                f"of a click mean (or a column of that name): {allowed}"
            )
            return
        if space is not None and space not in get_args(Space):
            whose = f"{where}: " if "coordinate_space" in row else ""
            yield f"{key}.args: {whose}coordinate_space {space!r} is unknown; allowed are {allowed}"
            return
        problem = box_problem(row.get("target_box"), row.get("image_size"))
        if problem is not None:
            yield f"{key}: {where}: {problem}"
            return


def box_problem(box: object, size: object) -> str | None:
    """What is wrong with a target; None where nothing is."""
    corners, extent = as_numbers(box, 4), as_numbers(size, 2)
    if corners is None:
        return f"target_box {box!r} is not [x1, y1, x2, y2] in pixels"
    if extent is None or min(extent) <= 0:
        return f"image_size {size!r} is not [width, height] in pixels"
    x1, y1, x2, y2 = corners
    if x1 > x2 or y1 > y2:
        return f"target_box {box!r} is inverted; [x1, y1, x2, y2] with x1 < x2 and y1 < y2 is expected"
    if x1 == x2 or y1 == y2:
        return f"target_box {box!r} is empty; [x1, y1, x2, y2] with x1 < x2 and y1 < y2 is expected"
    if min(x1, y1) < 0 or x2 > extent[0] or y2 > extent[1]:
        return f"target_box {box!r} is outside the image of {extent[0]:g} x {extent[1]:g} pixels"
    return None
