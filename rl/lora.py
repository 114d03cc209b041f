"""LoRA through peft: a frozen base and small trained adapters, merged wherever weights leave the learner.

Critic and reference are forks: adapters of their own on the very same frozen base, which exists once in memory. Where
models are sharded over ranks, each of them has its own shards of the base, equal to the policy's.
Source: Hu et al. 2021, https://arxiv.org/abs/2106.09685, eq. 3.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from rl.recipe import AdapterSection
from rl.sharding import like, local

Module = TypeVar("Module", bound=nn.Module)

_ADAPTER = "default"  # the name that peft gives an adapter which has none


def add_lora(model: PreTrainedModel, section: AdapterSection) -> None:
    """Puts adapters into the linear layers of the model, in place, and freezes everything else."""
    targets = section.targets if section.targets == "all-linear" else list(section.targets)
    config = LoraConfig(r=section.rank, lora_alpha=section.alpha, target_modules=targets, lora_dropout=0.0)
    inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".lora_" in name)


@torch.no_grad()
def restart_lora(module: nn.Module, *, seed: int = 0) -> None:
    """Moves what the adapters have learned into the base, and starts them anew: B is 0, A random from the seed."""
    generator = torch.Generator().manual_seed(seed)
    for layer in _layers(module):
        a, b = layer.lora_A[_ADAPTER].weight, layer.lora_B[_ADAPTER].weight
        layer.get_base_layer().weight.add_(b @ a, alpha=layer.scaling[_ADAPTER])
        b.zero_()
        bound = 1 / math.sqrt(a.shape[1])
        a.copy_(like(a, torch.rand(a.shape, generator=generator) * 2 * bound - bound))


def fork(module: Module) -> Module:
    """A copy with adapters (and all other trained parameters) of its own, on the same frozen tensors."""
    shared = {id(parameter): parameter for parameter in module.parameters() if not parameter.requires_grad}
    return copy.deepcopy(module, dict(shared))


def own_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of the tensors of a critic or a reference, those that are not the base's."""
    return {name: x for name, x in tensors.items() if ".lora_" in name or name.startswith("value_head.")}


@torch.no_grad()
def take_base(module: nn.Module, other: nn.Module, *, prefixes: tuple[str, str]) -> None:
    """Makes the base of a critic or a reference equal to the policy's again, shard by shard.

    Args:
        module: whose base changes.
        other: the policy, in the same layout.
        prefixes: of the names of the base in `module` and in `other`.
    """
    known = dict(other.named_parameters())
    for name, parameter in module.named_parameters():
        if name.startswith(prefixes[0]) and ".lora_" not in name:
            local(parameter).copy_(local(known[prefixes[1] + name.removeprefix(prefixes[0])]))


def merged(module: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a module with adapters, under the names that they have without: W + alpha / r * B A.

    Args:
        module: where the scaling of each adapter is read.
        weights: of the module, by its own names.
    """
    scaling = {name: m.scaling[_ADAPTER] for name, m in module.named_modules() if isinstance(m, LoraLayer)}
    plain: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        layer, base, rest = name.partition(".base_layer.")
        if ".lora_" in name:
            continue
        if base and rest == "weight":
            a, b = (weights[f"{layer}.lora_{side}.{_ADAPTER}.weight"] for side in "AB")
            tensor = tensor + scaling[layer] * (b @ a)
        plain[f"{layer}.{rest}" if base else name] = tensor
    return plain


def base_name(module: nn.Module, name: str) -> str:
    """The name that a weight of the plain model has in the module with adapters."""
    layer, _, rest = name.rpartition(".")
    return f"{layer}.base_layer.{rest}" if isinstance(module.get_submodule(layer), LoraLayer) else name


def _layers(module: nn.Module) -> list[Any]:  # peft's own annotations are those of nn.Module
    return [child for child in module.modules() if isinstance(child, LoraLayer)]
