"""PPO and its relatives: estimator, losses, optimizer and critic."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator

from rl.recipe.section import NonNegative, NonNegativeFloat, Positive, PositiveFloat, Section, Share


class OptimizerSection(Section):
    """AdamW and its schedule. `warmup` and the schedule count iterations of an rl stage, steps of an sft stage."""

    learning_rate: PositiveFloat
    vision_learning_rate: NonNegativeFloat | None = None
    """of the vision tower of a model that takes images, under the same schedule; 0 freezes it, null: learning_rate"""
    projector_learning_rate: NonNegativeFloat | None = None
    """of what stands between vision tower and decoder"""
    decoder_learning_rate: NonNegativeFloat | None = None
    """of the decoder, its embeddings and the head"""
    warmup: NonNegative = 0
    """linear, from 0"""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    final_share: Share = 0.0
    """learning rate at the end of a linear or cosine schedule, as a share of learning_rate"""
    betas: tuple[Share, Share] = (0.9, 0.95)
    weight_decay: NonNegativeFloat = 0.0
    max_grad_norm: PositiveFloat = 1.0
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """keep an exponential moving average of the policy's weights, which becomes the policy at the end of the stage;
    null for none"""

    @model_validator(mode="after")
    def _something_learns(self) -> OptimizerSection:
        if (self.vision_learning_rate, self.projector_learning_rate, self.decoder_learning_rate) == (0, 0, 0):
            raise ValueError("vision_learning_rate, projector_learning_rate, decoder_learning_rate: all three are 0")
        return self


class AlgorithmSection(Section):
    """PPO. gamma and gae_lambda are those of the GAE paper, clip_ratio that of the PPO paper."""

    advantage: Literal["gae", "grpo", "rloo", "reinforce_pp", "reinforce_pp_baseline"] = "gae"
    """gae needs a critic; grpo, rloo and reinforce_pp_baseline (REINFORCE++ with the mean of the group taken off)
    compare the samples of a prompt; reinforce_pp, rewards to go whitened over the batch, needs neither"""
    group_std: bool = True
    """grpo divides by the standard deviation of the group; false is Dr. GRPO"""
    gamma: Share = 1.0
    gae_lambda: Share = 1.0
    critic_lambda: Share | None = None
    """lambda of the critic's targets (VAPO's decoupled GAE takes 1); not given: gae_lambda"""
    lambda_alpha: PositiveFloat | None = None
    """VAPO's length-adaptive lambda of the policy, 1 - 1 / (alpha * tokens), in place of gae_lambda; paper: 0.05"""
    whiten_advantages: bool = True
    """mean 0 and variance 1 over the sampled tokens of the batch"""
    minibatches: Positive = 1
    """policy updates per epoch; 1 is strictly on-policy"""
    epochs: Positive = 1
    clip_ratio: PositiveFloat = 0.2
    clip_ratio_high: PositiveFloat | None = None
    """width above 1 (DAPO's clip-higher); not given: clip_ratio"""
    dual_clip: Annotated[float, Field(gt=1, allow_inf_nan=False)] | None = None
    """bound of the loss of a token with negative advantage, as a multiple of it; null for none"""
    loss_average: Literal["token", "response"] = "token"
    """token: every token counts alike (DAPO); response: every response does, whatever its length (GRPO)"""
    value_clip: PositiveFloat | None = 0.2
    """in units of the return; null for none"""
    kl_reward_coef: NonNegativeFloat = 0.0
    """times an estimate of KL to the start of the stage, taken from the reward of each token"""
    kl_reward_estimator: Literal["k1", "k2", "k3"] = "k1"
    kl_loss_coef: NonNegativeFloat = 0.0
    """times an estimate of KL to the start of the stage, added to the loss"""
    kl_loss_estimator: Literal["k2", "k3"] = "k3"
    """k1 is not offered: its gradient is 0 on average"""
    kl_target: PositiveFloat | None = None
    """nats per response: the KL coefficient, kl_reward_coef or kl_loss_coef at first, is adapted to it"""
    kl_horizon: Positive = 10000
    """responses over which the adapted coefficient can change by about a fifth"""
    measure_kl: bool = False
    """keep the reference and log KL to it also where no coefficient needs it"""
    reference_reset_every: NonNegative = 0
    """iterations after which the policy as it is becomes the reference; 0: the reference stays the stage's start"""
    entropy_coef: NonNegativeFloat = 0.0
    """times the entropy, taken from the loss"""
    importance_cap: PositiveFloat | None = None
    """C of truncated importance sampling between engine and trainer; null for none"""
    gap_limit: PositiveFloat | None = None
    """nats per token: responses whose mean log-ratio between trainer and engine is larger are left out"""
    refill_rounds: NonNegative = 0
    """DAPO's dynamic sampling: prompts whose samples all earn the same reward are replaced by new ones, up to so many
    times; 0 keeps them"""
    old_logprobs: Literal["trainer", "rollout"] = "trainer"
    """rollout: trust the engine's log-probs and save a forward pass (float32 engines)"""
    truncated: Literal["terminal", "bootstrap", "masked"] = "terminal"
    """value after the last token of a response that max_tokens cut: 0, or the critic's estimate; masked leaves such
    responses out of the update (DAPO's overlong filtering)"""
    truncated_reward: float | None = None
    """reward of a cut response in place of the sum of its rewards; null keeps the sum"""

    @property
    def compares_samples(self) -> bool:
        """True where the other samples of a prompt are the baseline."""
        return self.advantage in ("grpo", "rloo", "reinforce_pp_baseline")

    @property
    def kl_coef(self) -> float:
        """The one coefficient that kl_target adapts, as it is at first."""
        return max(self.kl_reward_coef, self.kl_loss_coef)

    @property
    def needs_reference(self) -> bool:
        """True when the frozen start of the stage is compared with the policy."""
        return self.kl_reward_coef > 0 or self.kl_loss_coef > 0 or self.measure_kl


