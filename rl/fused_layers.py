"""Layers of a decoder with hand-written gradients, for float32 on a CPU. Same numbers, fewer passes over memory.

A small model on a CPU spends its time reading and writing activations, not multiplying them. Autograd composes a
norm and a rotation from a dozen elementwise operations forward and two dozen backward; here each is one compiled loop.
On any other device, or with a cache, a mask or a sliding window, the layers run as transformers wrote them.
"""

from __future__ import annotations

import ctypes
import functools
import types
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import PreTrainedModel
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention

from rl.fused_kernels import rms_norm, rms_norm_gradient, rotated_norm, rotated_norm_gradient

# Up to this length the whole matrix of attention weights is cheaper than torch's blockwise kernel.
_SHORT = 64

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 2**30


def fuse_layers(model: PreTrainedModel) -> None:
    """Gives RMS norms of any model, and the attention of Qwen3, a faster forward on a CPU. Changes no weight."""
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm") and {"weight", "variance_epsilon"} <= set(dir(module)):
            _override(module, _rms_norm_forward)
        elif type(module) is Qwen3Attention:
            _override(module, _qwen3_attention_forward)


def _override(module: nn.Module, forward: Any) -> None:
    object.__setattr__(module, "forward", types.MethodType(forward, module))  # deepcopy binds it to the copy


@functools.cache
def keep_freed_memory() -> None:
    """Asks glibc to keep freed memory up to 1 GB: a step then writes to pages that it has, without a fault for each.

    Where the C library is another one, nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)


def _on_cpu_in_float32(*tensors: Tensor) -> bool:
    return all(x.device.type == "cpu" and x.dtype == torch.float32 for x in tensors)


# ---------------------------------------------------------------- norms


class RmsNorm(torch.autograd.Function):
    """y = w * x / sqrt(mean(x^2) + epsilon) over the last dimension.

    Source: Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467, eq. 4.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        """x [..., d], weight [d] -> [..., d]."""
        rows = x.reshape(-1, x.shape[-1])
        y, inverse = torch.empty_like(rows), rows.new_empty(len(rows))
        rms_norm(*_arrays(rows, weight.clone()), epsilon, *_arrays(y, inverse))
        ctx.save_for_backward(rows, weight, inverse)
        return y.view(x.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        """Gradients of x and weight."""
        rows, weight, inverse = ctx.saved_tensors
        grad_x, grad_weight = torch.empty_like(rows), torch.zeros(weight.shape, dtype=torch.float64)
        given = (grad.reshape(rows.shape), rows, weight.clone(), inverse)
        rms_norm_gradient(*_arrays(*given, grad_x, grad_weight))
        return grad_x.view(grad.shape), grad_weight.to(weight.dtype), None


class RotatedNorm(torch.autograd.Function):
    """The RMS norm of each head, then its rotary position embedding.

        z = w * x / rms(x);   y = z * cos + (-z_2, z_1) * sin        z_1, z_2: the halves of z

    Source: Su et al. 2021, https://arxiv.org/abs/2104.09864, eq. 34, in the layout of transformers.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, epsilon: float) -> Tensor:
        """x [B, T, H, d], weight [d], cos and sin [T, d] -> [B, H, T, d]."""
        batch, length, heads, dim = x.shape
        x = x.contiguous()
        y, inverse = x.new_empty(batch, heads, length, dim), x.new_empty(batch, length, heads)
        rotated_norm(*_arrays(x, weight.clone(), cos, sin), epsilon, *_arrays(y, inverse))
        ctx.save_for_backward(x, weight, cos, sin, inverse)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        """Gradients of x and weight."""
        x, weight, cos, sin, inverse = ctx.saved_tensors
        grad_x, grad_weight = torch.empty_like(x), torch.zeros(weight.shape, dtype=torch.float64)
        given = (grad.contiguous(), x, weight.clone(), cos, sin, inverse)
        rotated_norm_gradient(*_arrays(*given, grad_x, grad_weight))
        return grad_x, grad_weight.to(weight.dtype), None, None, None


def _arrays(*tensors: Tensor) -> list[NDArray[Any]]:
    """The same memory as arrays of numpy. Of weights only copies are passed: FSDP frees the gathered ones by resizing
    their storage, which torch refuses once an array has shared it."""
    return [x.detach().numpy() for x in tensors]


def _rms_norm_forward(self: Any, hidden_states: Tensor) -> Tensor:
    if _on_cpu_in_float32(hidden_states, self.weight):
        return RmsNorm.apply(hidden_states, self.weight, self.variance_epsilon)
    return type(self).forward(self, hidden_states)


# ---------------------------------------------------------------- attention


class ShortAttention(torch.autograd.Function):
    """Causal softmax attention that holds all T x T weights; heads that share keys are stacked along the queries."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """q [B, H, T, d], k and v [B, K, T, d] with K dividing H -> [B, H, T, d]."""
        batch, heads, length, dim = q.shape
        shared = heads // k.shape[1]
        stacked = q.reshape(-1, shared * length, dim)
        keys, values = k.reshape(-1, length, dim), v.reshape(-1, length, dim)
        mask = torch.full((length, length), -torch.inf).triu(1).repeat(shared, 1)
        weights = torch.baddbmm(mask, stacked, keys.transpose(1, 2), alpha=scale).softmax(-1)
        ctx.save_for_backward(stacked, keys, values, weights)
        ctx.scale, ctx.shapes = scale, (q.shape, k.shape)
        return torch.bmm(weights, values).view(q.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Gradients of q, k and v."""
        stacked, keys, values, weights = ctx.saved_tensors
        query_shape, key_shape = ctx.shapes
        grad = grad.reshape(stacked.shape)
        grad_v = torch.bmm(weights.transpose(1, 2), grad)
        scores = torch.ops.aten._softmax_backward_data(
            torch.bmm(grad, values.transpose(1, 2)), weights, -1, torch.float32
        ).mul_(ctx.scale)
        grad_q = torch.bmm(scores, keys)
        grad_k = torch.bmm(scores.transpose(1, 2), stacked)
        return grad_q.view(query_shape), grad_k.view(key_shape), grad_v.view(key_shape), None


def causal_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Causal attention of q [B, H, T, d] over k and v [B, K, T, d]: the faster of two ways for this length."""
    if q.shape[2] <= _SHORT:
        return ShortAttention.apply(q, k, v, scale)
    return scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=k.shape[1] != q.shape[1])


def _qwen3_attention_forward(
    self: Any,
    hidden_states: Tensor,
    position_embeddings: tuple[Tensor, Tensor],
    attention_mask: Tensor | None = None,
    past_key_values: Any = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    cos, sin = position_embeddings
    plain = attention_mask is None and past_key_values is None and self.sliding_window is None and len(cos) == 1
    if not plain or not _on_cpu_in_float32(hidden_states, self.q_norm.weight):
        return type(self).forward(
            self, hidden_states, position_embeddings, attention_mask, past_key_values=past_key_values, **kwargs
        )
    shape = (*hidden_states.shape[:2], -1, self.head_dim)
    q, k, v = (layer(hidden_states).view(shape) for layer in (self.q_proj, self.k_proj, self.v_proj))
    q = RotatedNorm.apply(q, self.q_norm.weight, cos[0], sin[0], self.q_norm.variance_epsilon)
    k = RotatedNorm.apply(k, self.k_norm.weight, cos[0], sin[0], self.k_norm.variance_epsilon)
    mixed = causal_attention(q, k, v.transpose(1, 2), self.scaling)
    return self.o_proj(mixed.transpose(1, 2).flatten(2)), None
