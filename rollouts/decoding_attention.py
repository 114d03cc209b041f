"""Attention of one new token over a cache, for decoding on a CPU: two products of matrices, and no copy of the cache.

transformers repeats keys and values for every query head that shares them as soon as there is a mask, in each step
anew. Here the heads that share keys are rows of one matrix.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

_NAME = "sdpa_one_token"
_UNSEEN = -1e9  # of a score; a row that sees nothing is padding, and must not become NaN


def use_decoding_attention(model: PreTrainedModel) -> None:
    """Has a model on a CPU that attends through torch's SDPA decode in this way; any other stays as it is."""
    if model.device.type == "cpu" and model.config._attn_implementation == "sdpa":
        AttentionInterface.register(_NAME, _attention)
        AttentionMaskInterface.register(_NAME, sdpa_mask)
        model.set_attn_implementation(_NAME)


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """As every attention function of transformers: query [n, H, t, d], key and value [n, K, T, d] -> [n, t, H, d]."""
    other = kwargs.get("position_bias") is not None or kwargs.get("dropout") or query.shape[1] % key.shape[1]
    if query.shape[2] != 1 or other or (attention_mask is not None and attention_mask.dtype != torch.bool):
        found: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
        return found
    return one_token_attention(query, key, value, attention_mask, kwargs.get("scaling")), None


def one_token_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None
) -> Tensor:
    """Softmax attention of one query per row.

    Args:
        query: [n, H, 1, d].
        key: [n, K, T, d], K dividing H.
        value: [n, K, T, e].
        mask: [n, 1, 1, T] bool, False where a key is not seen; None for none.
        scale: of the scores; None for 1 / sqrt(d).

    Returns:
        [n, 1, H, e].
    """
    rows, heads, _, dim = query.shape
    kept, length = key.shape[1:3]
    stacked = query.reshape(rows * kept, heads // kept, dim)
    scores = torch.bmm(stacked, key.flatten(0, 1).transpose(1, 2)).mul_(dim**-0.5 if scale is None else scale)
    scores = scores.view(rows, kept, heads // kept, length)
    if mask is not None:
        scores = scores.masked_fill(~mask, _UNSEEN)
    weights = scores.softmax(-1).view(rows * kept, heads // kept, length)
    return torch.bmm(weights, value.flatten(0, 1)).view(rows, 1, heads, value.shape[-1])
