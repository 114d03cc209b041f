"""The tokens that could have been sampled in place of each sampled token, where top-k or top-p leave others out.

Sampling from a truncated distribution is acting with fewer actions. The policy that acts is pi(a) / pi(S) over the
tokens S that were left, so that is what old, new and reference log-probs are of, with S as the policy before the
update had it: the ratio is 1 before the first step, and gradients are those of the policy that sampled. With log-probs
of the whole distribution, the ratio to the engine's would hold pi(S), which is no change of the policy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class RowSets:
    """Of the sampled tokens of one row, in their order. A counts them."""

    sizes: NDArray[np.int32]
    """[A] tokens of each set"""
    ids: NDArray[np.int32]
    """[sum of sizes] one set after the other"""
    outside: int
    """sampled tokens that the policy's own truncation would have left out: rounding, or an older policy's; they are in
    their sets all the same"""


@dataclass(frozen=True)
class TokenSets:
    """Of the rows of a batch; empty where every token could be sampled."""

    rows: tuple[RowSets, ...] = ()
    """[B]"""

    def take(self, rows: Sequence[int]) -> TokenSets:
        """The same with only these rows, in this order."""
        return TokenSets(tuple(self.rows[index] for index in rows)) if self.rows else self

    def flat(self, action_mask: Tensor) -> tuple[Tensor, Tensor] | None:
        """(sizes [N], ids [sum of sizes]) of the sampled tokens of all rows, on the mask's device; None for all tokens.

        Args:
            action_mask: [B, T]; a row without any True is one that is not learned from.
        """
        if not self.rows:
            return None
        learned = [row for row, any_sampled in zip(self.rows, action_mask.any(1).tolist()) if any_sampled]
        sizes = np.concatenate([np.zeros(0, np.int32), *(row.sizes for row in learned)])
        ids = np.concatenate([np.zeros(0, np.int32), *(row.ids for row in learned)])
        assert len(sizes) == int(action_mask.sum()), "a set for every sampled token"
        return tuple(torch.from_numpy(x).to(action_mask.device, torch.int64) for x in (sizes, ids))  # type: ignore[return-value]

    @staticmethod
    def of(chunks: Iterable[tuple[Tensor, Tensor]], action_mask: Tensor) -> TokenSets:
        """From masks.

        Args:
            chunks: of the sampled tokens of all rows, n at a time: [n, V] bool, True for the tokens that are left, and
                [n] the tokens that were sampled.
            action_mask: [B, T] bool.
        """
        pieces = [_ragged(kept, targets) for kept, targets in chunks]
        sizes, ids, outside = (np.concatenate(list(column)) for column in zip(*pieces))
        ends = action_mask.sum(1).cumsum(0)[:-1].tolist()  # sampled tokens up to and with each row
        own = np.split(sizes, ends)
        starts = np.cumsum([int(row.sum()) for row in own])[:-1]
        return TokenSets(
            tuple(
                RowSets(row, chosen, int(missing.sum()))
                for row, chosen, missing in zip(own, np.split(ids, starts), np.split(outside, ends))
            )
        )

    def metrics(self) -> dict[str, float]:
        """Mean size of the sets, and share of sampled tokens outside; nothing where every token could be sampled."""
        tokens = sum(len(row.sizes) for row in self.rows)
        if not tokens:
            return {}
        return {
            "truncation/tokens_left": sum(int(row.sizes.sum()) for row in self.rows) / tokens,
            "truncation/outside_share": sum(row.outside for row in self.rows) / tokens,
        }


def _ragged(kept: Tensor, targets: Tensor) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.bool_]]:
    """(sizes [n], ids, [n] whether the target was outside) of n sets, each with its target."""
    outside = ~kept.gather(1, targets[:, None])[:, 0]
    kept = kept.scatter(1, targets[:, None], True)
    sizes, ids = kept.sum(1), kept.nonzero()[:, 1]
    return sizes.cpu().numpy().astype(np.int32), ids.cpu().numpy().astype(np.int32), outside.cpu().numpy()


NO_SETS = TokenSets()
