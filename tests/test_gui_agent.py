"""Episodes on the simulated device: its rules, what counts as an action, and what an episode earns."""

import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.gui_episode import episode_metrics
from rl.gui.agent import parse_action, replay, run_episode
from rollouts.environment import Action, Environment
from rollouts.screens.device import SimulatedDevice
from rollouts.screens.element import Kind

KINDS = st.sampled_from(["phone", "desktop"])
SEEDS = st.integers(0, 10_000)
SIZE = (360, 640)


def written(action):
    if action.kind == "click":
        return f"click({action.point[0]}, {action.point[1]})"
    return f'{action.kind}("{action.text}")' if action.kind == "type" else f"{action.kind}({action.text})"


def expert(device):
    return lambda observation: written(device.best_action())


@given(KINDS, SEEDS)
@settings(max_examples=15, deadline=None)
def test_the_shortest_way_completes_the_task_and_earns_one_per_click_and_two(kind, seed):
    device = SimulatedDevice(kind)
    episode = run_episode(device, expert(device), seed=seed)
    outcome = episode.outcome
    assert outcome.completed and outcome.num_steps == device.shortest_path
    # app, person, save, ok, and one click for each field; nothing else is a click
    assert outcome.num_clicks == outcome.num_hits == 4 + len(device.task.form)
    assert outcome.reward == outcome.num_clicks + 2.0
    assert episode_metrics([outcome])["gui/step_efficiency"] == 1.0
    assert episode.last.finished


@given(KINDS, SEEDS, st.integers(0, 2**32))
@settings(max_examples=15, deadline=None)
def test_after_any_wandering_without_saving_the_best_actions_still_complete_the_task(kind, seed, wander):
    device, rng = SimulatedDevice(kind), random.Random(wander)
    device.reset(seed)
    for _ in range(12):
        elements = [e for e in device.elements() if e.is_target and e.concept != "confirm"]
        action = rng.choice([
            Action("click", point=rng.choice(elements).centre), Action("type", text="x"), Action("scroll", text="down"),
            Action("back"), Action("scroll", text="up"), Action("unreadable"), Action("click", point=(0.0, 0.0)),
        ])  # fmt: skip
        device.step(action)
    for _ in range(25):
        device.step(device.best_action())
    assert device.completed and device.state.is_done


def test_a_claim_of_being_done_is_not_believed():
    device = SimulatedDevice()
    episode = run_episode(device, lambda observation: "done()", seed=1)
    assert (episode.outcome.completed, episode.outcome.reward, len(episode.steps)) == (False, -0.5, 1)


def test_the_step_limit_ends_an_episode_without_the_penalty_for_stopping():
    device = SimulatedDevice()
    episode = run_episode(device, lambda observation: "I do not know", seed=1, max_steps=3)
    assert episode.outcome.reward == -3.0  # three unreadable answers where a click was due
    assert not episode.last.finished


def test_saving_something_else_puts_the_goal_out_of_reach():
    device = SimulatedDevice()
    device.reset(4)
    wrong = next(app for app in device.task.apps if app != device.task.app)

    def click(**wanted):
        (element,) = [e for e in device.elements() if all(getattr(e, k) == v for k, v in wanted.items())]
        device.step(Action("click", point=element.centre))

    click(concept=wrong)
    click(text=device.task.people[0])
    click(concept="save")
    click(concept="confirm")
    assert device.best_action() == Action("done")
    assert not device.completed


def test_nothing_is_saved_before_ok_and_cancel_goes_back_to_the_form():
    device = SimulatedDevice("desktop")
    device.reset(3)
    while device.state.place != "question":
        device.step(device.best_action())
    assert not device.completed and not device.state.saved
    before = device.state.form
    (cancel,) = [e for e in device.elements() if e.concept == "cancel"]
    device.step(Action("click", point=cancel.centre))
    assert (device.state.place, device.state.form) == ("form", before)


def test_a_click_beside_everything_typing_without_a_field_and_what_comes_after_done_change_nothing():
    device = SimulatedDevice("desktop")
    device.reset(0)
    start = device.state
    for action in (
        Action("click", point=(799, 599)),
        Action("type", text="x"),
        Action("scroll", text="down"),
        Action("unreadable"),
    ):
        device.step(action)
        assert device.state == start
    device.step(device.best_action())
    inside = device.state
    for name in ("minimise", "maximise"):
        (control,) = [e for e in device.elements() if e.concept == name]
        device.step(Action("click", point=control.centre))
        assert device.state == inside
    device.step(Action("done"))
    done = device.state
    device.step(Action("back"))
    assert device.state == done


