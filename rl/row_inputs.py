"""The pixel inputs of the rows of a batch: carried by row, put together only where a model is called."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rollouts.processing import together
from rollouts.trajectory import ModelInputs


@dataclass(frozen=True)
class RowInputs:
    """Arguments of a model's forward beside the tokens, for models that take images."""

    rows: tuple[ModelInputs, ...] = ()
    """[B]; empty where no row has an image. Samples of one prompt share one object, also when it is sent"""

    @staticmethod
    def of(rows: list[ModelInputs]) -> RowInputs:
        """Of the rows of a batch."""
        return RowInputs(tuple(rows) if any(row.per_image or row.per_token for row in rows) else ())

    def take(self, rows: Tensor) -> RowInputs:
        """The same with only these rows, in this order."""
        return RowInputs.of([self.rows[int(index)] for index in rows]) if self.rows else self

    def arguments(self, token_ids: Tensor) -> dict[str, Tensor]:
        """Keyword arguments for the forward pass of these tokens [B, T], on their device."""
        arrays = together(self.rows, width=token_ids.shape[1])
        return {name: torch.from_numpy(array).to(token_ids.device) for name, array in arrays.items()}


NO_ROW_INPUTS = RowInputs()
