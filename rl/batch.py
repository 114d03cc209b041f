"""Tensors of one iteration, and how they are cut into mini-batches, shards and micro-batches.

Letters: B trajectories, T tokens of the longest one. Rows are padded on the right, so that causal
attention never sees padding and no attention mask is needed. Index t of a per-token field is token t.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl.row_inputs import NO_ROW_INPUTS, RowInputs
from rl.scoring import ScoredTrajectory
from rl.token_sets import NO_SETS, TokenSets
from rollouts.trajectory import ModelInputs


@dataclass(frozen=True)
class TokenBatch:
    """Trajectories as tensors, before any model has seen them."""

    token_ids: Tensor
    """[B, T] int64"""
    attention_mask: Tensor
    """[B, T] bool, False on padding"""
    action_mask: Tensor
    """[B, T] bool, True where the policy sampled the token"""
    rollout_logprobs: Tensor
    """[B, T] nats, measured by the engine; 0 where action_mask is False"""
    rewards: Tensor
    """[B, T] the reward of a trajectory sits on its last sampled token, save what was earned on the way"""
    truncated: Tensor
    """[B] bool, True where max_tokens cut the response"""
    groups: Tensor
    """[B] int64, equal for the samples of one prompt"""
    model_inputs: RowInputs = NO_ROW_INPUTS
    """[B] of the images of each row"""


@dataclass(frozen=True)
class Evaluation:
    """What the models say of a batch before the update."""

    logprobs: Tensor
    """[B, T] nats, of the policy"""
    ref_logprobs: Tensor
    """[B, T] nats, of the frozen start of the stage; equal to logprobs where the stage has no reference"""
    values: Tensor
    """[B, T] of the critic, before token t is emitted; 0 where there is no critic"""
    last_values: Tensor
    """[B] of the critic, after the last token"""
    token_sets: TokenSets = NO_SETS
    """[B] the tokens that log-probs are over"""


@dataclass(frozen=True)
class PPOBatch:
    """A TokenBatch with everything that the update needs."""

    token_ids: Tensor
    """[B, T] int64"""
    attention_mask: Tensor
    """[B, T] bool"""
    action_mask: Tensor
    """[B, T] bool"""
    rollout_logprobs: Tensor
    """[B, T] nats"""
    old_logprobs: Tensor
    """[B, T] nats, of the policy before the update"""
    ref_logprobs: Tensor
    """[B, T] nats"""
    old_values: Tensor
    """[B, T]"""
    advantages: Tensor
    """[B, T]"""
    returns: Tensor
    """[B, T]"""
    model_inputs: RowInputs = NO_ROW_INPUTS
    """[B] of the images of each row"""
    token_sets: TokenSets = NO_SETS
    """[B] the tokens that log-probs are over"""

    @staticmethod
    def of(batch: TokenBatch, before: Evaluation, *, advantages: Tensor, returns: Tensor) -> PPOBatch:
        """A batch, what the models said of it, and what was estimated from both."""
        return PPOBatch(
            token_ids=batch.token_ids,
            attention_mask=batch.attention_mask,
            action_mask=batch.action_mask,
            rollout_logprobs=batch.rollout_logprobs,
            old_logprobs=before.logprobs,
            ref_logprobs=before.ref_logprobs,
            old_values=before.values,
            advantages=advantages,
            returns=returns,
            model_inputs=batch.model_inputs,
            token_sets=before.token_sets,
        )

    @staticmethod
    def of_tokens(batch: TokenBatch) -> PPOBatch:
        """For losses that read tokens and masks alone (maximum likelihood): zeros in place of all that is measured."""
        zeros = torch.zeros_like(batch.rewards)
        before = Evaluation(logprobs=zeros, ref_logprobs=zeros, values=zeros, last_values=zeros[:, 0])
        return PPOBatch.of(batch, before, advantages=zeros, returns=zeros)


@dataclass(frozen=True)
class Minibatch:
    """Rows of one optimizer step, or the share of them that one rank gets."""

    batch: PPOBatch
    token_count: int
    """sampled tokens of the whole mini-batch over all ranks: the divisor of every loss"""
    response_count: int
    """rows of the whole mini-batch with a sampled token: the divisor of losses that average over responses"""


AnyBatch = TypeVar("AnyBatch", TokenBatch, PPOBatch, Evaluation)


def collate(scored: Sequence[ScoredTrajectory], *, truncated_reward: float | None = None) -> TokenBatch:
    """Pads trajectories on the right and puts each reward on the last sampled token, save its partial rewards.

    Args:
        scored: at least one trajectory, each with at least one sampled token.
        truncated_reward: reward of a response that was cut, in place of its own and all parts; None keeps its own.
    """
    trajectories = [item.trajectory for item in scored]
    batch = pad_tokens(
        [t.token_ids for t in trajectories],
        [t.action_mask for t in trajectories],
        [t.model_inputs for t in trajectories],
    )
    group_of: dict[str, int] = {}
    for row, (item, trajectory) in enumerate(zip(scored, trajectories)):
        sampled = np.flatnonzero(trajectory.action_mask)
        if truncated_reward is not None and trajectory.truncated:
            batch.rewards[row, int(sampled[-1])] = truncated_reward
        else:
            _put_rewards(batch.rewards[row], sampled, item)
        group_of.setdefault(trajectory.prompt.prompt_id, len(group_of))
    return dataclasses.replace(
        batch,
        rollout_logprobs=_padded([t.rollout_logprobs for t in trajectories]),
        truncated=torch.tensor([trajectory.truncated for trajectory in trajectories]),
        groups=torch.tensor([group_of[trajectory.prompt.prompt_id] for trajectory in trajectories]),
    )


def _put_rewards(rewards: Tensor, sampled: NDArray[np.int64], item: ScoredTrajectory) -> None:
    """Fills one row [T] of zeros: each part on its token, the rest on the last; `sampled` holds their places."""
    for index, reward in item.partial:
        rewards[int(sampled[index])] += reward
    rewards[int(sampled[-1])] += item.reward - sum(reward for _, reward in item.partial)


def sampled_by(scored: Sequence[ScoredTrajectory], *, version: int) -> Tensor:
    """[B, T] bool, True for tokens that the policy of this version sampled; rows as in `collate`."""
    return _padded([item.trajectory.policy_versions == version for item in scored])


def pad_tokens(
    token_ids: Sequence[NDArray[np.int64]],
    action_masks: Sequence[NDArray[np.bool_]],
    model_inputs: Sequence[ModelInputs] = (),
) -> TokenBatch:
    """Rows padded on the right, every row a group of its own, without rewards and log-probs.

    Args:
        token_ids: B arrays, row b of length T_b.
        action_masks: B arrays of the same lengths.
        model_inputs: of each row's images; none where no row has any.
    """
    tokens = _padded(token_ids)
    zeros = torch.zeros(tokens.shape)
    return TokenBatch(
        token_ids=tokens,
        attention_mask=_padded([np.ones(len(row), np.bool_) for row in token_ids]),
        action_mask=_padded(action_masks),
        rollout_logprobs=zeros,
        rewards=zeros.clone(),
        truncated=torch.zeros(len(tokens), dtype=torch.bool),
        groups=torch.arange(len(tokens)),
        model_inputs=RowInputs.of(list(model_inputs)),
    )


def _padded(rows: Sequence[NDArray[Any]]) -> Tensor:
    """[B, T], zeros (False) after the end of each row."""
    out = np.zeros((len(rows), max(map(len, rows))), rows[0].dtype)
    for target, row in zip(out, rows):
        target[: len(row)] = row
    return torch.from_numpy(out)


def empty_row(batch: AnyBatch, device: torch.device) -> AnyBatch:
    """One row of two padding tokens: takes part in collectives, adds nothing."""
    shapes = {1: (1,), 2: (1, 2)}
    tensors = tensors_of(batch)
    fields: dict[str, Any] = {
        name: torch.zeros(shapes[x.dim()], dtype=x.dtype, device=device) for name, x in tensors.items()
    }
    if not isinstance(batch, Evaluation):
        fields["model_inputs"] = NO_ROW_INPUTS
    if not isinstance(batch, TokenBatch):
        fields["token_sets"] = NO_SETS
    return dataclasses.replace(batch, **fields)


def tensors_of(batch: TokenBatch | PPOBatch | Evaluation) -> dict[str, Tensor]:
    """The fields that are tensors."""
    return {name: value for name, value in vars(batch).items() if isinstance(value, Tensor)}


def take_rows(batch: AnyBatch, rows: Tensor) -> AnyBatch:
    """The same batch with only these rows, in this order; columns that are padding in all of them are cut off."""
    fields: dict[str, Any] = {name: x[rows] for name, x in tensors_of(batch).items()}
    if "attention_mask" in fields:
        width = max(int(fields["attention_mask"].sum(1).max()), 1) if len(rows) else 1
        fields = {name: x[:, :width] if x.dim() == 2 else x for name, x in fields.items()}
    if not isinstance(batch, Evaluation):
        fields["model_inputs"] = batch.model_inputs.take(rows)
    if not isinstance(batch, TokenBatch):
        fields["token_sets"] = batch.token_sets.take(rows.tolist())
    return dataclasses.replace(batch, **fields)


def micro_batches(attention_mask: Tensor, *, max_tokens: int, packed: bool = False) -> list[Tensor]:
    """Row indices, longest rows first, cut so that a piece has at most max_tokens (one row at least).

    Args:
        attention_mask: [B, T] bool.
        max_tokens: of a piece, rows * longest row; of a packed one, the sum of the lengths.

    Returns:
        Index tensors that together hold every row once. Rows of like length share a micro-batch.
    """
    lengths = attention_mask.sum(1)
    order = torch.argsort(lengths, descending=True, stable=True)
    pieces: list[Tensor] = []
    start = 0
    ends = lengths[order].clamp(min=1).cumsum(0)  # [B] tokens up to and with each row
    while start < len(order):
        longest = max(int(lengths[order[start]]), 1)
        if packed:
            end = int(torch.searchsorted(ends, ends[start] - longest + max_tokens, right=True))
        else:
            end = start + max_tokens // longest
        end = max(end, start + 1)
        pieces.append(order[start:end])
        start = end
    return pieces


def deal_rows(attention_mask: Tensor, ranks: int) -> list[Tensor]:
    """Row indices for each rank: the longest rows first, each to the rank with the fewest tokens so far."""
    lengths = attention_mask.sum(1).tolist()
    tokens, hands = [0] * ranks, [[] for _ in range(ranks)]  # type: ignore[var-annotated]
    for row in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        rank = min(range(ranks), key=lambda index: (tokens[index], index))
        hands[rank].append(row)
        tokens[rank] += lengths[row]
    return [torch.tensor(sorted(hand), dtype=torch.int64) for hand in hands]


def whole_minibatch(batch: PPOBatch) -> Minibatch:
    """A mini-batch of all rows."""
    mask = batch.action_mask
    return Minibatch(batch, max(int(mask.sum()), 1), max(int(mask.any(1).sum()), 1))


def minibatches(batch: PPOBatch, *, count: int, epochs: int, seed: int) -> list[Minibatch]:
    """`epochs` passes over the batch, each in `count` mini-batches of shuffled rows.

    Args:
        batch: B rows; where B is not a multiple of count (dropped trajectories), sizes differ by one.
        seed: fixes the shuffles.
    """
    generator = torch.Generator().manual_seed(seed)
    pieces: list[Minibatch] = []
    for _ in range(epochs):
        order = torch.randperm(len(batch.token_ids), generator=generator)
        for rows in torch.tensor_split(order, count):
            if len(rows):
                piece = take_rows(batch, rows)
                pieces.append(whole_minibatch(piece))
    return pieces
