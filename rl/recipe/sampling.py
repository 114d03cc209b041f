"""How responses come about: one by one, in episodes, with a long tail, or with messages written first."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rl.recipe.section import NonNegative, NonNegativeFloat, Positive, Section
from rollouts.pacore import SYNTHESIS_TEMPLATE


class SamplingSection(Section):
    """How responses are sampled."""

    temperature: NonNegativeFloat = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: NonNegative = 0
    """0 keeps every token"""
    max_tokens: Positive
    """upper bound of sampled tokens per response"""
    stop: list[str] = []


class EpisodeSection(Section):
    """Prompts are first screens of tasks: the policy acts on what it sees until it is done, and one trajectory holds
    all its turns, with the screens between them masked from the loss."""

    max_steps: Positive = 20
    coordinate_space: Literal["pixels", "unit", "percent", "grid1000"]
    """what the numbers of a click mean"""


class LongTailSection(Section):
    """More prompts are under way than an iteration learns from: it takes those that are complete first, and the last
    responses are not waited for. Which are first depends on the time, so such a stage does not repeat bit for bit."""

    extra_prompts: Positive
    """prompts under way beyond prompts_per_iteration"""
    rest: Literal["continue", "drop"] = "continue"
    """continue: the others go on in the next iteration, under its weights; drop: they are given up, which favours
    prompts with short responses"""
    max_staleness: Positive = 4
    """updates; a response with an older token begins anew"""


class OnlineMessagesSection(Section):
    """Problems become synthesis prompts with answers that the policy writes in the same iteration, without a cache."""

    sources: list[str] = []
    """labels of the sources whose problems get messages; empty: all"""
    samples_per_prompt: Positive
    """answers per problem"""
    messages: tuple[Positive, Positive]
    """lowest and highest number of messages in a prompt, both included; drawn uniformly for each prompt"""
    sampling: SamplingSection
    template: str = SYNTHESIS_TEMPLATE
    """jinja2; sees `problem` and `messages`"""
    conclusion: str | None = None
    """regular expression; see the message_cache stage"""
    overflow: Literal["drop", "shorten"] = "drop"
    """what becomes of messages that leave no room for the response; see a message_cache source"""

    @model_validator(mode="after")
    def _enough(self) -> OnlineMessagesSection:
        low, high = self.messages
        if not low <= high <= self.samples_per_prompt:
            most = self.samples_per_prompt
            raise ValueError(f"messages: {[low, high]}: lowest <= highest <= samples_per_prompt {most}")
        return self


class SynthesisSection(Section):
    """Measure one PaCoRe round: `width` answers, one synthesis that has read them."""

    width: Positive
    template: str = SYNTHESIS_TEMPLATE
    """jinja2; sees `problem` and `messages`"""
    conclusion: str | None = None
    """regular expression; see the message_cache stage"""
    max_tokens: Positive
    """of the synthesis"""
