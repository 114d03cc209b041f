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

    # "contract" lets a product and a sum be one instruction, which rounds once instead of twice
    compiled: Callable[..., None] = numba.njit(nogil=True, fastmath={"contract"})(_scan)
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
    """Four tokens at a time where all four were sampled: then one step in four waits for the one before it."""
    for row in range(rewards.shape[0]):
        m, r, v, a, g = mask[row], rewards[row], values[row], advantages[row], returns[row]
        following, carry, c = np.float64(after[row]), 0.0, decays[row]
        c2, c3, c4 = c * c, c * c * c, c * c * c * c
        t = rewards.shape[1] - 1
        while t >= 0:
            if t >= 3 and (m[t] & m[t - 1] & m[t - 2] & m[t - 3]):
                v3, v2 = np.float64(v[t]), np.float64(v[t - 1])
                v1, v0 = np.float64(v[t - 2]), np.float64(v[t - 3])
                d3, d2 = r[t] + gamma * following - v3, r[t - 1] + gamma * v3 - v2
                d1, d0 = r[t - 2] + gamma * v2 - v1, r[t - 3] + gamma * v1 - v0
                s2 = d2 + c * d3
                s1 = d1 + c * s2
                a3, a2, a1 = d3 + c * carry, s2 + c2 * carry, s1 + c3 * carry
                carry = d0 + c * s1 + c4 * carry
                a[t], a[t - 1], a[t - 2], a[t - 3] = a3, a2, a1, carry
                g[t], g[t - 1], g[t - 2], g[t - 3] = a3 + v3, a2 + v2, a1 + v1, carry + v0
                following = v0
                t -= 4
            else:
                if m[t]:
                    value = np.float64(v[t])
                    carry = r[t] + gamma * following - value + c * carry
                    a[t], g[t] = carry, carry + value
                    following = value
                else:
                    a[t], g[t] = 0.0, 0.0
                t -= 1
