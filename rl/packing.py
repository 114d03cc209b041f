"""Rows without padding: the tokens of a micro-batch in one line, each row with positions and attention of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def packed_hidden_states(backbone: Any, token_ids: Tensor, lengths: Tensor) -> Tensor:
    """Last hidden states [B, T, d], as of a right-padded forward pass; 0 on padding.

    The model reads [1, N] tokens, N = sum of lengths. Positions start anew with each row; from that transformers knows
    where rows begin, and makes the block mask of SDPA, or the offsets of a flash kernel with variable lengths.

    Args:
        backbone: a transformers model without its head.
        token_ids: [B, T], padded on the right.
        lengths: [B] tokens of each row; a row of 0 counts as one of 1.
    """
    position = torch.arange(token_ids.shape[1], device=token_ids.device).expand_as(token_ids)
    real = position < lengths.clamp(min=1)[:, None]
    packed = backbone(input_ids=token_ids[real][None], position_ids=position[real][None], use_cache=False)
    hidden: Tensor = packed.last_hidden_state[0]
    return hidden.new_zeros(*token_ids.shape, hidden.shape[-1]).index_put((real,), hidden)
