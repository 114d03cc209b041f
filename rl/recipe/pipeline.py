"""One pipeline, whole."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rl.recipe.keeping import NonFiniteSection, SavingSection
from rl.recipe.machines import EngineSection, LearnerSection, RaySection
from rl.recipe.model import ModelSection
from rl.recipe.rewards import RewardSection
from rl.recipe.rules import pipeline_problems
from rl.recipe.sampling import EpisodeSection, SamplingSection, SynthesisSection
from rl.recipe.section import NonNegative, Positive, Section
from rl.recipe.sources import Source
from rl.recipe.stages import Stage


class EvaluationSection(Section):
    """A held-out set, measured before the first and after every stage that changes the policy.

    Its prompts never occur in training: they are left out by content, in every stage."""

    prompts: Source
    num_prompts: Positive
    samples_per_prompt: Positive = 1
    sampling: SamplingSection
    rewards: Annotated[list[RewardSection], Field(min_length=1)]
    measure: Literal["accuracy", "win_rate", "mean_reward"] = "accuracy"
    """win_rate: share of prompts on which the reward beats that of the stage's start, ties count half"""
    success: float = 1.0
    """accuracy counts rewards of at least this"""
    every: Positive | None = None
    """also measured during rl stages, after every so many iterations"""
    synthesis: SynthesisSection | None = None
    episodes: EpisodeSection | None = None
    """see an rl stage"""


class Recipe(Section):
    """One pipeline."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    seed: NonNegative = 0
    model: ModelSection
    engine: EngineSection
    learner: LearnerSection = LearnerSection()
    ray: RaySection = RaySection()
    saving: SavingSection = SavingSection()
    non_finite: NonFiniteSection = NonFiniteSection()
    evaluations: dict[str, EvaluationSection] = {}
    stages: Annotated[dict[str, Stage], Field(min_length=1)]

    @model_validator(mode="after")
    def _stages_fit(self) -> Recipe:
        problems = [*pipeline_problems(self)]
        if problems:
            raise ValueError("\n".join(problems))
        return self


def rewards_of(recipe: Recipe, *, after: str | None = None) -> list[RewardSection]:
    """The rewards of all evaluations and stages, or of those stages that come after one."""
    names = list(recipe.stages)
    later = names if after is None else names[names.index(after) + 1 :]
    parts = [*(recipe.stages[name] for name in later), *recipe.evaluations.values()]
    return [reward for part in parts for reward in getattr(part, "rewards", [])]