class CriticSection(Section):
    """The value model: its own backbone, started from the policy of the stage, and a value head that starts at 0."""

    optimizer: OptimizerSection
    minibatches: Positive = 1
    """critic updates per epoch and iteration"""
    epochs: Positive = 1
    warmup_iterations: NonNegative = 0
    """first iterations in which only the critic learns"""


def algorithm_problems(algorithm: AlgorithmSection) -> Iterator[str]:
    """Keys of the algorithm that contradict each other or that nothing would read."""
    chosen = algorithm.advantage
    if chosen != "gae":
        if algorithm.truncated == "bootstrap":
            yield "algorithm.truncated: bootstrap asks the critic, which only advantage gae has"
        for key in ("critic_lambda", "lambda_alpha"):
            if getattr(algorithm, key) is not None:
                yield f"algorithm.{key}: is of GAE; advantage is {chosen}"
    if algorithm.lambda_alpha is not None and algorithm.gae_lambda != 1:
        yield "algorithm.lambda_alpha: takes the place of gae_lambda; leave gae_lambda out"
    if algorithm.compares_samples and algorithm.kl_reward_coef > 0:
        yield f"algorithm.kl_reward_coef: needs advantage gae or reinforce_pp; {chosen} takes kl_loss_coef"
    if not algorithm.group_std and chosen != "grpo":
        yield f"algorithm.group_std: is of grpo; advantage is {chosen}"
    if chosen.startswith("reinforce_pp") and not algorithm.whiten_advantages:
        yield f"algorithm.whiten_advantages: {chosen} is defined with advantages whitened over the batch"
    if algorithm.kl_target is not None and (algorithm.kl_reward_coef > 0) == (algorithm.kl_loss_coef > 0):
        yield "algorithm.kl_target: adapts one coefficient; set either kl_reward_coef or kl_loss_coef above 0"
    widest = 1 + (algorithm.clip_ratio_high or algorithm.clip_ratio)
    if algorithm.dual_clip is not None and algorithm.dual_clip <= widest:
        yield f"algorithm.dual_clip: {algorithm.dual_clip} would bound ratios inside the trust region; above {widest:g}"
    if algorithm.old_logprobs == "rollout":
        for key in ("importance_cap", "gap_limit"):
            if getattr(algorithm, key) is not None:
                yield f"algorithm.{key}: compares engine and trainer, and old_logprobs rollout takes them as equal"
