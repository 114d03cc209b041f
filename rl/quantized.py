"""A frozen base in four bits: linear layers as NF4 codes, which each product turns into numbers again.

The adapters on them learn in float32 or bfloat16. bitsandbytes packs the codes, on CPUs and GPUs alike; on a GPU this
has not been tried.
Source: Dettmers et al. 2023 (QLoRA), https://arxiv.org/abs/2305.14314, sec. 3.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor, nn

from rl.errors import UserError

_BLOCK, _KIND = 64, "nf4"  # numbers that share a scale; the sixteen levels of a normal distribution


class QuantizedLinear(nn.Module):
    """A linear layer without gradients of its own weight."""

    codes: Tensor
    """[ceil(out * in / 2), 1] uint8, two numbers each"""
    scales: Tensor
    """[ceil(out * in / 64)] float32, largest absolute value of each block"""

    def __init__(self, layer: nn.Linear) -> None:
        """Takes over a layer, whose weight is rounded. One without storage gives one without content."""
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.bias = layer.bias
        count = layer.weight.numel()
        device = layer.weight.device
        self.register_buffer("codes", torch.zeros(-(-count // 2), 1, dtype=torch.uint8, device=device))
        self.register_buffer("scales", torch.zeros(-(-count // _BLOCK), device=device))
        if device.type != "meta":
            self.take(layer.weight.detach())

    @torch.no_grad()
    def take(self, weight: Tensor) -> None:
        """Becomes the nearest codes of this weight [out, in]."""
        codes, scales = _operations().quantize_4bit(weight.contiguous(), _BLOCK, _KIND, torch.uint8)
        self.codes.copy_(codes)
        self.scales.copy_(scales)

    def weight(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """[out, in], as the codes say."""
        return dequantized(self.codes, self.scales, self.shape, dtype)

    @property
    def shape(self) -> tuple[int, int]:
        """[out, in]"""
        return self.out_features, self.in_features

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out], in the precision of x."""
        product: Tensor = _Product.apply(x, self)
        return product if self.bias is None else product + self.bias.to(x.dtype)


class _Product(torch.autograd.Function):
    """x W^T, of which the backward pass makes W anew instead of keeping it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: QuantizedLinear) -> Tensor:
        ctx.layer = layer
        return x @ layer.weight(x.dtype).T

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad @ ctx.layer.weight(grad.dtype), None


def dequantized(codes: Tensor, scales: Tensor, shape: tuple[int, int], dtype: torch.dtype = torch.float32) -> Tensor:
    """The numbers [out, in] that codes and scales stand for."""
    found: Tensor = _operations().dequantize_4bit(codes, scales, _BLOCK, _KIND, shape, dtype)
    return found


def require_bitsandbytes() -> None:
    """
    Raises:
        UserError: bitsandbytes is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError('learner.lora.base: nf4 needs bitsandbytes: pip install "stepladder[quantized]"')


def _operations() -> Any:
    import bitsandbytes  # noqa: F401  three seconds; registers the operations

    return torch.ops.bitsandbytes
