"""Compiled loops of the fused layers: one pass over memory each, row by row. Arrays in, arrays filled.

Compiled at the first call, for about a second each, and kept on disk beside this file (or in numba's own directory).
Letters: N rows of d numbers; B trajectories, T tokens, H heads of d numbers. Loops are written so that each is one that
a compiler turns into vector instructions: from 0 to d, with all that varies in it read from one place.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

Array = Any  # of numpy; float32, or float64 where gradients are checked

# Rows whose share of a weight's gradient is added up in the precision of the rows, before it is in float64.
_FLUSH = 16


def compiled(loop: Callable[..., None]) -> Callable[..., None]:
    """The function as machine code. numba is not imported before it is needed."""
    return functools.wraps(loop)(lambda *arrays: _compile(loop)(*arrays))


@functools.cache
def _compile(loop: Callable[..., None]) -> Callable[..., None]:
    import numba

    # Sums in any order, so that they are vectorised. NaN and infinity keep their meaning: such steps are looked for.
    options = {"nogil": True, "fastmath": {"contract", "reassoc", "nsz"}}
    fast: Callable[..., None]
    try:
        fast = numba.njit(cache=True, **options)(loop)
    except RuntimeError:  # no folder that numba could keep it in
        fast = numba.njit(**options)(loop)
    return fast


@compiled
def rms_norm(x: Array, weight: Array, epsilon: float, y: Array, inverse: Array) -> None:
    """y = weight * x * inverse, inverse = 1 / sqrt(mean(x^2) + epsilon): x, y [N, d], inverse [N]."""
    number = x.dtype.type
    share, small = number(1 / x.shape[1]), number(epsilon)
    for n in range(x.shape[0]):
        total = number(0)
        for i in range(x.shape[1]):
            total += x[n, i] * x[n, i]
        scale = number(1) / np.sqrt(total * share + small)
        inverse[n] = scale
        for i in range(x.shape[1]):
            y[n, i] = x[n, i] * scale * weight[i]


@compiled
def rms_norm_gradient(grad: Array, x: Array, weight: Array, inverse: Array, grad_x: Array, grad_weight: Array) -> None:
    """Gradients of x [N, d] and, added, of weight [d] float64, from that of y."""
    number, d = x.dtype.type, x.shape[1]
    share = number(1 / d)
    some = np.zeros(d, x.dtype)
    for n in range(x.shape[0]):
        scale = inverse[n]
        along = number(0)
        for i in range(d):
            along += grad[n, i] * x[n, i] * weight[i]
        along *= scale * scale * share
        for i in range(d):
            some[i] += grad[n, i] * x[n, i] * scale
        for i in range(d):
            grad_x[n, i] = scale * (grad[n, i] * weight[i] - x[n, i] * along)
        if n % _FLUSH == _FLUSH - 1 or n == x.shape[0] - 1:
            for i in range(d):
                grad_weight[i] += some[i]
                some[i] = 0


@compiled
def rotated_norm(x: Array, weight: Array, cos: Array, sin: Array, epsilon: float, y: Array, inverse: Array) -> None:
    """RMS norm of each head and its rotation: x [B, T, H, d], cos, sin [T, d], y [B, H, T, d], inverse [B, T, H]."""
    number, d = x.dtype.type, x.shape[3]
    half = d // 2
    share, small = number(1 / d), number(epsilon)
    straight, across = np.empty_like(cos), np.empty_like(sin)  # y = z * straight + (z with its halves swapped) * across
    for t in range(x.shape[1]):
        for i in range(half):
            straight[t, i], straight[t, half + i] = cos[t, i] * weight[i], cos[t, half + i] * weight[half + i]
            across[t, i], across[t, half + i] = -sin[t, i] * weight[half + i], sin[t, half + i] * weight[i]
    z = np.empty(d + half, x.dtype)  # a row, and its first half again: then a swap is a shift
    for b in range(x.shape[0]):
        for t in range(x.shape[1]):
            for h in range(x.shape[2]):
                total = number(0)
                for i in range(d):
                    total += x[b, t, h, i] * x[b, t, h, i]
                scale = number(1) / np.sqrt(total * share + small)
                inverse[b, t, h] = scale
                for i in range(d):
                    z[i] = x[b, t, h, i] * scale
                for i in range(half):
                    z[d + i] = z[i]
                for i in range(d):
                    y[b, h, t, i] = z[i] * straight[t, i] + z[i + half] * across[t, i]


@compiled
def rotated_norm_gradient(
    grad: Array, x: Array, weight: Array, cos: Array, sin: Array, inverse: Array, grad_x: Array, grad_weight: Array
) -> None:
    """Gradients of x [B, T, H, d] and, added, of weight [d] float64, from that of y [B, H, T, d]."""
    number, d = x.dtype.type, x.shape[3]
    half = d // 2
    share = number(1 / d)
    across = np.empty_like(sin)
    for t in range(x.shape[1]):
        for i in range(half):
            across[t, i], across[t, half + i] = sin[t, half + i], -sin[t, i]
    z, turned = np.empty(d + half, x.dtype), np.empty(d, x.dtype)
    some = np.zeros(d, x.dtype)
    for b in range(x.shape[0]):
        for t in range(x.shape[1]):
            for h in range(x.shape[2]):
                scale = inverse[b, t, h]
                for i in range(d):
                    z[i] = grad[b, h, t, i]
                for i in range(half):
                    z[d + i] = z[i]
                for i in range(d):
                    turned[i] = z[i] * cos[t, i] + z[i + half] * across[t, i]
                along = number(0)
                for i in range(d):
                    along += turned[i] * x[b, t, h, i] * weight[i]
                along *= scale * scale * share
                for i in range(d):
                    some[i] += turned[i] * x[b, t, h, i] * scale
                for i in range(d):
                    grad_x[b, t, h, i] = scale * (turned[i] * weight[i] - x[b, t, h, i] * along)
            for i in range(d):
                grad_weight[i] += some[i]
                some[i] = 0
