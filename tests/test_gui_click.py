"""Reading clicks out of text, and what they earn."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.gui_click import (
    Click,
    ClickOutcome,
    box_iou,
    contains,
    episode_reward,
    gui_click_reward,
    judge_click,
    parse_click,
    read_clicks,
)
from rewards.gui_episode import EpisodeOutcome, StepOutcome, episode_metrics, gui_episode_reward, score_episode
from rewards.gui_variants import (
    box_giou,
    gaussian_coverage,
    gaussian_point,
    gui_gaussian_reward,
    gui_giou_reward,
    gui_iou_reward,
)
from rewards.testing import check_reward

SCREEN = (1000, 500)
POINT = Click((100.0, 200.0))
BOX = Click((200.0, 300.0), (100.0, 200.0, 300.0, 400.0))
BESIDE = Click((110.0, 210.0), (100.0, 200.0, 300.0, 400.0))

FORMS = [
    ("click(100, 200)", POINT),
    ("click(x=100, y=200)", POINT),
    ("Click (100,200)", POINT),
    ("pyautogui.click(x=100, y=200)", POINT),
    ("pyautogui.click(100, 200, clicks=2, button='left')", POINT),
    ("pyautogui.doubleClick(x=100, y=200)", POINT),
    ("computer.left_click(x=100.0, y=2e2)", POINT),
    ("Action: tap(100, 200)", POINT),
    ("click([100, 200])", POINT),
    ("click(point='<point>100 200</point>')", POINT),
    ("click(start_box='<|box_start|>(100,200)<|box_end|>')", POINT),
    ("click(start_box='(100,200)')", POINT),
    ("click(start_box='[100, 200, 300, 400]')", BOX),
    ("click(box=[100,200,300,400])", BOX),
    ("<point>100 200</point>", POINT),
    ("<point>100, 200</point>", POINT),
    ("<point>(100, 200)</point>", POINT),
    ('<point x="100" y="200" alt="ok">ok</point>', POINT),
    ("<|point_start|>(100,200)<|point_end|>", POINT),
    ("<click>100, 200</click>", POINT),
    ("<box>[[100, 200, 300, 400]]</box>", BOX),
    ("<box>100 200 300 400</box>", BOX),
    ("<box>(100,200),(300,400)</box>", BOX),
    ("<|box_start|>(100,200),(300,400)<|box_end|>", BOX),
    ("<|object_ref_start|>ok<|object_ref_end|><|box_start|>(100,200),(300,400)<|box_end|>", BOX),
    ('{"point_2d": [100, 200], "label": "ok"}', POINT),
    ('{"bbox_2d": [100, 200, 300, 400]}', BOX),
    ('```json\n[{"bbox_2d": [100, 200, 300, 400], "label": "ok"}]\n```', BOX),
    ('{"action": "click", "coordinate": [100, 200]}', POINT),
    ('{"action": "click", "coordinate": "(100, 200)"}', POINT),
    ('{"x": 100, "y": 200}', POINT),
    ("{'x': 100, 'y': 200}", POINT),
    ('{"bbox": {"x1": 100, "y1": 200, "x2": 300, "y2": 400}}', BOX),
    ('<tool_call>\n{"name": "mouse", "arguments": {"action": "click", "coordinate": [100, 200]}}\n</tool_call>', POINT),
    ('{"name": "click", "arguments": "{\\"x\\": 100, \\"y\\": 200}"}', POINT),
    ("The button is at (100, 200).", POINT),
    ("(100, 200)", POINT),
    ("[100, 200]", POINT),
    ("100, 200", POINT),
    ("100 200", POINT),
    ("x=100, y=200", POINT),
    ("[100, 200, 300, 400]", BOX),
    ("(100,200),(300,400)", BOX),
    ("<think>maybe click(1, 2)</think>click(100, 200)", POINT),
    ("click(100, 200)\nAs said: click(100, 200)", POINT),
    ("<|box_start|>(100,200),(300,400)<|box_end|> click(110, 210)", BESIDE),
    ("tap(110, 210)\n<box>100 200 300 400</box>", BESIDE),
    ('{"point_2d": [110, 210], "bbox_2d": [100, 200, 300, 400]}', BESIDE),
    ("<point>110 210</point> in <box>100 200 300 400</box>", BESIDE),
    ("<box>300 400 100 200</box>", BOX),
]  # fmt: skip


@pytest.mark.parametrize(("text", "click"), FORMS, ids=[text[:40] for text, _ in FORMS])
def test_every_common_form_is_read(text, click):
    assert parse_click(text, image_size=SCREEN) == click


@pytest.mark.parametrize(
    "text",
    [
        "", "no click here", "click()", "click(100)", "click(nan, 3)", "click(1e999, 2)", "(1, 2) or (3, 4)",
        '{"point_2d": [NaN, 1]}', '{"point_2d": ["a", "b"]}', '{"coordinate": null}', "<think>click(1, 2)",
        "click(1, 2) click(3, 4)", "I waited 100 ms and typed 200 words", "bbox_2d", "1" + "0" * 400 + ", 5",
        '{"bbox_2d": [0, 0, Infinity, 1]}', "<box>[[nan, nan, nan, nan]]</box>",
        '[{"point_2d": [1, 2]}, {"point_2d": [3, 4]}]',
    ],
)  # fmt: skip
def test_what_is_not_one_finite_click_is_none(text):
    assert parse_click(text, image_size=SCREEN) is None


def test_numbers_mean_what_the_row_says():
    read = lambda text, **options: parse_click(text, image_size=(1000, 500), **options).point  # noqa: E731
    assert read("(1, 1)") == (1.0, 1.0)
    assert read("(1, 1)", coordinate_space="unit") == (1000.0, 500.0)
    assert read("(1, 1)", coordinate_space="percent") == (10.0, 5.0)
    assert read("(1, 1)", coordinate_space="grid1000") == (1.0, 0.5)
    # 250/500 of the width, 125/250 of the height
    assert read("(250, 125)", input_size=(500, 250)) == (500.0, 250.0)
    # a grid does not depend on the size the model saw
    assert read("(500, 500)", coordinate_space="grid1000", input_size=(28, 28)) == (500.0, 250.0)


@pytest.mark.parametrize(
    "options",
    [
        {"coordinate_space": "inches"}, {"image_size": (0, 5)}, {"image_size": None}, {"input_size": (-1, 5)},
        {"image_size": (math.nan, 5)},
    ],
)  # fmt: skip
def test_a_malformed_row_is_an_error_not_a_wrong_click(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        parse_click("(1, 1)", **{"image_size": SCREEN, **options})


def earned(text: str, target=(100, 100, 200, 200), **options) -> float | None:
    return gui_click_reward([text], [target], [[1000, 500]], **options)[0]


def test_the_published_values():
    assert earned("click(150, 150)") == 1.0
    assert earned("click(300, 300)") == -1.0
    # IoU of [110, 100, 200, 200] with the target is 9000 / 10000 = 0.9; the click is 5 pixels outside
    assert earned("click(95, 150) <box>110 100 200 200</box>") == 0.5
    # IoU of [0, 100, 200, 200] with the target is 10000 / 20000 = 0.5: not above 0.5
    assert earned("click(95, 150) <box>0 100 200 200</box>") == -1.0
    assert earned("nothing") == -1.0
    assert earned("click(150, 150) click(160, 160)") == -1.0
    assert earned("click(150, 150)", target=None) is None


def test_edges_belong_to_the_target():
    assert [earned(f"click({x}, {y})") for x, y in [(100, 100), (200, 200), (100, 200)]] == [1.0] * 3
    assert [earned(f"click({x}, {y})") for x, y in [(99.999, 150), (150, 200.001)]] == [-1.0] * 2


def test_the_five_numbers_are_arguments():
    values = {"hit": 3.0, "near": 2.0, "wrong": -7.0}
    assert earned("click(150, 150)", **values) == 3.0
    assert earned("click(95, 150) <box>100 100 200 200</box>", **values) == 2.0
    assert earned("click(5, 5)", **values) == -7.0
    assert episode_reward([1.0], completed=True, terminated_early=False, completion_bonus=5.0) == 6.0
    assert episode_reward([], completed=False, terminated_early=True, early_penalty=-3.0) == -3.0


def test_a_clickable_region_smaller_than_the_element_judges_the_click():
    options = {"target": (100, 100, 200, 200), "click_box": [[140, 140, 160, 160]]}
    assert earned("click(150, 150)", **options) == 1.0
    assert earned("click(110, 110)", **options) == -1.0
    # A box-only answer can be near here: the centre (150, 165) misses the region, IoU = 70/100 by height
    assert earned("<box>100 130 200 200</box>", **options) == 0.5


def test_columns_and_single_values_are_both_accepted():
    texts = ["(0.15, 0.3)", "(150, 300)"]
    boxes, sizes = [[100, 100, 200, 200]] * 2, [[1000, 500]] * 2
    assert gui_click_reward(texts, boxes, sizes, coordinate_space=["unit", "grid1000"]) == [1.0, 1.0]
    assert gui_click_reward(texts, boxes, [1000, 500], coordinate_space=["unit", "grid1000"]) == [1.0, 1.0]
    message = [{"role": "assistant", "content": "click(150, 150)"}]
    assert gui_click_reward([message], [[100, 100, 200, 200]], [[1000, 500]]) == [1.0]
    with pytest.raises(ValueError, match="target_box"):
        gui_click_reward(["click(1, 1)"], [[200, 200, 100, 100]], [[1000, 500]])
    with pytest.raises(ValueError, match="entries"):
        gui_click_reward(["click(1, 1)"], boxes, sizes)


def test_the_click_metrics():
    extra = {}
    gui_click_reward(
        ["click(150, 150)", "click(1, 1)", "?", "typing"], [[100, 100, 200, 200]] * 3 + [None], [[1000, 500]] * 4,
        log_extra=extra.__setitem__,
    )  # fmt: skip
    assert extra["click"] == ["hit", "miss", "unreadable", None]
    assert extra["gui/grounding_accuracy"] == [1.0, 0.0, 0.0, None]


coordinates = st.floats(allow_nan=True, allow_infinity=True) | st.integers(-10, 1100).map(float)
any_box = st.tuples(coordinates, coordinates, coordinates, coordinates)
pixels = st.integers(-50, 1050)
proper_box = st.tuples(pixels, pixels, st.integers(1, 900), st.integers(1, 900)).map(
    lambda b: (float(b[0]), float(b[1]), float(b[0] + b[2]), float(b[1] + b[3]))
)


@given(proper_box, proper_box)
def test_a_box_alone_whose_centre_is_its_click_is_never_near(box, target):
    # If the centre lies outside the target, at least half of the box does: IoU <= 1/2, and near needs more.
    outcome = judge_click(f"<box>{' '.join(map(str, box))}</box>", target, (1000, 1000))
    assert outcome in (ClickOutcome.HIT, ClickOutcome.MISS)


@given(any_box, any_box)
def test_iou_and_giou_are_bounded_finite_and_symmetric_for_any_eight_numbers(a, b):
    iou, giou = box_iou(a, b), box_giou(a, b)
    assert 0.0 <= iou <= 1.0
    assert -1.0 <= giou <= 1.0
    assert giou <= iou + 1e-9
    assert box_iou(b, a) == iou


@given(proper_box)
def test_a_box_equals_itself(box):
    assert box_iou(box, box) == 1.0
    assert box_giou(box, box) == pytest.approx(1.0)


box_answers = any_box.map(lambda b: f"<box>[[{b[0]}, {b[1]}, {b[2]}, {b[3]}]]</box>")
click_answers = any_box.map(lambda b: f"click({b[0]}, {b[1]})")


@given(st.text(max_size=60) | box_answers | click_answers, proper_box)
def test_every_variant_is_bounded_and_finite_for_every_answer(text, target):
    row = ([text], [target], [[1000, 1000]])
    assert gui_click_reward(*row)[0] in (1.0, 0.5, -1.0)
    assert 0.0 <= gui_iou_reward(*row)[0] <= 1.0
    assert -1.0 <= gui_giou_reward(*row)[0] <= 1.0
    assert 0.0 <= gui_gaussian_reward(*row)[0] <= 1.0
    assert 0.0 <= gui_gaussian_reward(*row, coverage_weight=0.5)[0] <= 1.0


@given(any_box)
def test_parsed_clicks_are_finite_and_their_boxes_ordered(box):
    for click in read_clicks(
        f"click({box[0]}, {box[1]}) <box>{box[0]} {box[1]} {box[2]} {box[3]}</box>", image_size=SCREEN
    ):
        assert all(map(math.isfinite, click.point))
        assert click.box is None or (all(map(math.isfinite, click.box)) and click.box[0] <= click.box[2])


def test_iou_by_hand():
    # overlap 50 x 100 = 5000; union 10000 + 10000 - 5000 = 15000
    assert box_iou((0, 0, 100, 100), (50, 0, 150, 100)) == pytest.approx(1 / 3)
    assert box_iou((0, 0, 1, 1), (2, 2, 3, 3)) == 0.0
    assert box_iou((0, 0, 100, 100), (100, 100, 0, 0)) == 0.0  # inverted
    assert box_iou((0, 0, 0, 0), (0, 0, 0, 0)) == 0.0  # empty
    assert box_iou((0, 0, math.nan, 1), (0, 0, 1, 1)) == 0.0
    assert box_iou(None, (0, 0, 1, 1)) == 0.0
    # a screen-sized box around a small target: 100 / 500000
    assert box_iou((0, 0, 1000, 500), (0, 0, 10, 10)) == pytest.approx(0.0002)


def test_giou_by_hand():
    # two unit boxes one apart: IoU 0, hull 3 x 1, union 2: 0 - 1/3
    assert box_giou((0, 0, 1, 1), (2, 0, 3, 1)) == pytest.approx(-1 / 3)
    assert box_giou((0, 0, 1, 1), "no box") == -1.0


def test_gaussian_by_hand():
    # half a width off centre with sigma = half the width: exp(-1/2)
    assert gaussian_point((100, 50), (0, 0, 100, 100), 0.5) == pytest.approx(math.exp(-0.5))
    assert gaussian_point((50, 50), (0, 0, 100, 100), 0.5) == 1.0
    assert gaussian_point((1e308, 50), (0, 0, 100, 100), 0.5) == 0.0
    assert gaussian_coverage((0, 0, 10, 10), (0, 0, 10, 10), 0.5) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="sigma_scale"):
        gui_gaussian_reward(["x"], [[0, 0, 1, 1]], [[2, 2]], sigma_scale=0.0)


def test_containment_includes_every_side():
    assert contains((0, 0, 1, 1), (1, 1))
    assert not contains((0, 0, 1, 1), (1.0001, 1))
    assert not contains((0, 0, 1, 1), (math.nan, 0))


def test_an_episode_adds_the_task_outcome_to_its_clicks():
    assert episode_reward([1.0, 0.5, None, -1.0], completed=False, terminated_early=False) == 0.5
    assert episode_reward([1.0, 1.0], completed=True, terminated_early=False) == 4.0
    assert episode_reward([1.0, -1.0], completed=True, terminated_early=False) == 2.0  # through a wrong click
    assert episode_reward([1.0], completed=False, terminated_early=True) == 0.5
    assert episode_reward([1.0], completed=True, terminated_early=True) == 3.0  # done is not too early
    assert episode_reward([], completed=False, terminated_early=False) == 0.0
    with pytest.raises(ValueError, match="finite"):
        episode_reward([math.nan], completed=True, terminated_early=False)


def test_a_trajectory_is_scored_by_its_actions_and_the_environment():
    steps = [
        StepOutcome("click(150, 150)", (100, 100, 200, 200)),
        StepOutcome("type('hello')", None),
        StepOutcome("click(5, 5)", (100, 100, 200, 200)),
        StepOutcome("finished(): the task is completed", None),
    ]
    failed = score_episode(steps, image_size=(1000, 500), completed=False, terminated_early=True, shortest_path=2)
    assert (failed.reward, failed.num_clicks, failed.num_hits) == (1.0 - 1.0 - 0.5, 2, 1)
    done = score_episode(steps, image_size=(1000, 500), completed=True, terminated_early=False, shortest_path=2)
    assert done.reward == 2.0


def test_the_episode_reward_takes_texts_or_messages_and_logs_its_metrics():
    target = [100, 100, 200, 200]
    screen = {"role": "tool", "content": "a screenshot, not the model's words: click(150, 150)"}
    rows = [
        ["click(150, 150)", "type('x')", "click(120, 120)"],
        [{"role": "assistant", "content": "click(5, 5)"}, screen, {"role": "assistant", "content": "done"}],
        "click(150, 150)",
    ]
    logged: dict[str, list] = {}
    rewards = gui_episode_reward(
        completions=rows,
        target_boxes=[[target, None, target], [target], [target, target]],
        image_size=[1000, 500],
        completed=[True, False, None],
        terminated_early=[False, True, False],
        shortest_path=2,
        log_extra=logged.__setitem__,
    )
    assert rewards == [1.0 + 1.0 + 2.0, -1.0 - 0.5, None]
    assert logged == {
        "gui/grounding_accuracy": [1.0, 0.0, None],
        "gui/step_efficiency": [pytest.approx(2 / 3), None, None],
        "gui/steps_per_completed_task": [3.0, None, None],
        "gui/task_completion_rate": [1.0, 0.0, None],
    }


def test_a_target_that_was_never_tried_earns_nothing():
    target = [0, 0, 10, 10]
    options = {"image_size": [100, 100], "completed": False, "terminated_early": True}
    assert gui_episode_reward([["click(5, 5)"]], [[target, target, target]], **options) == [1.0 - 0.5]
    assert gui_episode_reward([[]], [[target]], **options) == [-0.5]


def test_episode_metrics_by_hand():
    episodes = [
        EpisodeOutcome(reward=4.0, completed=True, num_steps=4, num_clicks=2, num_hits=2, shortest_path=2),
        EpisodeOutcome(reward=2.0, completed=True, num_steps=2, num_clicks=2, num_hits=1, shortest_path=2),
        EpisodeOutcome(reward=-1.5, completed=False, num_steps=9, num_clicks=1, num_hits=0, shortest_path=3),
    ]
    # hits 3 of 5 clicks; 2 of 3 tasks; (4 + 2) / 2 steps per completed task; (2/4 + 2/2) / 2
    assert episode_metrics(episodes) == {
        "gui/grounding_accuracy": 0.6,
        "gui/task_completion_rate": pytest.approx(2 / 3),
        "gui/steps_per_completed_task": 3.0,
        "gui/step_efficiency": 0.75,
    }
    assert episode_metrics([]) == {}


def test_the_episode_reward_keeps_the_contract():
    columns = {"target_boxes": [[[0, 0, 10, 10]]], "image_size": [[100, 100]], "completed": [False]}
    check_reward(gui_episode_reward, columns=columns, value_range=(-1.5, 3.0))


@pytest.mark.parametrize("reward", [gui_click_reward, gui_iou_reward, gui_giou_reward, gui_gaussian_reward])
def test_the_rewards_keep_the_contract(reward):
    check_reward(reward, columns={"target_box": [[0, 0, 10, 10]], "image_size": [[100, 100]]}, value_range=(-1.0, 1.0))
