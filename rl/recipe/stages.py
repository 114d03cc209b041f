"""The four kinds of stages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator

from rl.recipe.algorithm import AlgorithmSection, CriticSection, OptimizerSection, algorithm_problems
from rl.recipe.rewards import RewardSection
from rl.recipe.sampling import EpisodeSection, LongTailSection, OnlineMessagesSection, SamplingSection
from rl.recipe.section import NonNegativeFloat, Positive, PositiveFloat, Section, Share
from rl.recipe.sources import MessageCacheSource, Source, WeightedSource


class SftPhase(Section):
    """A part of an sft stage with its own mixture of sources."""

    steps: Positive
    sources: Annotated[list[WeightedSource], Field(min_length=1)]


class SftStage(Section):
    """Supervised fine-tuning on `prompt` and `completion`: the loss counts the completion's tokens."""

    kind: Literal["sft"]
    phases: Annotated[list[SftPhase], Field(min_length=1)]
    batch_size: Positive
    """rows per optimizer step"""
    max_length: Positive
    """longer rows are an error that names the row"""
    optimizer: OptimizerSection

    @property
    def num_steps(self) -> int:
        """Optimizer steps of all phases."""
        return sum(phase.steps for phase in self.phases)


class RlStage(Section):
    """PPO on prompts that rewards can score."""

    kind: Literal["rl"]
    iterations: Positive
    prompts: Annotated[list[WeightedSource], Field(min_length=1)]
    prompts_per_iteration: Positive
    samples_per_prompt: Positive
    sampling: SamplingSection
    rewards: Annotated[list[RewardSection], Field(min_length=1)]
    algorithm: AlgorithmSection = AlgorithmSection()
    policy: OptimizerSection
    critic: CriticSection | None = None
    success: float = 1.0
    """the metric accuracy counts rewards of at least this"""
    online_messages: OnlineMessagesSection | None = None
    """train synthesis on messages of the current policy"""
    episodes: EpisodeSection | None = None
    """the prompts of the stage have an environment, see the task `device`"""
    long_tail: LongTailSection | None = None
    """partial rollouts"""
    keep_best: str | None = None
    """an evaluation with the key every: the stage hands on the policy that scored highest on it, of those measured"""

    @property
    def trajectories_per_iteration(self) -> int:
        """Responses sampled and scored in one iteration."""
        return self.prompts_per_iteration * self.samples_per_prompt

    @model_validator(mode="after")
    def _consistent(self) -> RlStage:
        problems = [*_rl_problems(self)]
        if problems:
            raise ValueError("\n".join(problems))
        return self


class LoraSection(Section):
    """Low-rank adapters on the backbone, merged into the saved model; the scalar head is trained in full."""

    rank: Positive = 16
    alpha: Positive = 32
    """the adapters' output is scaled by alpha / rank"""
    dropout: Share = 0.0
    target_modules: list[str] = []
    """ends of the names of the adapted layers; empty: every linear layer but the head"""


class EarlyStopSection(Section):
    """Keep the weights with the lowest loss on pairs kept aside, and stop when it no longer falls."""

    num_pairs: Positive = 256
    """taken from the training pairs, on prompts of their own; the accuracy is measured on other pairs"""
    evaluate_every: Positive
    """optimizer steps between measurements"""
    patience: Positive = 3
    """measurements in a row without improvement before training stops"""
    min_improvement: NonNegativeFloat = 0.0
    """of the loss, in nats per pair; less counts as none"""


class PreferenceModelStage(Section):
    """A reward model (a backbone and a scalar head) trained by TRL on pairs `chosen`, `rejected`.

    A column `margin` says by how much `chosen` is better; it is subtracted from the difference of the scores."""

    kind: Literal["preference_model"]
    pairs: Source
    num_pairs: Positive
    """pairs that are trained on"""
    num_held_out: Positive
    """pairs that measure accuracy, on other prompts than the training pairs"""
    start: str | None = None
    """folder or hub name of a language model, a classifier or a reward model to start from; not given: the policy"""
    members: Positive = 1
    """models that differ in the seed of head and order; a reward over several is an ensemble"""
    epochs: PositiveFloat = 1.0
    batch_size: Positive
    learning_rate: PositiveFloat
    warmup_share: Share = 0.05
    """of all optimizer steps; linear, from 0"""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """down to 0"""
    weight_decay: NonNegativeFloat = 0.0
    max_length: Positive
    """tokens of prompt and response; pairs with a longer side are left out and counted"""
    center_rewards_coefficient: NonNegativeFloat = 0.0
    """times the mean square of the sum of a pair's scores, added to the loss: keeps scores around 0"""
    lora: LoraSection | None = None
    early_stop: EarlyStopSection | None = None


