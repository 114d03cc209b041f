"""Losses: pure functions of tensors. Each returns a sum over the masked tokens divided by `token_count`.

`token_count` is the number of sampled tokens of the whole mini-batch, over every micro-batch and
every rank. So the losses of micro-batches add up to the loss of the mini-batch exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

KlEstimator = Literal["k1", "k2", "k3"]


@dataclass(frozen=True)
class PolicyLoss:
    """The clipped surrogate and what it did. All but `loss` are sums over tokens, without gradient."""

    loss: Tensor
    """scalar, with gradient"""
    clipped_tokens: Tensor
    """scalar: tokens whose ratio was clipped"""
    approx_kl_sum: Tensor
    """scalar nats: sum of (rho - 1) - log rho, the k3 estimate of KL(old || new)"""


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    token_count: float,
    weights: Tensor | None = None,
    dual_clip: float | None = None,
) -> PolicyLoss:
    """PPO's clipped surrogate, averaged over sampled tokens.

        rho_t = exp(logprobs_t - old_logprobs_t)
        S_t   = min(rho_t * A_t, clip(rho_t, 1 - clip_low, 1 + clip_high) * A_t)
        L     = -1/N * sum_t w_t * S_t          with dual_clip c: max(S_t, c * A_t) where A_t < 0

    Args:
        logprobs: [B, T] nats, under the policy that is updated.
        old_logprobs: [B, T] nats, under the policy before the update.
        advantages: [B, T].
        mask: [B, T] bool, True where the policy sampled the token.
        clip_low, clip_high: widths of the trust region below and above 1; equal in PPO, clip_high larger in DAPO.
        token_count: N, sampled tokens in the whole mini-batch; its responses where weights average over them.
        weights: [B, T] w_t, importance (see `importance_weights`) times average (`response_weights`); None for 1.
        dual_clip: c > 1, bound of the loss of a bad token that has become far more likely; None for none.

    Source: Schulman et al. 2017, https://arxiv.org/abs/1707.06347, eq. 7; clip-higher: DAPO, arXiv 2503.14476, eq. 10;
    dual clip: Ye et al. 2020, https://arxiv.org/abs/1912.09729, eq. 7.
    """
    log_ratio = torch.where(mask, logprobs - old_logprobs, 0.0)
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    surrogate = torch.minimum(ratio * advantages, clipped * advantages)
    if dual_clip is not None:
        surrogate = torch.where(advantages < 0, torch.maximum(surrogate, dual_clip * advantages), surrogate)
    if weights is not None:
        surrogate = surrogate * weights
    with torch.no_grad():
        was_clipped = (clipped * advantages < ratio * advantages) & mask
        approx_kl = torch.where(mask, ratio - 1 - log_ratio, 0.0).sum()
    return PolicyLoss(-_masked_sum(surrogate, mask) / token_count, was_clipped.sum(), approx_kl)


def value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, *, value_clip: float | None, token_count: float
) -> Tensor:
    """Half the squared error of the critic, the worse of the plain and the clipped estimate.

        L = 1/(2N) * sum_t max((V_t - R_t)^2, (V_old,t + clip(V_t - V_old,t, -c, c) - R_t)^2)

    Args:
        values: [B, T] critic that is updated.
        old_values: [B, T] critic before the update.
        returns: [B, T] targets.
        mask: [B, T] bool, True where the policy sampled the token.
        value_clip: c in units of the return, or None for no clipping.
        token_count: N, sampled tokens in the whole mini-batch.

    Source: the value clipping of OpenAI baselines' ppo2, as studied by Engstrom et al. 2020, arXiv 2005.12729, sec. 3.
    """
    error = (values - returns).square()
    if value_clip is not None:
        near_old = old_values + (values - old_values).clamp(-value_clip, value_clip)
        error = torch.maximum(error, (near_old - returns).square())
    return 0.5 * _masked_sum(error, mask) / token_count


def kl_estimate(logprobs: Tensor, ref_logprobs: Tensor, *, kind: KlEstimator) -> Tensor:
    """Per-token estimate of KL(policy || reference) in nats, [B, T], from samples of the policy.

    With d = log p - log q for the sampled token:
        k1 = d                  unbiased, high variance, can be negative; the one for rewards
        k2 = d^2 / 2            its gradient is the gradient of the KL
        k3 = exp(-d) - 1 + d    unbiased and never negative; the one for losses

    Raises:
        ValueError: an unknown kind.

    Source: Schulman 2020, http://joschu.net/blog/kl-approx.html.
    """
    difference = logprobs - ref_logprobs
    if kind == "k1":
        return difference
    if kind == "k2":
        return difference.square() / 2
    if kind == "k3":
        return torch.expm1(-difference) + difference
    raise ValueError(f"kl_estimate: kind {kind!r} is not one of k1, k2, k3")


def importance_weights(old_logprobs: Tensor, rollout_logprobs: Tensor, *, cap: float) -> Tensor:
    """Truncated importance sampling for the gap between the engine that sampled and the trainer.

        w_t = min(pi_old(a_t|s_t) / pi_rollout(a_t|s_t), C)

    Args:
        old_logprobs, rollout_logprobs: [B, T] nats, of the trainer before the update and of the engine.
        cap: C.

    Returns:
        [B, T] weights, without gradient.

    Source: Ionides 2008; as used for language models in the RLVR recipe of PaCoRe (C = 8), arXiv 2601.05593, app. A.
    """
    return (old_logprobs - rollout_logprobs).detach().exp().clamp(max=cap)


def response_weights(mask: Tensor) -> Tensor:
    """1 / (sampled tokens of the row) on sampled tokens, [B, T]: a mean over each response, as GRPO was published.

    With them the divisor of a loss is the number of responses. Without, every token counts alike (DAPO's token-level
    loss), so a long response counts for more.

    Source: GRPO, https://arxiv.org/abs/2402.03300, eq. 3; DAPO, https://arxiv.org/abs/2503.14476, sec. 3.3.
    """
    return torch.where(mask, 1.0 / mask.sum(1, keepdim=True).clamp(min=1), 0.0)


def within_gap(old_logprobs: Tensor, rollout_logprobs: Tensor, mask: Tensor, *, limit: float) -> Tensor:
    """[B] bool: responses on which trainer and engine agree well enough to learn from.

        | 1/T * sum_t (log pi_old - log pi_rollout) | <= limit

    the geometric mean of the ratios of a response is within [exp(-limit), exp(limit)].

    Args:
        old_logprobs, rollout_logprobs: [B, T] nats, of the trainer before the update and of the engine.
        mask: [B, T] bool, True where the policy sampled the token.
        limit: nats per token.

    Source: sequence masking of NeMo-RL and TRL; the geometric mean as in GSPO, https://arxiv.org/abs/2507.18071, eq. 7.
    """
    gap = torch.where(mask, old_logprobs - rollout_logprobs, 0.0).double()
    return (gap.sum(1) / mask.sum(1).clamp(min=1)).abs() <= limit


def adapted_kl_coef(coef: float, kl: float, *, target: float, horizon: int, responses: int) -> float:
    """The next KL coefficient: larger after an iteration above the target, smaller after one below.

        e = clip(kl / target - 1, -0.2, 0.2);   coef <- coef * (1 + e * responses / horizon)

    Args:
        kl: measured nats per response.
        target: wanted nats per response.
        horizon: responses over which an error of 20% changes the coefficient by about 20%.
        responses: of this iteration.

    Source: Ziegler et al. 2019, https://arxiv.org/abs/1909.08593, sec. 2.2.
    """
    error = min(max(kl / target - 1, -0.2), 0.2)
    return coef * (1 + error * min(responses / horizon, 1.0))


def _masked_sum(x: Tensor, mask: Tensor) -> Tensor:
    """Sum where mask is True; what stands elsewhere, NaN included, has neither value nor gradient."""
    return torch.where(mask, x, 0.0).sum()
