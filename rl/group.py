"""The learner as the loop sees it: whole batches in, whole batches out, whatever the number of ranks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from rl.batch import Evaluation, Minibatch, TokenBatch, deal_rows, take_rows
from rl.recipe import AlgorithmSection, CriticSection, OptimizerSection
from rl.token_sets import TokenSets
from rl.trained_model import WHOLE_STEP, Sums, added
from rollouts.truncation import WHOLE, Truncation


class Ranks(Protocol):
    """Calls one method on every rank and returns the results in the order of the ranks."""

    count: int

    def call(self, method: str, arguments: Sequence[tuple[Any, ...]], **common: object) -> list[Any]:
        """`arguments[r]` are the positional arguments of rank r; keyword arguments are the same everywhere."""
        ...


class InProcessRank:
    """The only rank, in this process."""

    count = 1

    def __init__(self, learner: object) -> None:
        self.learner = learner

    def call(self, method: str, arguments: Sequence[tuple[Any, ...]], **common: object) -> list[Any]:
        """See `Ranks`."""
        return [getattr(self.learner, method)(*arguments[0], **common)]


@dataclass(frozen=True)
class LearnerGroup:
    """Deals rows to ranks by their tokens, and puts what comes back into the order of the batch."""

    ranks: Ranks

    def begin_sft(self, optimizer: OptimizerSection) -> None:
        """See `Learner`."""
        self._everywhere("begin_sft", optimizer)

    def begin_rl(
        self,
        optimizer: OptimizerSection,
        critic: CriticSection | None,
        algorithm: AlgorithmSection,
        temperature: float,
        truncation: Truncation = WHOLE,
    ) -> None:
        """See `Learner`."""
        self._everywhere("begin_rl", optimizer, critic, algorithm, temperature, truncation)

    def reset_reference(self) -> None:
        """See `Learner`."""
        self._everywhere("reset_reference")

    def evaluate(self, batch: TokenBatch) -> Evaluation:
        """Log-probs, reference log-probs and values of the whole batch."""
        hands = deal_rows(batch.attention_mask, self.ranks.count)
        parts = self.ranks.call("evaluate", [(take_rows(batch, rows),) for rows in hands])
        return _in_order(parts, hands, batch.token_ids.shape)

    def update_policy(self, pieces: Sequence[Minibatch], *, iteration: int, total: int) -> list[Sums]:
        """One optimizer step per mini-batch; the sums of each over all ranks."""
        return self._update("update_policy", pieces, iteration=iteration, total=total)

    def update_critic(self, pieces: Sequence[Minibatch], *, iteration: int, total: int) -> list[Sums]:
        """One optimizer step per mini-batch; the sums of each over all ranks."""
        return self._update("update_critic", pieces, iteration=iteration, total=total)

    def update_sft(self, piece: Minibatch, *, step: int, total: int) -> Sums:
        """One step of maximum likelihood."""
        shards = _shards(piece, self.ranks.count)
        results = self.ranks.call("update_sft", [(shard,) for shard in shards], step=step, total=total)
        return _added(results)

    def kl_coef(self) -> float:
        """The coefficient of KL, as adapted so far."""
        return float(self._everywhere("current_kl_coef")[0])

    def set_kl_coef(self, coef: float) -> None:
        """See `Learner`."""
        self._everywhere("set_kl_coef", coef)

    def weights(self) -> Mapping[str, NDArray[np.float32]]:
        """The policy under its transformers names."""
        return self._everywhere("weights")[0]

    def save_model(self, folder: Path) -> None:
        """A plain transformers model."""
        self._everywhere("save_model", folder)

    def load_model(self, folder: Path) -> None:
        """Takes over the weights of a model on disk."""
        self._everywhere("load_model", folder)

    def save_state(self, folder: Path) -> None:
        """Weights and optimizers."""
        self._everywhere("save_state", folder)

    def load_state(self, folder: Path) -> None:
        """Restores what `save_state` wrote."""
        self._everywhere("load_state", folder)

    def _everywhere(self, method: str, *arguments: object) -> list[Any]:
        return self.ranks.call(method, [arguments] * self.ranks.count)

    def _update(self, method: str, pieces: Sequence[Minibatch], **common: object) -> list[Sums]:
        shards = [_shards(piece, self.ranks.count) for piece in pieces]
        per_rank = [([piece[rank] for piece in shards],) for rank in range(self.ranks.count)]
        results: list[list[Sums]] = self.ranks.call(method, per_rank, **common)
        return [_added([rank[step] for rank in results]) for step in range(len(pieces))]


def _shards(piece: Minibatch, count: int) -> list[Minibatch]:
    if count == 1:
        return [piece]
    hands = deal_rows(piece.batch.attention_mask, count)
    return [dataclasses.replace(piece, batch=take_rows(piece.batch, rows)) for rows in hands]


def _added(results: Sequence[Sums]) -> Sums:
    """Sums over ranks; what describes the step as a whole is equal on every rank."""
    total = results[0]
    for other in results[1:]:
        total = added(total, other)
    return {**total, **{name: results[0][name] for name in WHOLE_STEP}}


def _in_order(parts: Sequence[Evaluation], hands: Sequence[torch.Tensor], shape: torch.Size) -> Evaluation:
    merged: dict[str, torch.Tensor] = {}
    sets = {int(row): own for part, rows in zip(parts, hands) for row, own in zip(rows, part.token_sets.rows)}
    for field in fields(Evaluation):
        if field.name == "token_sets":
            continue
        merged[field.name] = torch.zeros(shape if field.name != "last_values" else shape[:1])
        for part, rows in zip(parts, hands):
            value = getattr(part, field.name)
            if value.dim() == 2:
                merged[field.name][rows, : value.shape[1]] = value
            else:
                merged[field.name][rows] = value
    return Evaluation(**merged, token_sets=TokenSets(tuple(sets[row] for row in sorted(sets))))
