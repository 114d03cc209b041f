"""FSDP2: one module over the ranks of a process group, and whole weights in and out of it.

Every function also serves a module that is not sharded, so that the learner has one path.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    set_model_state_dict,
)
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

Module = TypeVar("Module", bound=nn.Module)


def world_size() -> int:
    """Ranks that share the models; 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first_rank() -> bool:
    """True on the rank that whole weights are gathered to."""
    return not dist.is_initialized() or dist.get_rank() == 0


def shard(module: Module, *, compute_dtype: torch.dtype) -> Module:
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
    lists = [list(child) for child in module.modules() if isinstance(child, nn.ModuleList)]
    return max(lists, key=len) if lists else []


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
    _reshard(module)
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return cast(dict[str, Tensor], get_model_state_dict(module, options=options))


def load_whole_weights(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Loads what `whole_weights` gave; on ranks other than the first `weights` is empty and comes by broadcast."""
    if not dist.is_initialized():
        module.load_state_dict(dict(weights))
        return
    _reshard(module)
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(module, dict(weights), options=options)


def _reshard(module: nn.Module) -> None:
    """After a forward pass without a backward one, the root's parameters still lie whole on every rank."""
    for child in module.modules():
        if isinstance(child, FSDPModule):
            child.reshard()


_MOMENTS = ("exp_avg", "exp_avg_sq")


def whole_optimizer_state(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """AdamW's moments and step counts as `<parameter>|<name>`, unsharded, on the CPU; empty on other ranks."""
    state: dict[str, Tensor] = {}
    for name, parameter in module.named_parameters():
        for key in _MOMENTS:
            if parameter in optimizer.state:
                whole = _unsharded(optimizer.state[parameter][key]).cpu()
                state |= {f"{name}|{key}": whole} if is_first_rank() else {}
        if parameter in optimizer.state and is_first_rank():
            state[f"{name}|step"] = _unsharded(optimizer.state[parameter]["step"]).cpu()
    return state


def load_whole_optimizer_state(
    module: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]
) -> None:
    """Loads what `whole_optimizer_state` gave, on any number of ranks; ranks other than the first pass an empty one."""
    names = _on_every_rank(sorted({key.rpartition("|")[0] for key in state}))
    parameters = dict(module.named_parameters())
    for name in names:
        parameter = parameters[name]
        step = _on_every_rank(float(state[f"{name}|step"]) if is_first_rank() else 0.0)
        restored = {"step": torch.tensor(step, device=parameter.device)}
        for key in _MOMENTS:
            restored[key] = _sharded_like(parameter, state.get(f"{name}|{key}"))
        optimizer.state[parameter] = restored


def _unsharded(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _sharded_like(parameter: Tensor, whole: Tensor | None) -> Tensor:
    """`whole`, which the first rank has, in the layout of the parameter."""
    if not isinstance(parameter, DTensor):
        assert whole is not None
        return whole.to(parameter.device).clone()
    if whole is None:
        whole = torch.empty(parameter.shape, dtype=parameter.dtype)
    return distribute_tensor(whole.to(parameter.device), parameter.device_mesh, parameter.placements)


def _on_every_rank(value: Any) -> Any:
    """The first rank's value."""
    if not dist.is_initialized():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]
