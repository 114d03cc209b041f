"""A task of several steps on a screen: its reward, and what is measured over many of them.

gui_episode_reward([["click(15, 15)", "click(95, 5)"]], [[[10, 10, 20, 20], [90, 0, 99, 9]]], [100, 100], [True])
    ->  [1.0 + 1.0 + 2.0]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from rewards.completions import completion_text, per_row
from rewards.gui_click import ClickOutcome, Space, episode_reward, judge_click


@dataclass(frozen=True)
class StepOutcome:
    """One action of an episode: what the model wrote, and the target it should have clicked."""

    action: str
    target_box: Sequence[float] | None  # screen pixels; None for a step that needs no click
    click_box: Sequence[float] | None = None  # clickable region where it is smaller than the element


@dataclass(frozen=True)
class EpisodeOutcome:
    """What one episode came to."""

    reward: float
    completed: bool  # what the environment said
    num_steps: int
    num_clicks: int  # steps that had a target
    num_hits: int
    shortest_path: int | None = None  # steps of the shortest way to complete the task, if it is known


def gui_episode_reward(
    completions: Sequence[Any],
    target_boxes: Sequence[Any],
    image_size: Any,
    completed: Any,
    *,
    terminated_early: Any = False,
    shortest_path: Any = None,
    coordinate_space: Any = "pixels",
    input_size: Any = None,
    hit: float = 1.0,
    near: float = 0.5,
    wrong: float = -1.0,
    completion_bonus: float = 2.0,
    early_penalty: float = -0.5,
    log_metric: Callable[[str, float], None] | None = None,
    log_extra: Callable[[str, list[Any]], None] | None = None,
    **columns: Any,
) -> list[float | None]:
    """The clicks of each episode, +2.0 for a completed task, -0.5 for one given up early; see score_episode.

    Args:
        completions: of each row the actions in order: a list of texts, or of messages, whose assistant turns count.
        target_boxes: of each row one box per action in screen pixels, None for an action that needs no click. Actions
            beyond the list are steps without a target; targets beyond the actions were never tried and earn nothing.
        image_size: [width, height] of the screen; one for all rows or a column.
        completed, terminated_early: what the environment says; one for all rows or a column. None: the outcome is not
            known, and the row has no reward.
        shortest_path: steps of the shortest way, if it is known; one for all rows or a column.
    """
    num_rows = len(completions)
    episodes = [
        None if done is None else score_episode(
            [StepOutcome(action, box) for action, box in _steps(actions(completion), boxes or [])],
            image_size=size, completed=bool(done), terminated_early=bool(early), coordinate_space=space,
            input_size=resized, shortest_path=path, hit=hit, near=near, wrong=wrong,
            completion_bonus=completion_bonus, early_penalty=early_penalty,
        )
        for completion, boxes, size, done, early, path, space, resized in zip(
            completions,
            per_row("target_boxes", target_boxes, num_rows),
            per_row("image_size", image_size, num_rows, nested=True),
            per_row("completed", completed, num_rows),
            per_row("terminated_early", terminated_early, num_rows),
            per_row("shortest_path", shortest_path, num_rows),
            per_row("coordinate_space", coordinate_space, num_rows),
            per_row("input_size", input_size, num_rows, nested=True),
        )
    ]  # fmt: skip
    _log(episodes, log_metric, log_extra)
    return [None if episode is None else episode.reward for episode in episodes]


def actions(completion: Any) -> list[str]:
    """The actions of one episode: each text, or each assistant turn of a message list; a bare text is one action."""
    if isinstance(completion, Sequence) and not isinstance(completion, str):
        turns = [t for t in completion if not isinstance(t, dict) or t.get("role", "assistant") == "assistant"]
        return [completion_text(turn) for turn in turns]
    return [completion_text(completion)]


def _steps(texts: Sequence[str], boxes: Sequence[Any]) -> list[tuple[str, Any]]:
    return list(zip_longest(texts, boxes[: len(texts)]))


def _log(
    episodes: Sequence[EpisodeOutcome | None],
    log_metric: Callable[[str, float], None] | None,
    log_extra: Callable[[str, list[Any]], None] | None,
) -> None:
    """Per episode where the caller takes one entry a row, since averages of averages would weigh batches alike."""
    of_each = [{} if episode is None else episode_metrics([episode]) for episode in episodes]
    if log_extra is not None:
        for name in sorted({name for metrics in of_each for name in metrics}):
            log_extra(name, [metrics.get(name) for metrics in of_each])
    elif log_metric is not None:
        for name, value in episode_metrics([episode for episode in episodes if episode is not None]).items():
            log_metric(name, value)


def score_episode(
    steps: Sequence[StepOutcome],
    *,
    image_size: Sequence[float],
    completed: bool,
    terminated_early: bool,
    coordinate_space: Space = "pixels",
    input_size: Sequence[float] | None = None,
    shortest_path: int | None = None,
    hit: float = 1.0,
    near: float = 0.5,
    wrong: float = -1.0,
    completion_bonus: float = 2.0,
    early_penalty: float = -0.5,
) -> EpisodeOutcome:
    """Score a list of actions and the task's outcome; only the environment says `completed`.

    A step without a target earns nothing, whatever it does. What a finished and early-stopped episode adds is in the
    table of episode_reward.
    """
    outcomes = [
        judge_click(step.action, step.target_box, image_size, coordinate_space, input_size, step.click_box)
        for step in steps
        if step.target_box is not None
    ]
    values = {ClickOutcome.HIT: hit, ClickOutcome.NEAR: near}
    reward = episode_reward(
        [values.get(outcome, wrong) for outcome in outcomes],
        completed=completed,
        terminated_early=terminated_early,
        completion_bonus=completion_bonus,
        early_penalty=early_penalty,
    )
    num_hits = outcomes.count(ClickOutcome.HIT)
    return EpisodeOutcome(reward, completed, len(steps), len(outcomes), num_hits, shortest_path)


def episode_metrics(episodes: Sequence[EpisodeOutcome]) -> dict[str, float]:
    """Grounding accuracy, task completion rate and step efficiency over episodes; only what there is data for.

    gui/grounding_accuracy: hits per click that was due, over all steps.
    gui/steps_per_completed_task: mean number of steps of completed episodes.
    gui/step_efficiency: mean of shortest path / steps over completed episodes, in (0, 1]; 1 is a shortest path.
    """
    metrics: dict[str, float] = {}
    num_clicks = sum(episode.num_clicks for episode in episodes)
    if num_clicks:
        metrics["gui/grounding_accuracy"] = sum(episode.num_hits for episode in episodes) / num_clicks
    completed = [episode for episode in episodes if episode.completed]
    if episodes:
        metrics["gui/task_completion_rate"] = len(completed) / len(episodes)
    if completed:
        metrics["gui/steps_per_completed_task"] = sum(episode.num_steps for episode in completed) / len(completed)
    ratios = [min(1.0, e.shortest_path / e.num_steps) for e in completed if e.shortest_path and e.num_steps]
    if ratios:
        metrics["gui/step_efficiency"] = sum(ratios) / len(ratios)
    return metrics
