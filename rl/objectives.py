"""What one micro-batch adds to the loss of its mini-batch: of the policy, of the critic, of supervised fine-tuning."""

from __future__ import annotations

import torch
from torch import Tensor

from rl.batch import Minibatch, PPOBatch
from rl.losses import importance_weights, kl_estimate, policy_loss, response_weights, value_loss
from rl.models import Critic, EntropyMode, Policy
from rl.recipe import AlgorithmSection
from rl.trained_model import MicroLoss


def policy_objective(
    policy: Policy,
    micro: PPOBatch,
    whole: Minibatch,
    settings: AlgorithmSection,
    *,
    temperature: float,
    kl_loss_coef: float,
) -> MicroLoss:
    """The clipped surrogate, minus entropy_coef * entropy, plus kl_loss_coef * KL to the reference.

    All three are averaged as `loss_average` says. Sums: see `PolicyLoss`; `entropy_sum` in nats; `old_gap_sum` and
    `old_gap_max`, the absolute log-ratio to `old_logprobs`; `tokens`.
    """
    mask = micro.action_mask
    entropy: EntropyMode = "gradient" if settings.entropy_coef > 0 else "value"
    images = micro.model_inputs.arguments(micro.token_ids)
    lengths, sets = micro.attention_mask.sum(1), micro.token_sets
    view = policy(micro.token_ids, mask, temperature, entropy, images, lengths=lengths, token_sets=sets)
    average, count = _average(mask, whole, settings)
    weights = average
    if settings.importance_cap is not None:
        truncated = importance_weights(micro.old_logprobs, micro.rollout_logprobs, cap=settings.importance_cap)
        weights = truncated if average is None else truncated * average
    clipped = policy_loss(
        view.logprobs,
        micro.old_logprobs,
        micro.advantages,
        mask,
        clip_low=settings.clip_ratio,
        clip_high=settings.clip_ratio_high or settings.clip_ratio,
        dual_clip=settings.dual_clip,
        token_count=count,
        weights=weights,
    )
    loss = clipped.loss
    if settings.entropy_coef > 0:
        loss = loss - settings.entropy_coef * _weighted_sum(view.entropy, average) / count
    if kl_loss_coef > 0:
        kl = torch.where(mask, kl_estimate(view.logprobs, micro.ref_logprobs, kind=settings.kl_loss_estimator), 0.0)
        loss = loss + kl_loss_coef * _weighted_sum(kl, average) / count
    gap = torch.where(mask, view.logprobs.detach() - micro.old_logprobs, 0.0).abs()
    sums = {
        "clipped_tokens": clipped.clipped_tokens,
        "approx_kl_sum": clipped.approx_kl_sum,
        "entropy_sum": view.entropy.detach().sum(),
        "old_gap_sum": gap.sum(),
        "old_gap_max": gap.max(),
        "tokens": mask.sum(),
    }
    return MicroLoss(loss, sums)


def _average(mask: Tensor, whole: Minibatch, settings: AlgorithmSection) -> tuple[Tensor | None, int]:
    """(weight of each token, divisor) of the mean that the recipe asks for."""
    if settings.loss_average == "response":
        return response_weights(mask), whole.response_count
    return None, whole.token_count


def _weighted_sum(x: Tensor, weights: Tensor | None) -> Tensor:
    return x.sum() if weights is None else (x * weights).sum()


def critic_objective(critic: Critic, micro: PPOBatch, whole: Minibatch, settings: AlgorithmSection) -> MicroLoss:
    """The value loss, averaged over sampled tokens."""
    loss = value_loss(
        critic(
            micro.token_ids, micro.model_inputs.arguments(micro.token_ids), lengths=micro.attention_mask.sum(1)
        )[:, :-1],
        micro.old_values,
        micro.returns,
        micro.action_mask,
        value_clip=settings.value_clip,
        token_count=whole.token_count,
    )
    return MicroLoss(loss, {})


def sft_objective(policy: Policy, micro: PPOBatch, whole: Minibatch) -> MicroLoss:
    """Negative log-likelihood of the tokens under action_mask, averaged over them."""
    images, lengths = micro.model_inputs.arguments(micro.token_ids), micro.attention_mask.sum(1)
    view = policy(micro.token_ids, micro.action_mask, 1.0, model_inputs=images, lengths=lengths)
    return MicroLoss(-view.logprobs.sum() / whole.token_count, {})
