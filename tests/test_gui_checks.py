"""Rows of clicks that cannot be right are told by row before anything starts."""

import re

import pytest

from rl.gui.checks import box_problem, click_problems
from rl.recipe import RewardSection

PICTURE = [{"role": "user", "content": [{"type": "image", "image": "a.png"}, {"type": "text", "text": "Click OK"}]}]
GOOD = {"prompt": PICTURE, "target_box": [1, 2, 5, 6], "image_size": [10, 10], "coordinate_space": "pixels"}
TEXT = {"prompt": "Click OK", "target_box": [1, 2, 5, 6], "image_size": [10, 10]}


def told(row, **args):
    reward = RewardSection(fn="gui_click", args=args)
    return list(click_problems([GOOD, row], reward, "rewards.0", "screens.jsonl"))


def test_good_rows_have_no_problem():
    assert told(GOOD) == [] and told(TEXT) == []
    assert told({**GOOD, "coordinate_space": "grid1000"}) == []
    without = {key: value for key, value in GOOD.items() if key != "coordinate_space"}
    assert told(without, coordinate_space="unit") == []


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([5, 2, 1, 6], "inverted"),
        ([1, 6, 5, 2], "inverted"),
        ([1, 2, 1, 6], "empty"),
        ([-1, 2, 5, 6], "outside the image of 10 x 10"),
        ([1, 2, 5, 11], "outside the image of 10 x 10"),
        ([1, 2, 5], r"is not \[x1, y1, x2, y2\]"),
        (None, r"is not \[x1, y1, x2, y2\]"),
        ([1, 2, float("nan"), 6], r"is not \[x1, y1, x2, y2\]"),
    ],
)
def test_a_bad_box_is_told_with_its_row(box, message):
    (problem,) = told({**GOOD, "target_box": box})
    assert problem.startswith("rewards.0: 'screens.jsonl': row 2: target_box")
    assert re.search(message, problem)


def test_screenshots_without_a_coordinate_space_are_refused_and_an_unknown_one_too():
    without = {key: value for key, value in GOOD.items() if key != "coordinate_space"}
    (problem,) = told(without)
    assert problem.startswith("rewards.0.args: 'screens.jsonl': row 2: gui_click on screenshots needs coordinate_space")
    assert "grid1000" in problem
    (problem,) = told({**without, "coordinate_space": None})
    assert "row 2: gui_click on screenshots needs coordinate_space" in problem
    reward = RewardSection(fn="gui_click", args={"coordinate_space": "inch"})
    (problem,) = click_problems([without], reward, "rewards.0", "screens.jsonl")
    assert problem.startswith("rewards.0.args: coordinate_space 'inch' is unknown")
    (problem,) = told({**GOOD, "coordinate_space": "inches"})
    assert "row 2: coordinate_space 'inches' is unknown" in problem


def test_other_rewards_are_not_asked_for_boxes():
    assert list(click_problems([{"prompt": PICTURE}], RewardSection(fn="math"), "rewards.0", "x")) == []
    assert box_problem([0, 0, 10, 10], [10, 10]) is None
