"""Supervised fine-tuning: phases with their own mixtures, maximum likelihood on the completion's tokens.

A plain loop on the learner, so that it is sharded, checkpointed and resumed like everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rl.batch import PPOBatch, TokenBatch, pad_tokens, whole_minibatch
from rl.checkpoint import StageState
from rl.errors import RunFailed, UserError
from rl.group import LearnerGroup
from rl.non_finite import Watch, watch_nothing
from rl.phases import PhaseClock
from rl.recipe import SftStage
from rollouts.collect import TokenizedPrompt, tokenized
from rollouts.images import ImageError
from rollouts.processing import Processing, tokenizer_of
from rollouts.prompts import MixedSource, RowStream, to_prompt
from rollouts.rows import Row

# Rows in a row with unreadable images before a source is taken to hold nothing else.
_MAX_UNREADABLE = 1000


@dataclass(frozen=True)
class SftLoop:
    """The parts that an sft stage works with."""

    stage: SftStage
    learner: LearnerGroup
    streams: Sequence[RowStream]
    """one per phase"""
    tokenizer: Processing
    watch: Watch = watch_nothing
    """told of every optimizer step"""
    unreadable: list[str] = field(default_factory=list)
    """what was wrong with the images of rows that were passed over"""

    def run(self, start: StageState, after_step: Callable[[int, dict[str, float], StageState], None]) -> None:
        """Steps `start.iteration` to the last of the last phase. An exception ends the stage."""
        for stream, state in zip(self.streams, start.stream.get("phases", [])):
            stream.load_state(state)
        for step in range(start.iteration, self.stage.num_steps):
            clock, unreadable_before = PhaseClock(), len(self.unreadable)
            with clock.phase("learning"):
                batch = self._batch(self.streams[self._phase(step)])
                piece = whole_minibatch(PPOBatch.of_tokens(batch))
                sums = self.learner.update_sft(piece, step=step, total=self.stage.num_steps)
                self.watch("policy", step, [piece], [sums])
            metrics = {
                "loss": sums["loss"],
                "grad_norm": sums["grad_norm"],
                "skipped_steps": sums["skipped_steps"],
                "rows_unreadable": float(len(self.unreadable) - unreadable_before),
                **clock.metrics(piece.token_count),
            }
            after_step(step, metrics, StageState(step + 1, self._stream_state()))

    def _phase(self, step: int) -> int:
        ends = np.cumsum([phase.steps for phase in self.stage.phases])
        return int(np.searchsorted(ends, step, side="right"))

    def _stream_state(self) -> dict[str, Any]:
        return {"phases": [stream.state() for stream in self.streams]}

    def _batch(self, stream: RowStream) -> TokenBatch:
        rows = [self._readable(stream) for _ in range(self.stage.batch_size)]
        masks = [np.arange(len(ids)) >= max(len(prompt.token_ids), 1) for ids, prompt in rows]
        return pad_tokens([ids for ids, _ in rows], masks, [prompt.model_inputs for _, prompt in rows])

    def _readable(self, stream: RowStream) -> tuple[np.ndarray, TokenizedPrompt]:
        """The next row whose images can be read; the others are passed over, and counted."""
        for _ in range(_MAX_UNREADABLE):
            try:
                return self._tokens(*stream.take(1)[0])
            except ImageError as error:
                self.unreadable.append(str(error))
        raise RunFailed(f"{_MAX_UNREADABLE} rows in a row have images that cannot be read: {self.unreadable[-1]}")

    def _tokens(self, source: MixedSource, row: Row) -> tuple[np.ndarray, TokenizedPrompt]:
        """(prompt, completion and end-of-sequence token; the prompt)."""
        prompt = to_prompt(source, row)
        completion = row.get("completion")
        if isinstance(completion, list) and len(completion) == 1 and isinstance(completion[0], dict):
            completion = completion[0].get("content")  # the conversational form: one assistant turn
        if not isinstance(completion, str) or not completion:
            raise UserError(f"{source.label}: column 'completion' is {str(completion)[:80]!r}; text is expected")
        tokenizer, asked = tokenizer_of(self.tokenizer), tokenized(self.tokenizer, prompt)
        completion_ids = tokenizer(completion, add_special_tokens=False)["input_ids"]
        ids = np.concatenate([asked.token_ids, completion_ids, [tokenizer.eos_token_id]]).astype(np.int64)
        if len(ids) > self.stage.max_length:
            raise UserError(
                f"{source.label}: a row has {len(ids)} tokens, max_length is {self.stage.max_length}: "
                f"{str(prompt.content)[:80]!r}"
            )
        return ids, asked
