"""One module with its optimizer and schedule: steps over micro-batches, saved and restored whole."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from rl.batch import Minibatch, PPOBatch, empty_row, micro_batches, take_rows, tensors_of
from rl.models import Critic, Policy
from rl.parts import parameter_groups
from rl.recipe import OptimizerSection
from rl.sharding import local, same_count_on_every_rank, world_size

Sums = dict[str, float]

# Of a step as a whole: the same number on every rank.
WHOLE_STEP = ("grad_norm", "skipped_steps")


@dataclass(frozen=True)
class MicroLoss:
    """Loss of one micro-batch and the sums that it adds to the metrics."""

    loss: Tensor
    """scalar with gradient, already divided by the token count of the whole mini-batch"""
    sums: Mapping[str, Tensor]
    """scalars without gradient; added over micro-batches and ranks, see `added`"""


def learning_rate(section: OptimizerSection, step: int, total: int) -> float:
    """Learning rate of step 0 <= step < total: linear warm-up, then constant, linear or cosine to final_share."""
    if step < section.warmup:
        return section.learning_rate * (step + 1) / section.warmup
    progress = (step - section.warmup) / max(total - section.warmup, 1)
    if section.schedule == "constant":
        return section.learning_rate
    remaining = 1 - progress if section.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    return section.learning_rate * (section.final_share + (1 - section.final_share) * remaining)


class TrainedModel:
    """A module, AdamW, and the step that both policy and critic take."""

    def __init__(
        self,
        module: Policy | Critic,
        section: OptimizerSection,
        *,
        device: torch.device,
        micro_batch_tokens: int,
        packed: bool = False,
        average: nn.Module | None = None,
    ) -> None:
        self.module = module
        self.average = average
        self.section = section
        self.micro_batch_tokens = micro_batch_tokens
        self.packed = packed
        self.optimizer = torch.optim.AdamW(
            parameter_groups(module, module.backbone, section),
            lr=section.learning_rate,
            betas=section.betas,
            weight_decay=section.weight_decay,
            fused=True,
        )
        self.device = device

    def set_learning_rate(self, value: float) -> None:
        """Takes effect at the next step."""
        for group in self.optimizer.param_groups:
            group["lr"] = value * group["scale"]

    def step(self, minibatch: Minibatch, loss_of: Callable[[PPOBatch, Minibatch], MicroLoss]) -> Sums:
        """One optimizer step on this rank's rows of a mini-batch.

        Gradients of the micro-batches add up; FSDP averages over ranks, so each loss counts `world_size` times.
        A step whose gradient is not finite is skipped and counted.

        Returns:
            Sums over this rank's tokens, and `grad_norm` (before clipping) and `skipped_steps` of the whole step.
        """
        self.optimizer.zero_grad(set_to_none=True)
        sums: Sums = {}
        for micro in self._pieces(minibatch.batch):
            out = loss_of(micro, minibatch)
            (out.loss * world_size()).backward()
            own = {"loss": float(out.loss.detach()), **{name: float(value) for name, value in out.sums.items()}}
            sums = added(sums, own) if sums else own
        learning = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        clipped = torch.nn.utils.clip_grad_norm_(learning, self.section.max_grad_norm)
        norm = float(clipped.full_tensor() if isinstance(clipped, DTensor) else clipped)
        finite = math.isfinite(norm)
        if finite:
            self.optimizer.step()
            self._update_average()
        return {**sums, "grad_norm": norm if finite else 0.0, "skipped_steps": float(not finite)}

    @torch.no_grad()
    def _update_average(self) -> None:
        """average <- decay * average + (1 - decay) * weights, each rank on its shards."""
        if self.average is not None and self.section.ema_decay is not None:
            for mean, parameter in zip(self.average.parameters(), self.module.parameters()):
                local(mean).lerp_(local(parameter), 1 - self.section.ema_decay)

    def _pieces(self, batch: PPOBatch) -> list[PPOBatch]:
        """Micro-batches on the device; ranks with fewer get empty ones, so that all ranks communicate alike."""
        rows = micro_batches(batch.attention_mask, max_tokens=self.micro_batch_tokens, packed=self.packed)
        missing = same_count_on_every_rank(len(rows), self.device) - len(rows)
        pieces = [_on_device(take_rows(batch, piece), self.device) for piece in rows]
        return pieces + [empty_row(batch, self.device)] * missing


def _on_device(batch: PPOBatch, device: torch.device) -> PPOBatch:
    moved: dict[str, Any] = {name: tensor.to(device, non_blocking=True) for name, tensor in tensors_of(batch).items()}
    return dataclasses.replace(batch, **moved)


def added(a: Sums, b: Sums) -> Sums:
    """Both together, over micro-batches or ranks: names in `_max` are maxima, all others sums."""
    return {name: max(a[name], b[name]) if name.endswith("_max") else a[name] + b[name] for name in a}
