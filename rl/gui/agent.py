"""An agent in an environment: its text becomes actions, its episode a score, and its way a strip of pictures."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw

from rewards.gui_click import Space, parse_click
from rewards.gui_episode import EpisodeOutcome, StepOutcome, score_episode
from rl.errors import UserError
from rollouts.environment import Action, Box, Environment, Observation
from rollouts.screens.canvas import font, line_height
from rollouts.tasks.device import open_environment

Agent = Callable[[Observation], str]
"""what the model writes for an observation"""

_CALL = re.compile(r"\b(type|scroll|back|done)\(\s*(?:\"([^\"]*)\"|'([^']*)'|(up|down))?\s*\)")


@dataclass(frozen=True)
class Step:
    """One turn: what was seen, written and done."""

    observation: Observation
    answer: str
    action: Action
    target_box: Box | None
    """of the click that was due; None where none was, or where the environment does not know"""


@dataclass(frozen=True)
class Episode:
    """A whole task."""

    steps: tuple[Step, ...]
    last: Observation
    outcome: EpisodeOutcome


def parse_action(
    answer: str,
    *,
    image_size: Sequence[float],
    coordinate_space: Space = "pixels",
    input_size: Sequence[float] | None = None,
) -> Action:
    """The one action of an answer: click(x, y) in any form that the click reward reads, type("text"), scroll(up),
    scroll(down), back() or done(). Text inside <think>...</think> is no action; two different actions are unreadable.
    """
    tail = answer.rpartition("</think>")[2]
    visible = "" if "<think>" in tail else tail
    calls = {(m[1], m[2] if m[2] is not None else m[3] or m[4] or "") for m in _CALL.finditer(visible)}
    without = _CALL.sub(" ", visible)
    click = parse_click(without, image_size=image_size, coordinate_space=coordinate_space, input_size=input_size)
    if click is not None and not calls:
        return Action("click", point=click.point)
    if click is not None or len(calls) != 1:
        return Action("unreadable")
    ((name, text),) = calls
    if name == "type":
        return Action("type", text=text)
    if name == "scroll":
        return Action("scroll", text=text) if text in ("up", "down") else Action("unreadable")
    return Action("back") if name == "back" else Action("done")


def run_episode(
    environment: Environment,
    agent: Agent,
    *,
    seed: int,
    max_steps: int = 20,
    coordinate_space: Space = "pixels",
    input_size: Sequence[float] | None = None,
) -> Episode:
    """One task from its start until the agent says `done` or `max_steps` are taken.

    The environment alone says whether the task is completed. Where a click was due, a click and an unreadable answer
    are judged as such, typing, scrolling and going back count as no readable click; `done` is judged by the end alone.
    """
    observation = environment.reset(seed)
    size = observation.image.size
    steps: list[Step] = []
    while not observation.finished and len(steps) < max_steps:
        target = environment.target_box
        answer = agent(observation)
        action = parse_action(answer, image_size=size, coordinate_space=coordinate_space, input_size=input_size)
        steps.append(Step(observation, answer, action, target))
        observation = environment.step(action)
    outcome = score_episode(
        [_step_outcome(step) for step in steps],
        image_size=size,
        completed=environment.completed,
        terminated_early=observation.finished and not environment.completed,
        coordinate_space=coordinate_space,
        input_size=input_size,
        shortest_path=environment.shortest_path,
    )
    return Episode(tuple(steps), observation, outcome)


def replayed(row: Mapping[str, Any]) -> Episode:
    """An episode of a run's log once more: the same task, the same answers.

    Raises:
        UserError: its environment is not here, or no longer takes as many steps.
    """
    answers, told = iter(row["turns"]), row["episode"]
    try:
        environment = open_environment(told["environment"])
        return run_episode(
            environment,
            lambda observation: next(answers),
            seed=told["environment_seed"],
            max_steps=len(row["turns"]),
            coordinate_space=told["coordinate_space"],
        )
    except (ValueError, KeyError) as error:
        raise UserError(f"the episode cannot be played again: {error}") from None


def _step_outcome(step: Step) -> StepOutcome:
    if step.action.kind == "done":
        return StepOutcome(step.answer, None)
    # The text that is typed may hold numbers; they are no click.
    return StepOutcome(step.answer if step.action.kind in ("click", "unreadable") else "", step.target_box)


def replay(episode: Episode, *, columns: int = 4, width: int = 300) -> Image.Image:
    """Every screen that was seen, with the click (blue) and the target (red), and the last one."""
    frames = [(_frame(step), f"{place}. {step.answer}") for place, step in enumerate(episode.steps, start=1)]
    outcome = "completed" if episode.outcome.completed else "not completed"
    frames.append((episode.last.image, f"{outcome}, reward {episode.outcome.reward:+.1f}"))
    height = round(max(image.height / image.width for image, _ in frames) * width)
    foot = line_height(13) + 8
    rows = math.ceil(len(frames) / columns)
    sheet = Image.new("RGB", (columns * (width + 10), foot + rows * (height + foot)), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((4, 2), episode.last.instruction, fill="black", font=font(13), anchor="la")
    for place, (image, caption) in enumerate(frames):
        x, y = place % columns * (width + 10), foot + place // columns * (height + foot)
        sheet.paste(image.resize((width, round(image.height / image.width * width)), Image.Resampling.LANCZOS), (x, y))
        draw.text((x + 4, y + height + 2), caption[:60], fill="black", font=font(13), anchor="la")
    return sheet


def _frame(step: Step) -> Image.Image:
    image = step.observation.image.copy()
    draw = ImageDraw.Draw(image)
    if step.target_box is not None:
        x1, y1, x2, y2 = step.target_box
        draw.rectangle((x1 - 2, y1 - 2, x2 + 1, y2 + 1), outline="#e00030", width=3)
    if step.action.point is not None:
        x, y = step.action.point
        for arm, colour, thick in ((14, "white", 8), (12, "#0060ff", 4)):
            draw.line((x - arm, y, x + arm, y), fill=colour, width=thick)
            draw.line((x, y - arm, x, y + arm), fill=colour, width=thick)
    return image
