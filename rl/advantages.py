"""Advantage estimators: pure functions of tensors. No model, no configuration, no state."""

from __future__ import annotations

import torch
from torch import Tensor


def gae(
    rewards: Tensor,
    values: Tensor,
    action_mask: Tensor,
    *,
    gamma: float,
    lam: float,
    bootstrap: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Generalized Advantage Estimation over the sampled tokens of each trajectory.

        delta_t = r_t + gamma * V_{t+1} - V_t
        A_t     = delta_t + gamma * lam * A_{t+1}

    Here t+1 is the next *sampled* token: positions with action_mask False (prompt, tool
    output, padding) are skipped, so they neither earn nor decay credit. What such a
    position holds in `rewards` or `values` is never read, NaN included. After the last
    sampled token the value is 0, or `bootstrap` where that is given.

    Args:
        rewards: [B, T] reward for emitting token t, in units of the task reward.
        values: [B, T] critic estimate of the return before token t is emitted, same units.
        action_mask: [B, T] bool, True where the policy sampled token t.
        gamma: discount per sampled token, in [0, 1].
        lam: GAE lambda, in [0, 1]; 1 gives Monte-Carlo returns, 0 one-step TD.
        bootstrap: [B] value of the state after the last sampled token: 0 for a finished
            response, the critic's estimate for one that was cut and is bootstrapped.

    Returns:
        (advantages, returns), both [B, T] float32, 0 where action_mask is False; not whitened.
        returns = advantages + values.

    Raises:
        ValueError: the three tensors differ in shape, or bootstrap is not [B].

    Source: Schulman et al. 2015, https://arxiv.org/abs/1506.02438, eq. 16.
    """
    if not rewards.shape == values.shape == action_mask.shape:
        raise ValueError(
            f"gae: rewards {tuple(rewards.shape)}, values {tuple(values.shape)} and "
            f"action_mask {tuple(action_mask.shape)} must have one shape [B, T]"
        )
    mask = action_mask.bool()
    after_last = torch.zeros_like(rewards[:, 0]) if bootstrap is None else bootstrap.to(rewards.dtype)
    if after_last.shape != rewards.shape[:1]:
        raise ValueError(f"gae: bootstrap {tuple(after_last.shape)} must be [B] = [{rewards.shape[0]}]")
    dense_rewards, lengths, order = _sampled_first(rewards, mask)
    dense_values = _sampled_first(values, mask)[0]
    advantages = _dense_gae(dense_rewards, dense_values, lengths, after_last, gamma=gamma, lam=lam)
    scattered = torch.zeros_like(rewards).scatter(1, order, advantages)
    scattered = torch.where(mask, scattered, 0.0).float()
    return scattered, torch.where(mask, scattered + values, 0.0).float()


def _sampled_first(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(x with the sampled tokens of each row moved to its front, their number [B], the order [B, N] used)."""
    lengths = mask.sum(1)
    width = max(int(lengths.max()), 1) if len(lengths) else 1
    order = torch.argsort(~mask, dim=1, stable=True)[:, :width]
    inside = torch.arange(width, device=x.device) < lengths[:, None]
    return torch.where(inside, x.gather(1, order), 0.0), lengths, order


def _dense_gae(
    rewards: Tensor, values: Tensor, lengths: Tensor, after_last: Tensor, *, gamma: float, lam: float
) -> Tensor:
    """GAE on rows whose first `lengths` positions are all sampled: [B, N] -> [B, N], 0 beyond the length."""
    position = torch.arange(rewards.shape[1], device=rewards.device)
    is_last = position == (lengths - 1)[:, None]
    inside = position < lengths[:, None]
    next_values = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], 1)
    next_values = torch.where(is_last, after_last[:, None], next_values)
    deltas = torch.where(inside, rewards + gamma * next_values - values, 0.0).double()
    if gamma * lam == 1.0:  # a plain suffix sum, without a loop over tokens
        return deltas.flip(1).cumsum(1).flip(1).to(rewards.dtype)
    columns = deltas.T.contiguous()  # [N, B]: one row per step of the loop
    carry = torch.zeros_like(columns[0])
    for step in range(len(columns) - 1, -1, -1):
        carry = torch.add(columns[step], carry, alpha=gamma * lam, out=columns[step])
    return columns.T.to(rewards.dtype)


def whiten(x: Tensor, mask: Tensor, *, epsilon: float = 1e-8) -> Tensor:
    """x with mean 0 and standard deviation 1 over the masked entries of the whole batch.

    Args:
        x: [B, T].
        mask: [B, T] bool, True where an entry counts (sampled tokens).
        epsilon: added to the variance, so that equal entries give 0 and not NaN.

    Returns:
        [B, T], 0 where mask is False. The variance is the biased one (divides by the count).
    """
    mask = mask.bool()
    count = mask.sum().clamp(min=1)
    mean = torch.where(mask, x, 0.0).sum() / count
    centred = torch.where(mask, x - mean, 0.0)
    variance = centred.square().sum() / count
    return centred * torch.rsqrt(variance + epsilon)


def grpo(rewards: Tensor, groups: Tensor, *, epsilon: float = 1e-4) -> Tensor:
    """Reward of each trajectory, standardised within its group of samples of one prompt.

        A_i = (R_i - mean_g R) / (std_g R + epsilon)

    Args:
        rewards: [B] total reward of a trajectory.
        groups: [B] int, equal for the samples of one prompt.
        epsilon: keeps a group whose rewards are all equal at advantage 0.

    Returns:
        [B] advantages. The standard deviation is the unbiased one; a group of one has advantage 0.

    Source: Shao et al. 2024 (GRPO), https://arxiv.org/abs/2402.03300, sec. 4.1.
    """
    centred, counts = _centred(rewards, groups)
    squares = torch.zeros(len(counts), dtype=rewards.dtype, device=rewards.device)
    squares.scatter_add_(0, groups, centred.square())
    std = (squares / (counts - 1).clamp(min=1)).sqrt()
    return centred / (std[groups] + epsilon)


def rloo(rewards: Tensor, groups: Tensor) -> Tensor:
    """Reward of each trajectory minus the mean reward of the *other* samples of its prompt.

        A_i = R_i - mean_{j != i} R_j = n / (n - 1) * (R_i - mean_g R)

    Args:
        rewards: [B] total reward of a trajectory.
        groups: [B] int, equal for the samples of one prompt.

    Returns:
        [B] advantages; a group of one has advantage 0.

    Source: Ahmadian et al. 2024 (RLOO), https://arxiv.org/abs/2402.14740, sec. 3.
    """
    centred, counts = _centred(rewards, groups)
    scale = counts / (counts - 1).clamp(min=1)
    return centred * scale[groups]


def _centred(rewards: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """(reward minus its group's mean [B], size of each group [number of groups])."""
    num_groups = int(groups.max()) + 1 if len(groups) else 0
    counts = torch.bincount(groups, minlength=num_groups).to(rewards.dtype)
    sums = torch.zeros(num_groups, dtype=rewards.dtype, device=rewards.device).scatter_add_(0, groups, rewards)
    return rewards - (sums / counts.clamp(min=1))[groups], counts


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns) over masked entries; 0 when the returns do not vary.

    1 is a perfect critic, 0 one that is no better than a constant, below 0 one that is worse.
    """
    mask = mask.bool()
    targets, residuals = returns[mask].double(), (returns - values)[mask].double()
    variance = targets.var(correction=0) if targets.numel() else torch.tensor(0.0)
    return 0.0 if variance < 1e-12 else float(1 - residuals.var(correction=0) / variance)
