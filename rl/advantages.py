"""Advantage estimators: pure functions of tensors. No model, no configuration, no state."""

from __future__ import annotations

import torch
from torch import Tensor

from rl.gae_kernel import gae_scan


def gae(
    rewards: Tensor,
    values: Tensor,
    action_mask: Tensor,
    *,
    gamma: float,
    lam: float | Tensor,
    bootstrap: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Generalized Advantage Estimation over the sampled tokens of each trajectory.

        delta_t = r_t + gamma * V_{t+1} - V_t
        A_t     = delta_t + gamma * lam * A_{t+1}

    Here t+1 is the next *sampled* token: positions with action_mask False (prompt, tool
    output, padding) are skipped, so they neither earn nor decay credit. What such a
    position holds in `rewards` or `values` is never read, NaN included. After the last
    sampled token the value is 0, or `bootstrap` where that is given. Time is
    linear in B * T.

    Args:
        rewards: [B, T] reward for emitting token t, in units of the task reward.
        values: [B, T] critic estimate of the return before token t is emitted, same units.
        action_mask: [B, T] bool, True where the policy sampled token t.
        gamma: discount per sampled token, in [0, 1].
        lam: GAE lambda, in [0, 1]; 1 gives Monte-Carlo returns, 0 one-step TD. Or [B], one per trajectory.
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
    after = torch.zeros_like(rewards[:, 0]) if bootstrap is None else bootstrap
    if after.shape != rewards.shape[:1]:
        raise ValueError(f"gae: bootstrap {tuple(after.shape)} must be [B] = [{rewards.shape[0]}]")
    decay = torch.as_tensor(gamma * lam, dtype=torch.float64, device=rewards.device).view(-1, 1)  # [B, 1] or [1, 1]
    if rewards.device.type == "cpu" and rewards.numel() >= _COMPILED_FROM:
        return gae_scan(rewards, values, mask, after, gamma, decay)
    return _gae_of_tensors(rewards, values, mask, after, gamma, decay)


# Entries of a batch from which compiled code saves more than the second that compiling takes.
_COMPILED_FROM = 2**20


def _gae_of_tensors(
    rewards: Tensor, values: Tensor, mask: Tensor, after: Tensor, gamma: float, decay: Tensor
) -> tuple[Tensor, Tensor]:
    """The same in operations of torch, for any device."""
    advantages = torch.zeros(rewards.shape, device=rewards.device)
    returns = torch.zeros_like(advantages)
    rows_per_block = max(_BLOCK_TOKENS // max(rewards.shape[1], 1), 1)
    for start in range(0, len(rewards), rows_per_block):
        rows = slice(start, start + rows_per_block)
        own = decay[rows] if len(decay) > 1 else decay
        found = _gae_of_block(rewards[rows], values[rows], mask[rows], after[rows], gamma, own)
        advantages[rows] = torch.where(mask[rows], found, 0.0)
        returns[rows] = torch.where(mask[rows], found + values[rows], 0.0)
    return advantages, returns


# Rows are worked on in blocks that stay in the cache, and along a row in chunks whose sums are one matrix product.
_BLOCK_TOKENS, _CHUNK = 2**18, 32


def _gae_of_block(rewards: Tensor, values: Tensor, mask: Tensor, after: Tensor, gamma: float, decay: Tensor) -> Tensor:
    """Advantages [b, T] float32 of a few rows; what stands outside the mask is of no meaning."""
    rises = (mask[:, 1:] & ~mask[:, :-1]).sum(1) + mask[:, 0]
    if (rises <= 1).all():
        return _gae_without_holes(rewards, values, mask, after, gamma, decay)
    order = torch.argsort(~mask, dim=1, stable=True)  # the sampled tokens of each row first
    dense_r, dense_v, dense_m = rewards.gather(1, order), values.gather(1, order), mask.gather(1, order)
    dense = _gae_without_holes(dense_r, dense_v, dense_m, after, gamma, decay)
    return torch.zeros_like(rewards).scatter_(1, order, dense)


def _gae_without_holes(
    rewards: Tensor, values: Tensor, mask: Tensor, after: Tensor, gamma: float, decay: Tensor
) -> Tensor:
    """The same where the sampled tokens of each row are adjacent."""
    num_rows, length = rewards.shape
    values = torch.where(mask, values, 0.0)
    deltas = torch.where(mask, rewards, 0.0).sub_(values)
    deltas[:, : length - 1].add_(values[:, 1:], alpha=gamma)
    is_last = mask.clone()
    is_last[:, :-1] &= ~mask[:, 1:]
    deltas.addcmul_(is_last.to(deltas.dtype), after[:, None].to(deltas.dtype), value=gamma)
    # Before the first sampled token stands gamma * V of it: what it adds flows to positions outside the mask alone.
    return _decayed_suffix_sums(deltas, decay)


def _decayed_suffix_sums(x: Tensor, decay: Tensor) -> Tensor:
    """y_t = x_t + decay * y_{t+1} of each row: [b, T] and [b, 1] or [1, 1] -> [b, T].

    Within chunks one product with a triangular matrix of powers; what each chunk hands on is the same sum over chunks.
    """
    num_rows, length = x.shape
    if length % _CHUNK:
        x = torch.nn.functional.pad(x, (0, -length % _CHUNK))
    chunks = x.view(num_rows, -1, _CHUNK)
    within, to_end = _powers(decay)
    sums = torch.bmm(chunks, within) if len(decay) > 1 else chunks.view(-1, _CHUNK).mm(within[0]).view(chunks.shape)
    if chunks.shape[1] > 1:
        incoming = _decayed_suffix_sums(sums[:, 1:, 0].contiguous(), decay**_CHUNK)  # into each chunk but the last
        sums[:, :-1].addcmul_(incoming[..., None], to_end[:, None])
    return sums.view(num_rows, -1)[:, :length]


def _powers(decay: Tensor) -> tuple[Tensor, Tensor]:
    """Powers of [b, 1] decays: [b, C, C], where token j receives decay^(i - j) of token i >= j; [b, C] to the end."""
    table = (decay ** torch.arange(_CHUNK + 1, device=decay.device)).float()  # [b, C + 1]
    position = torch.arange(_CHUNK, device=decay.device)
    gap = position[:, None] - position
    return torch.where(gap >= 0, table[:, gap.clamp(min=0)], 0.0), table[:, 1:].flip(1)


def length_adaptive_lambda(action_mask: Tensor, *, alpha: float) -> Tensor:
    """GAE lambda of each trajectory by its number l of sampled tokens: long ones look further ahead.

        lambda = 1 - 1 / (alpha * l), at least 0

    Args:
        action_mask: [B, T] bool.
        alpha: 0.05 in the paper: lambda 0.95 at 400 tokens.

    Returns:
        [B] in [0, 1).

    Source: VAPO, https://arxiv.org/abs/2504.05118, eq. 8.
    """
    return (1 - 1 / (alpha * action_mask.sum(1).clamp(min=1).double())).clamp(min=0.0)


def rewards_to_go(rewards: Tensor, action_mask: Tensor, *, gamma: float) -> Tensor:
    """Discounted sum of the rewards from each sampled token on: the advantage of REINFORCE++ before whitening.

        A_t = r_t + gamma * A_{t+1}

    Args:
        rewards: [B, T]; of REINFORCE++ the task reward on the last token and the KL penalty on every token.
        action_mask: [B, T] bool.
        gamma: discount per sampled token.

    Returns:
        [B, T], 0 where action_mask is False.

    Source: Hu et al. 2025 (REINFORCE++), https://arxiv.org/abs/2501.03262, sec. 3.
    """
    return gae(rewards, torch.zeros_like(rewards), action_mask, gamma=gamma, lam=1.0)[0]


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


def grpo(rewards: Tensor, groups: Tensor, *, epsilon: float = 1e-4, divide_by_std: bool = True) -> Tensor:
    """Reward of each trajectory, standardised within its group of samples of one prompt.

        A_i = (R_i - mean_g R) / (std_g R + epsilon)

    Args:
        rewards: [B] total reward of a trajectory.
        groups: [B] int, equal for the samples of one prompt.
        epsilon: keeps a group whose rewards are all equal at advantage 0.
        divide_by_std: False leaves out the division, which weighs very easy and very hard prompts up (Dr. GRPO).

    Returns:
        [B] advantages. The standard deviation is the unbiased one; a group of one has advantage 0.

    Source: Shao et al. 2024 (GRPO), https://arxiv.org/abs/2402.03300, sec. 4.1; Liu et al. 2025 (Dr. GRPO),
    https://arxiv.org/abs/2503.20783, sec. 3.
    """
    centred, counts = _centred(rewards, groups)
    if not divide_by_std:
        return centred
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
