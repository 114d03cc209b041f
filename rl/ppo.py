"""From what the models say of a batch to what the update needs: KL in the reward, advantages, returns."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from rl.advantages import gae, grpo, length_adaptive_lambda, rewards_to_go, rloo, whiten
from rl.batch import Evaluation, PPOBatch, TokenBatch
from rl.losses import KlEstimator, kl_estimate, within_gap
from rl.recipe import AlgorithmSection


def to_ppo_batch(
    batch: TokenBatch, before: Evaluation, settings: AlgorithmSection, *, kl_coef: float | None = None
) -> PPOBatch:
    """The batch with advantages and returns under the recipe's estimator.

    Args:
        kl_coef: the adapted coefficient of KL, in place of the recipe's.
    """
    if kl_coef is not None and settings.kl_reward_coef > 0:
        settings = settings.model_copy(update={"kl_reward_coef": kl_coef})
    batch = dataclasses.replace(batch, action_mask=batch.action_mask & kept(batch, before, settings)[:, None])
    advantages, returns = _estimate(batch, before, settings)
    if settings.whiten_advantages:
        advantages = whiten(advantages, batch.action_mask)
    return PPOBatch.of(batch, before, advantages=advantages, returns=returns)


def _estimate(batch: TokenBatch, before: Evaluation, settings: AlgorithmSection) -> tuple[Tensor, Tensor]:
    if settings.advantage == "gae":
        bootstrap = None
        if settings.truncated == "bootstrap":
            bootstrap = torch.where(batch.truncated, before.last_values, 0.0)
        return _gae_of_policy_and_critic(batch, before, settings, bootstrap)
    if settings.advantage == "reinforce_pp":
        advantages = rewards_to_go(_rewards(batch, before, settings), batch.action_mask, gamma=settings.gamma)
        return advantages, advantages
    totals = batch.rewards.sum(1)
    if settings.advantage == "rloo":
        per_trajectory = rloo(totals, batch.groups)  # [B]
    else:  # REINFORCE++ with a baseline centres within the group and is whitened over the batch
        std = settings.group_std and settings.advantage == "grpo"
        per_trajectory = grpo(totals, batch.groups, divide_by_std=std)
    advantages = torch.where(batch.action_mask, per_trajectory[:, None], 0.0)
    return advantages, advantages


def _gae_of_policy_and_critic(
    batch: TokenBatch, before: Evaluation, settings: AlgorithmSection, bootstrap: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Advantages under the policy's lambda, returns under the critic's.

    Source of decoupled lambdas: VAPO, https://arxiv.org/abs/2504.05118, sec. 4.1.
    """
    rewards, mask = _rewards(batch, before, settings), batch.action_mask
    lam: float | Tensor = settings.gae_lambda
    if settings.lambda_alpha is not None:
        lam = length_adaptive_lambda(mask, alpha=settings.lambda_alpha)
    advantages, returns = gae(rewards, before.values, mask, gamma=settings.gamma, lam=lam, bootstrap=bootstrap)
    if settings.critic_lambda is not None:
        lam = settings.critic_lambda
        returns = gae(rewards, before.values, mask, gamma=settings.gamma, lam=lam, bootstrap=bootstrap)[1]
    return advantages, returns


def kept(batch: TokenBatch, before: Evaluation, settings: AlgorithmSection) -> Tensor:
    """[B] bool: responses that the update learns from."""
    rows = torch.ones(len(batch.token_ids), dtype=torch.bool)
    if settings.truncated == "masked":
        rows &= ~batch.truncated
    if settings.gap_limit is not None:
        rows &= within_gap(before.logprobs, batch.rollout_logprobs, batch.action_mask, limit=settings.gap_limit)
    return rows


def _rewards(batch: TokenBatch, before: Evaluation, settings: AlgorithmSection) -> Tensor:
    return rewards_with_kl(batch, before, settings.kl_reward_coef, kind=settings.kl_reward_estimator)


def rewards_with_kl(batch: TokenBatch, before: Evaluation, coef: float, *, kind: KlEstimator = "k1") -> Tensor:
    """Rewards [B, T] minus coef times the estimate of KL to the reference (nats) at each sampled token.

    Source: Ouyang et al. 2022 (InstructGPT), arXiv 2203.02155, eq. 2.
    """
    if coef == 0:
        return batch.rewards
    kl = kl_estimate(before.logprobs, before.ref_logprobs, kind=kind)
    return batch.rewards - coef * torch.where(batch.action_mask, kl, 0.0)