class MessageCacheStage(Section):
    """Many graded answers per problem, the material of PaCoRe's synthesis prompts."""

    kind: Literal["message_cache"]
    prompts: WeightedSource
    num_problems: Positive
    samples_per_prompt: Positive
    """answers per problem"""
    problems_at_once: Positive = 64
    """problems that are sampled, graded and written together: what a kill loses and what is held in memory, at most;
    times samples_per_prompt it should be several times what all engines decode at once, or they wait for the last"""
    sampling: SamplingSection
    rewards: Annotated[list[RewardSection], Field(min_length=1)]
    success: float = 1.0
    """an answer is right when its reward is at least this"""
    conclusion: str | None = None
    """regular expression whose last match is kept of an answer; not given: what follows the last </think>"""
    above: Annotated[float, Field(ge=-1, lt=1)] = 0.0
    """a problem is kept when the share of right answers is above this: nothing helps where all are wrong"""
    below: Annotated[float, Field(gt=0)] = 1.0
    """and below this: naive aggregation suffices where most are right"""
    domain_column: str | None = None
    """column that names a problem's domain, for below_by_domain and for the counts that are printed"""
    below_by_domain: dict[str, Annotated[float, Field(gt=0)]] = {}
    """in place of `below` for the problems of these domains"""
    grade_responses: bool = False
    """grade the texts of a row's `responses` (PaCoRe-Train's layout) instead of sampling answers"""

    @property
    def samples_syntheses(self) -> bool:
        """True for a second pass: syntheses of an earlier cache are sampled, and its problems filtered by them."""
        return isinstance(self.prompts.source, MessageCacheSource)

    @model_validator(mode="after")
    def _consistent(self) -> MessageCacheStage:
        if self.below_by_domain and self.domain_column is None:
            raise ValueError("below_by_domain: needs domain_column, the column that holds the domain")
        if self.grade_responses and self.samples_syntheses:
            raise ValueError("grade_responses: a second pass samples syntheses; it has no ready responses")
        return self


Stage = Annotated[SftStage | RlStage | PreferenceModelStage | MessageCacheStage, Field(discriminator="kind")]


def _rl_problems(stage: RlStage) -> Iterator[str]:
    total, algorithm = stage.trajectories_per_iteration, stage.algorithm
    if total % algorithm.minibatches:
        yield (
            f"algorithm.minibatches: {algorithm.minibatches} does not divide prompts_per_iteration * "
            f"samples_per_prompt = {stage.prompts_per_iteration} * {stage.samples_per_prompt} = {total}"
        )
    if stage.critic and total % stage.critic.minibatches:
        yield (
            f"critic.minibatches: {stage.critic.minibatches} does not divide prompts_per_iteration * "
            f"samples_per_prompt = {stage.prompts_per_iteration} * {stage.samples_per_prompt} = {total}"
        )
    if (algorithm.advantage == "gae") != (stage.critic is not None):
        yield f"critic: advantage gae needs a critic section, {algorithm.advantage} takes none"
    if stage.critic and stage.critic.optimizer.ema_decay is not None:
        yield "critic.optimizer.ema_decay: only the policy has a moving average"
    if (algorithm.compares_samples or algorithm.refill_rounds) and stage.samples_per_prompt < 2:
        key = algorithm.advantage if algorithm.compares_samples else "refill_rounds"
        yield f"samples_per_prompt: {key} compares samples of one prompt and needs at least 2"
    yield from algorithm_problems(algorithm)
    if algorithm.reference_reset_every and not algorithm.needs_reference:
        yield "algorithm.reference_reset_every: there is no reference; set a KL coefficient or measure_kl"
    if stage.sampling.temperature == 0 or stage.sampling.top_k == 1:
        yield "sampling: an rl stage needs temperature > 0 and top_k other than 1: greedy responses teach nothing"
    labels = [reward.label for reward in stage.rewards]
    for label in sorted({label for label in labels if labels.count(label) > 1}):
        yield f"rewards: two rewards have the label {label!r}; give one of them a name"
    for mixed in stage.prompts:
        for label in mixed.rewards:
            if label not in labels:
                yield f"prompts: {mixed.label!r} names the reward {label!r}; the stage has {', '.join(labels)}"
    if stage.episodes is not None and stage.online_messages is not None:
        yield "episodes: an episode is no problem that online_messages could be written for"
    sources = [mixed.label for mixed in stage.prompts]
    for label in stage.online_messages.sources if stage.online_messages else []:
        if label not in sources:
            yield f"online_messages.sources: {label!r} is not a source of the stage; there are: {', '.join(sources)}"


def sources_of(stage: Stage) -> list[Source]:
    """Every source of rows that a stage reads."""
    if isinstance(stage, SftStage):
        return [mixed.source for phase in stage.phases for mixed in phase.sources]
    if isinstance(stage, RlStage):
        return [mixed.source for mixed in stage.prompts]
    if isinstance(stage, PreferenceModelStage):
        return [stage.pairs]
    return [stage.prompts.source]