def test_scrolling_shows_every_person_once_and_stops_at_the_ends():
    device = SimulatedDevice()
    device.reset(5)
    device.step(Action("click", point=next(e for e in device.elements() if e.kind is Kind.APP).centre))
    seen = []
    for _ in range(4):
        seen += [e.text for e in device.elements() if e.kind is Kind.ROW and e.text not in seen]
        device.step(Action("scroll", text="down"))
    assert seen == list(device.task.people)
    for _ in range(4):
        device.step(Action("scroll", text="up"))
    assert device.state.first_row == 0


def test_the_picture_is_the_state():
    device = SimulatedDevice()
    first = device.reset(6).image.tobytes()
    assert device.reset(6).image.tobytes() == first
    device.step(device.best_action())
    assert device.step(Action("back")).image.tobytes() == first
    assert device.reset(7).image.tobytes() != first


@pytest.mark.parametrize(
    ("answer", "action"),
    [
        ("click(10, 20)", Action("click", point=(10, 20))),
        ('<think>click(1, 1) or back()</think>type("Ada (3, 4)")', Action("type", text="Ada (3, 4)")),
        ("type('x')", Action("type", text="x")),
        ('type("")', Action("type", text="")),
        ("scroll(down)", Action("scroll", text="down")),
        ('scroll("up")', Action("scroll", text="up")),
        ("scroll(left)", Action("unreadable")),
        ("back()", Action("back")),
        ("I am done().", Action("done")),
        ("back() back()", Action("back")),
        ("back() done()", Action("unreadable")),
        ("click(1, 2) done()", Action("unreadable")),
        ("click(1, 2) click(30, 40)", Action("unreadable")),
        ("<think>click(1, 2)", Action("unreadable")),
        ("Let me see. <think>back()", Action("unreadable")),
        ("", Action("unreadable")),
    ],
)
def test_one_answer_is_one_action(answer, action):
    assert parse_action(answer, image_size=SIZE) == action


def test_a_click_in_shares_of_the_screen_is_turned_into_pixels():
    assert parse_action("click(0.5, 0.25)", image_size=SIZE, coordinate_space="unit").point == (180, 160)


def test_numbers_that_are_typed_are_no_click():
    device = SimulatedDevice()
    device.reset(1)
    x1, y1, x2, y2 = device.target_box
    hit = f'type("({(x1 + x2) / 2}, {(y1 + y2) / 2})")'
    episode = run_episode(device, lambda observation: hit, seed=1, max_steps=1)
    assert (episode.outcome.num_hits, episode.outcome.reward) == (0, -1.0)


class Button:
    """A device of someone else: one button, no idea of the shortest path."""

    def __init__(self):
        from PIL import Image

        from rollouts.environment import Observation

        self.see = lambda: Observation(Image.new("RGB", (50, 50)), "Press it.", self.finished)

    def reset(self, seed):
        self.finished = self.completed = False
        self.target_box, self.shortest_path = None, None
        return self.see()

    def step(self, action):
        self.completed = self.completed or action.kind == "click"
        self.finished = action.kind == "done"
        return self.see()


def test_an_environment_needs_only_the_protocol():
    device: Environment = Button()
    answers = iter(["click(1, 1)", "done()"])
    episode = run_episode(device, lambda observation: next(answers), seed=0)
    assert (episode.outcome.completed, episode.outcome.reward, episode.outcome.num_clicks) == (True, 2.0, 0)


def test_a_replay_has_a_picture_for_each_step_and_the_end():
    device = SimulatedDevice()
    episode = run_episode(device, expert(device), seed=2)
    sheet = replay(episode, columns=3, width=120)
    rows = -(-(len(episode.steps) + 1) // 3)
    assert sheet.width == 3 * 130
    assert sheet.height > rows * 120 * 640 // 360


def test_the_episode_in_the_docs_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parent.parent / "docs" / "screens.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", page, flags=re.M | re.S)
    exec(compile(code, "docs/screens.md", "exec"), {})
    assert "completed=True" in capsys.readouterr().out
    assert (tmp_path / "replay.png").stat().st_size > 1000
