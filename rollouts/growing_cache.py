"""Keys and values with room for tokens to come: a new token is written, not joined to a copy of all before it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer

# Tokens of every row for which room is made at once.
_ROOM = 32


class GrowingLayer(DynamicLayer):
    """Keys and values of one layer, [n, heads, T, d] each, as views of tensors that hold more than T tokens."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Writes the keys and values of new tokens [n, heads, t, d]; all so far, with T + t tokens."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
            self.rooms = (self.keys, self.values)
        assert self.keys is not None and self.values is not None, "initialized above"
        start = self.keys.shape[2]
        end = start + key_states.shape[2]
        if end > self.rooms[0].shape[2]:
            self.rooms = (_larger(self.keys, end), _larger(self.values, end))
        self.keys, self.values = (room[:, :, :end] for room in self.rooms)
        self.keys[:, :, start:] = key_states
        self.values[:, :, start:] = value_states
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keeps these rows, in this order."""
        length = self.get_seq_length()
        self.rooms = (self.rooms[0].index_select(0, indices), self.rooms[1].index_select(0, indices))
        self.keys, self.values = (room[:, :, :length] for room in self.rooms)


def _larger(tokens: Tensor, needed: int) -> Tensor:
    """A tensor with room for `needed` tokens and more, which begins with these."""
    rows, heads, length, dim = tokens.shape
    room = torch.empty(rows, heads, needed + _ROOM, dim, dtype=tokens.dtype, device=tokens.device)
    room[:, :, :length] = tokens
    return room


def growing_cache(config: PreTrainedConfig) -> DynamicCache:
    """An empty cache of a model. Layers that keep a window, or a state, stay as transformers makes them."""
    cache = DynamicCache(config=config)
    cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
