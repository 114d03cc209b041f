"""A task of several steps on a screen: its reward, and what is measured over many of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
