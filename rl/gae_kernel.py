"""The recursion of GAE as compiled code for large batches on a CPU: one pass over memory, token by token."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def gae_scan(
    rewards: Tensor, values: Tensor, mask: Tensor, after: Tensor, gamma: float, decay: Tensor
) -> tuple[Tensor, Tensor]:
    """Advantages and returns, both [B, T] float32, 0 outside the mask; the sums are carried in float64.

    Args:
        rewards, values: [B, T], read where mask is True alone.
        mask: [B, T] bool.
        after: [B] value after the last sampled token.
        gamma: discount.
        decay: gamma * lambda, [B, 1] or [1, 1] float64.
    """
    advantages, returns = torch.empty(rewards.shape), torch.empty(rewards.shape)
    arrays = (_float32(rewards), _float32(values), np.ascontiguousarray(mask.numpy()), _float32(after))
    decays = np.ascontiguousarray(decay.expand(len(rewards), 1)[:, 0].numpy())
    _compiled()(*arrays, gamma, decays, advantages.numpy(), returns.numpy())
    return advantages, returns


def _float32(x: Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(x.detach().float().numpy())


@functools.cache
def _compiled() -> Callable[..., None]:
    """About a second, once per process; numba is not imported before it is needed."""
    import numba

    compiled: Callable[..., None] = numba.njit(nogil=True)(_scan)
    return compiled


def _scan(
    rewards: NDArray[np.float32],
    values: NDArray[np.float32],
    mask: NDArray[np.bool_],
    after: NDArray[np.float32],
    gamma: float,
    decays: NDArray[np.float64],
    advantages: NDArray[np.float32],
    returns: NDArray[np.float32],
) -> None:
    for row in range(rewards.shape[0]):
        following, carry, decay = np.float64(after[row]), 0.0, decays[row]
        for t in range(rewards.shape[1] - 1, -1, -1):
            if mask[row, t]:
                value = np.float64(values[row, t])
                carry = rewards[row, t] + gamma * following - value + decay * carry
                advantages[row, t] = carry
                returns[row, t] = carry + value
                following = value
            else:
                advantages[row, t] = 0.0
                returns[row, t] = 0.0
