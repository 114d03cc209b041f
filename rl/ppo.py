"""From what the models say of a batch to what the update needs: KL in the reward, advantages, returns."""

from __future__ import annotations

import torch
from torch import Tensor

from rl.advantages import gae, grpo, rloo, whiten
from rl.batch import Evaluation, PPOBatch, TokenBatch
from rl.losses import kl_estimate
from rl.recipe import AlgorithmSection


def to_ppo_batch(batch: TokenBatch, before: Evaluation, settings: AlgorithmSection) -> PPOBatch:
    """The batch with advantages and returns under the recipe's estimator."""
    advantages, returns = _estimate(batch, before, settings)
    if settings.whiten_advantages:
        advantages = whiten(advantages, batch.action_mask)
    return PPOBatch(
        token_ids=batch.token_ids,
        attention_mask=batch.attention_mask,
        action_mask=batch.action_mask,
        rollout_logprobs=batch.rollout_logprobs,
        old_logprobs=before.logprobs,
        ref_logprobs=before.ref_logprobs,
        old_values=before.values,
        advantages=advantages,
        returns=returns,
    )


def _estimate(batch: TokenBatch, before: Evaluation, settings: AlgorithmSection) -> tuple[Tensor, Tensor]:
    if settings.advantage == "gae":
        bootstrap = None
        if settings.truncated == "bootstrap":
            bootstrap = torch.where(batch.truncated, before.last_values, 0.0)
        return gae(
            rewards_with_kl(batch, before, settings.kl_reward_coef),
            before.values,
            batch.action_mask,
            gamma=settings.gamma,
            lam=settings.gae_lambda,
            bootstrap=bootstrap,
        )
    baseline = grpo if settings.advantage == "grpo" else rloo
    per_trajectory = baseline(batch.rewards.sum(1), batch.groups)  # [B]
    advantages = torch.where(batch.action_mask, per_trajectory[:, None], 0.0)
    return advantages, advantages


def rewards_with_kl(batch: TokenBatch, before: Evaluation, coef: float) -> Tensor:
    """Rewards [B, T] minus coef * k1 of each sampled token, k1 = log p - log p_ref (nats).

    Source: Ouyang et al. 2022 (InstructGPT), arXiv 2203.02155, eq. 2.
    """
    if coef == 0:
        return batch.rewards
    kl = kl_estimate(before.logprobs, before.ref_logprobs, kind="k1")
    return batch.rewards - coef * torch.where(batch.action_mask, kl, 0.0)
