"""Steps that were skipped because loss or gradient was not finite: kept to be looked at, and limited."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from rl.batch import Minibatch, tensors_of
from rl.errors import RunFailed
from rl.recipe import NonFiniteSection
from rl.trained_model import Sums

Watch = Callable[[str, int, Sequence[Minibatch], Sequence[Sums]], None]
"""told of (`policy` or `critic`, iteration, mini-batches, sums of each) after the steps"""
# Of one model and iteration; the others of the iteration tell nothing new and can be large.
_KEPT_PER_ITERATION = 2


class RollBack(Exception):
    """Too many steps in a row were skipped, and the recipe asks to go back to the last good checkpoint."""


def watch_nothing(model: str, iteration: int, pieces: Sequence[Minibatch], sums: Sequence[Sums]) -> None:
    """For loops that nobody watches."""


class StepWatch:
    """Keeps the batch of each skipped step with its cause, and ends the stage where too many come in a row."""

    def __init__(self, section: NonFiniteSection, folder: Path, say: Callable[[str], None]) -> None:
        self._section, self._folder, self._say = section, folder, say
        self._in_a_row: Counter[str] = Counter()

    def __call__(self, model: str, iteration: int, pieces: Sequence[Minibatch], sums: Sequence[Sums]) -> None:
        """See `Watch`.

        Raises:
            RunFailed: more than `max_in_a_row` steps of the model were skipped, and `then` is stop.
            RollBack: the same, and `then` is roll_back.
        """
        kept = 0
        for step, (piece, own) in enumerate(zip(pieces, sums, strict=True)):
            if not own["skipped_steps"]:
                self._in_a_row[model] = 0
                continue
            self._in_a_row[model] += 1
            if kept < _KEPT_PER_ITERATION:
                path = self._keep(model, iteration, step, piece, own)
                self._say(f"{model}: a step of iteration {iteration + 1} is skipped: {cause(piece, own)}; see {path}")
                kept += 1
        if self._in_a_row[model] > self._section.max_in_a_row:
            self._give_up(model)

    def _keep(self, model: str, iteration: int, step: int, piece: Minibatch, sums: Sums) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{iteration}-{model}-{step}.safetensors"
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors_of(piece.batch).items()}
        save_file(tensors, path, metadata={"token_count": str(piece.token_count)})
        told = {name: x if math.isfinite(x) else str(x) for name, x in sums.items()}
        path.with_suffix(".json").write_text(
            json.dumps({"cause": cause(piece, sums), "iteration": iteration, "step": step, "sums": told}, indent=1)
        )
        return path

    def _give_up(self, model: str) -> None:
        in_a_row, self._in_a_row = self._in_a_row[model], Counter()
        if self._section.then == "roll_back":
            raise RollBack
        raise RunFailed(
            f"{model}: {in_a_row} steps in a row had a loss or gradient that is not finite "
            f"(non_finite.max_in_a_row is {self._section.max_in_a_row}); their batches are in {self._folder}"
        )


def cause(piece: Minibatch, sums: Sums) -> str:
    """What is not finite, from the data to the gradient: the first of them explains the others."""
    for name, tensor in tensors_of(piece.batch).items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            count = int((~torch.isfinite(tensor)).sum())
            return f"{count} of {tensor.numel()} values of {name} are not finite"
    if not math.isfinite(sums["loss"]):
        return f"the batch is finite, the loss is {sums['loss']}"
    return "batch and loss are finite, the gradient is not"
