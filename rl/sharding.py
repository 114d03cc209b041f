"""FSDP2: one module over the ranks of a process group, and whole weights in and out of it.

Every function also serves a module that is not sharded, so that the learner has one path.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar, cast

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    set_model_state_dict,
)
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

Module = TypeVar("Module", bound=nn.Module)


def world_size() -> int:
    """Ranks that share the models; 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first_rank() -> bool:
    """True on the rank that whole weights are gathered to."""
    return not dist.is_initialized() or dist.get_rank() == 0


def shard(module: Module, *, compute_dtype: torch.dtype, reshard: bool = True, cpu_offload: bool = False) -> Module:
    """Shards parameters over the process group, each transformer layer a unit of its own; without a group a no-op.

    Weights and gradient reductions stay in float32; `compute_dtype` is that of forward and backward.

    Args:
        reshard: free the whole weights of a layer after its forward pass, to gather them again for the backward one.
        cpu_offload: keep shards, gradients and optimizer in the memory of the CPU, where the optimizer then steps.
    """
    if not dist.is_initialized():
        return module
    policy = MixedPrecisionPolicy(param_dtype=compute_dtype, reduce_dtype=torch.float32)
    offload = CPUOffloadPolicy(pin_memory=torch.cuda.is_available()) if cpu_offload else OffloadPolicy()
    head = getattr(module, "value_head", None)
    if head is not None:  # bfloat16 has three digits: too few for values
        fully_shard(head, mp_policy=MixedPrecisionPolicy(reduce_dtype=torch.float32), offload_policy=offload)
    parts: list[nn.Module] = [*transformer_layers(module), module]
    for part in parts:
        fully_shard(part, mp_policy=policy, reshard_after_forward=reshard, offload_policy=offload)
    return module


def transformer_layers(module: nn.Module) -> list[nn.Module]:
    """The blocks of the longest ModuleList of the decoder. The layers of a vision tower stay with the root: a rank
    whose rows have no image does not call them."""
    models = [child for child in module.modules() if isinstance(child, PreTrainedModel)]
    decoder = models[0].get_decoder() if models else module
    lists = [list(child) for child in decoder.modules() if isinstance(child, nn.ModuleList)]
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


def optimizer_tensors(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """AdamW's moments and step counts as `<parameter>|<name>`, each in the layout of its parameter."""
    state: dict[str, Tensor] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            own = optimizer.state.get(parameter) or _fresh_state(parameter)
            state |= {f"{name}|{key}": own[key] for key in (*_MOMENTS, "step")}
    return state


def set_optimizer_tensors(module: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    """Takes over what `optimizer_tensors` gave."""
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            optimizer.state[parameter] = {key: state[f"{name}|{key}"] for key in (*_MOMENTS, "step")}


def _fresh_state(parameter: Tensor) -> dict[str, Tensor]:
    moments = {key: torch.zeros_like(parameter, requires_grad=False) for key in _MOMENTS}
    return {**moments, "step": torch.tensor(0.0, device=parameter.device)}


def local(tensor: Tensor) -> Tensor:
    """This rank's shard; the tensor itself where it is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, whole: Tensor) -> Tensor:
    """A tensor that every rank has, in the layout of another one."""
    if isinstance(tensor, DTensor):
        return distribute_tensor(whole.to(tensor.device), tensor.device_mesh, tensor.placements)
    return whole.to(tensor.device)


def module_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, each in the layout that it has on this rank."""
    _reshard(module)
    return {name: tensor.detach() for name, tensor in module.state_dict().items()}


def save_sharded(parts: Mapping[str, Mapping[str, Tensor]], folder: Path) -> None:
    """Writes each rank's shards to `folder`, which every rank sees. Any number of ranks can load them.

    The files are safetensors alone: torch's own layout has a pickle, which would run code of whoever wrote it.

    Raises:
        OSError: a rank cannot write.
    """
    try:
        with _without_warning_of_a_single_process():
            writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
            dcp.save(_flat(parts), storage_writer=writer, no_dist=not dist.is_initialized())
    except CheckpointException as error:
        rank, (cause, _) = next(iter(error.failures.items()))
        raise OSError(f"rank {rank}: {cause}") from error


def load_sharded(parts: Mapping[str, Mapping[str, Tensor]], folder: Path) -> None:
    """Fills the tensors of `parts`, in their own layout, with what `save_sharded` wrote, whatever the ranks were."""
    with _without_warning_of_a_single_process():
        reader = HuggingFaceStorageReader(str(folder))
        dcp.load(_flat(parts), storage_reader=reader, no_dist=not dist.is_initialized())


def _flat(parts: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Every tensor once: tied weights and a frozen base that models share have one name, by which all are filled."""
    flat: dict[str, Tensor] = {}
    seen: set[tuple[int, int, torch.Size]] = set()
    for part, tensors in parts.items():
        for name, tensor in tensors.items():
            local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
            place = (local.untyped_storage().data_ptr(), int(local.storage_offset()), local.shape)
            if local.numel() and place in seen:
                continue
            seen.add(place)
            flat[f"{part}/{name}"] = tensor
    return flat


@contextlib.contextmanager
def _without_warning_of_a_single_process() -> Iterator[None]:
    """torch warns that there is no process group also where it was told so."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
        yield
