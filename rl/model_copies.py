"""Models on one rank: placed on its device, compiled, sharded; critics and frozen copies made of a policy."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import PreTrainedModel

from rl.errors import UserError
from rl.lora import add_lora, fork, take_base
from rl.models import Critic, Policy
from rl.quantized import require_bitsandbytes
from rl.recipe import LearnerSection
from rl.sharding import is_first_rank, load_whole_weights, shard, transformer_layers, whole_weights
from rollouts.processing import takes_images

Module = TypeVar("Module", bound=nn.Module)

POLICY_PREFIX = "language_model."  # of a transformers model's weights inside `Policy`
_CRITIC_PREFIX = "backbone."


class ModelCopies:
    """Everything that a policy, a critic and a frozen copy have in common."""

    def __init__(self, section: LearnerSection, architecture: PreTrainedModel, device: torch.device) -> None:
        """`architecture` has no storage and no adapters: the pattern from which copies are made.

        Raises:
            UserError: packing of a model that takes images; a base in four bits without bitsandbytes.
        """
        if section.lora is not None and section.lora.base == "nf4":
            require_bitsandbytes()
        if section.packing and takes_images(architecture.config):
            raise UserError("learner.packing: true; a model that takes images is not packed")
        self._section = section
        self._architecture = architecture
        self._device = device
        self._compute_dtype = torch.bfloat16 if section.dtype == "bfloat16" else torch.float32
        self._base_prefix = f"{POLICY_PREFIX}{architecture.base_model_prefix}."

    def policy(self, language_model: PreTrainedModel) -> Policy:
        """The policy around a loaded model, which gets its adapters."""
        if self._section.lora is not None:
            add_lora(language_model, self._section.lora)
        return self._sharded(self._policy_around(language_model).to(self._device))

    def frozen(self, policy: Policy) -> Policy:
        """The policy as it is, without gradients."""
        if self._shares_base:
            return fork(policy).requires_grad_(False)
        model = copy.deepcopy(self._architecture)
        if self._section.lora is not None:
            add_lora(model, self._section.lora)
        twin = self._policy_around(model.to_empty(device=self._device))
        return self._filled(twin, policy, whole_weights(policy)).requires_grad_(False)

    def critic(self, policy: Policy) -> Critic:
        """A critic whose backbone is the policy as it is; its value head is zero."""
        if self._shares_base:
            return self._critic_around(cast(PreTrainedModel, fork(policy.language_model.base_model))).to(self._device)
        model = copy.deepcopy(self._architecture)
        if self._section.lora is not None:
            add_lora(model, self._section.lora)
        critic = self._critic_around(cast(PreTrainedModel, model.base_model)).to_empty(device=self._device)
        weights = {
            _CRITIC_PREFIX + name.removeprefix(self._base_prefix): x
            for name, x in whole_weights(policy).items()
            if name.startswith(self._base_prefix)
        }
        if is_first_rank():
            weights["value_head.weight"] = torch.zeros(critic.value_head.weight.shape)
        return self._filled(critic, policy, weights)

    def restore_base(self, module: nn.Module, policy: Policy) -> None:
        """The base of a critic or a frozen copy, which no checkpoint holds twice, is the policy's again."""
        if not self._shares_base:
            critic = isinstance(module, Critic)
            prefixes = (_CRITIC_PREFIX, self._base_prefix) if critic else (POLICY_PREFIX, POLICY_PREFIX)
            take_base(module, policy, prefixes=prefixes)

    @property
    def _shares_base(self) -> bool:
        """One frozen base serves policy and copies; what is sharded cannot be shared."""
        return self._section.lora is not None and not dist.is_initialized()

    def _policy_around(self, language_model: PreTrainedModel) -> Policy:
        section = self._section
        return Policy(language_model, head_chunk_tokens=section.head_chunk_tokens, packed=section.packing)

    def _critic_around(self, backbone: PreTrainedModel) -> Critic:
        return Critic(backbone, packed=self._section.packing)

    def _filled(self, module: Module, policy: Policy, weights: Mapping[str, Tensor]) -> Module:
        """Shards a module that has storage but no content, and loads its weights; empty on ranks but the first."""
        _fill_buffers(module, policy)
        module = self._sharded(module)
        load_whole_weights(module, weights)
        return module

    def _sharded(self, module: Module) -> Module:
        section = self._section
        if section.compile:
            for layer in transformer_layers(module):
                layer.compile(dynamic=True)
        return shard(
            module, compute_dtype=self._compute_dtype, reshard=section.reshard, cpu_offload=section.cpu_offload
        )


def _fill_buffers(module: nn.Module, like: nn.Module) -> None:
    """Copies buffers that no state dict holds (rotary frequencies) by the end of their name."""
    known = {name.split(".", 1)[-1].removeprefix("model."): buffer for name, buffer in like.named_buffers()}
    for name, buffer in module.named_buffers():
        key = name.split(".", 1)[-1].removeprefix("model.")
        buffer.copy_(known[key])
