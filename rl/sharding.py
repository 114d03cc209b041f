"""FSDP2: one module over the ranks of a process group, and whole weights in and out of it.

Every function also serves a module that is not sharded, so that the learner has one path.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard


def world_size() -> int:
    """Ranks that share the models; 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first_rank() -> bool:
    """True on the rank that whole weights are gathered to."""
    return not dist.is_initialized() or dist.get_rank() == 0


def shard(module: nn.Module, *, compute_dtype: torch.dtype) -> nn.Module:
    """Shards parameters over the process group, each transformer layer a unit of its own; without a group a no-op.

    Weights and gradient reductions stay in float32; `compute_dtype` is that of forward and backward.
    """
    if not dist.is_initialized():
        return module
    policy = MixedPrecisionPolicy(param_dtype=compute_dtype, reduce_dtype=torch.float32)
    for layer in _transformer_layers(module):
        fully_shard(layer, mp_policy=policy)
    fully_shard(module, mp_policy=policy)
    return module


def _transformer_layers(module: nn.Module) -> list[nn.Module]:
    """The blocks of the longest ModuleList: the layers of the decoder."""
    lists = [child for child in module.modules() if isinstance(child, nn.ModuleList)]
    return list(max(lists, key=len)) if lists else []


def same_count_on_every_rank(count: int, device: torch.device) -> int:
    """The largest count over the ranks: each must run forward and backward equally often."""
    if not dist.is_initialized():
        return count
    tensor = torch.tensor(count, device=device)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return int(tensor)


def whole_weights(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer, unsharded, on the CPU. Empty on ranks other than the first."""
    if not dist.is_initialized():
        return {name: tensor.detach().cpu() for name, tensor in module.state_dict().items()}
    return get_model_state_dict(module, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def load_whole_weights(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Loads what `whole_weights` gave; on ranks other than the first `weights` is empty and comes by broadcast."""
    if not dist.is_initialized():
        module.load_state_dict(dict(weights))
        return
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(module, dict(weights), options=options)


def whole_optimizer_state(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """AdamW's moments and step counts by parameter name, unsharded, on the CPU; empty on other ranks."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, flatten_optimizer_state_dict=True)
    state = get_optimizer_state_dict(module, optimizer, options=options)
    return {name: value for name, value in state.items() if name.startswith("state.") and torch.is_tensor(value)}


def load_whole_optimizer_state(
    module: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]
) -> None:
    """Loads what `whole_optimizer_state` gave, on the same or another number of ranks."""
    distributed = dist.is_initialized()
    options = StateDictOptions(
        full_state_dict=True, flatten_optimizer_state_dict=True, broadcast_from_rank0=distributed
    )
    current = get_optimizer_state_dict(
        module, optimizer, options=StateDictOptions(flatten_optimizer_state_dict=True, full_state_dict=True)
    )
    settings = {name: value for name, value in current.items() if not name.startswith("state.")}
    set_optimizer_state_dict(module, optimizer, {**settings, **state}, options=options)
