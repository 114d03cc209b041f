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
from torch import Tensor, nn
from transformers import PreTrainedModel

from rl.quantized import QuantizedLinear, dequantized
from rl.recipe import AdapterSection
from rl.sharding import like, local

Module = TypeVar("Module", bound=nn.Module)

_ADAPTER = "default"  # the name that peft gives an adapter which has none


def add_lora(model: PreTrainedModel, section: AdapterSection) -> None:
    """Puts adapters into the linear layers of the model, in place, and freezes everything else."""
    from peft import LoraConfig, inject_adapter_in_model  # seconds, for runs with adapters alone

    targets = section.targets if section.targets == "all-linear" else list(section.targets)
    config = LoraConfig(r=section.rank, lora_alpha=section.alpha, target_modules=targets, lora_dropout=0.0)
    inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".lora_" in name)
    if section.base == "nf4":
        for layer in _layers(model):
            layer.base_layer = QuantizedLinear(layer.base_layer)


@torch.no_grad()
def restart_lora(module: nn.Module, *, seed: int = 0) -> None:
    """Moves what the adapters have learned into the base, and starts them anew: B is 0, A random from the seed.

    A base in four bits has no room for it: there the adapters go on as they are.
    """
    generator = torch.Generator().manual_seed(seed)
    for layer in _layers(module):
        a, b = layer.lora_A[_ADAPTER].weight, layer.lora_B[_ADAPTER].weight
        if isinstance(layer.base_layer, QuantizedLinear):
            if not b.any():
                _begin(a, b, generator)
            continue
        layer.get_base_layer().weight.add_(b @ a, alpha=layer.scaling[_ADAPTER])
        _begin(a, b, generator)


def _begin(a: Tensor, b: Tensor, generator: torch.Generator) -> None:
    """An adapter that adds nothing yet."""
    b.zero_()
    bound = 1 / math.sqrt(a.shape[1])
    a.copy_(like(a, torch.rand(a.shape, generator=generator) * 2 * bound - bound))


@torch.no_grad()
def take_merged(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Takes over the weights of a plain model, with a base in four bits.

    Where a weight is the base and a product of the adapters' rank, as `merged` makes it, the base stays and the
    adapters become that product. Any other weight is rounded to four bits, under adapters that add nothing.

    Args:
        model: a language model with adapters.
        weights: under the names of the model without them.
    """
    generator = torch.Generator().manual_seed(0)
    layers: dict[str, Any] = {name: layer for name, layer in model.named_modules() if _has_adapter(layer)}
    own = model.state_dict()
    for name, tensor in weights.items():
        place, _, rest = name.rpartition(".")
        if place in layers and rest == "weight":
            _fit(layers[place], tensor, generator)
        else:
            target = own[base_name(model, name)]
            target.copy_(like(target, tensor))


_FITS = 1e-3  # share of a difference that adapters of the given rank may leave


def _fit(layer: Any, weight: Tensor, generator: torch.Generator) -> None:
    a, b = layer.lora_A[_ADAPTER].weight, layer.lora_B[_ADAPTER].weight
    difference = (weight.to(a.device) - layer.base_layer.weight()) / layer.scaling[_ADAPTER]
    with torch.random.fork_rng(devices=[]):  # the factorisation draws numbers
        torch.manual_seed(0)
        u, s, v = torch.svd_lowrank(difference, q=len(a), niter=4)
    left, right = u * s.sqrt(), (v * s.sqrt()).T
    if difference.any() and (difference - left @ right).norm() <= _FITS * difference.norm():
        b.copy_(like(b, left))
        a.copy_(like(a, right))
        return
    layer.base_layer.take(weight.to(a.device))
    _begin(a, b, generator)


def fork(module: Module) -> Module:
    """A copy with adapters (and all other trained parameters) of its own, on the same frozen tensors."""
    frozen = [parameter for parameter in module.parameters() if not parameter.requires_grad]
    shared: dict[int, Any] = {id(parameter): parameter for parameter in frozen}
    shared |= {id(layer): layer for layer in module.modules() if isinstance(layer, QuantizedLinear)}
    return copy.deepcopy(module, shared)


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
    scaling = {name: m.scaling[_ADAPTER] for name, m in module.named_modules() if _has_adapter(m)}
    plain: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        layer, base, rest = name.partition(".base_layer.")
        if ".lora_" in name or rest == "scales":
            continue
        if base and rest == "codes":
            quantized = module.get_submodule(f"{layer}.base_layer")
            assert isinstance(quantized, QuantizedLinear), "codes are of such layers alone"
            tensor, rest = dequantized(tensor, weights[f"{layer}.base_layer.scales"], quantized.shape), "weight"
        if base and rest == "weight":
            a, b = (weights[f"{layer}.lora_{side}.{_ADAPTER}.weight"] for side in "AB")
            tensor = tensor + scaling[layer] * (b @ a)
        plain[f"{layer}.{rest}" if base else name] = tensor
    return plain


def base_name(module: nn.Module, name: str) -> str:
    """The name that a weight of the plain model has in the module with adapters."""
    layer, _, rest = name.rpartition(".")
    return f"{layer}.base_layer.{rest}" if _has_adapter(module.get_submodule(layer)) else name


def _has_adapter(layer: nn.Module) -> bool:
    """True of peft's LoRA layers, which are known by their adapters: to import the class takes seconds."""
    return hasattr(layer, "lora_A")


def _layers(module: nn.Module) -> list[Any]:  # peft's own annotations are those of nn.Module
    return [child for child in module.modules() if _has_adapter(child)]
