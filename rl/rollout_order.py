"""When an iteration's responses are sampled: before it learns, or while the one before it learns."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Self

from rl.phases import PhaseClock
from rl.rollout import Gathered, Rollouts
from rollouts.collect import StartedPrompt


class InTurn:
    """Every iteration samples with the weights that it then updates: strictly on-policy."""

    def __init__(self, rollouts: Rollouts, *, start: int, end: int, carried: Sequence[StartedPrompt]) -> None:
        """`start` and `end`: iterations, the end excluded."""
        self._rollouts, self._end = rollouts, end
        self._carried = tuple(carried)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Ends what is under way."""

    def take(self, index: int, clock: PhaseClock) -> Gathered:
        """What iteration `index` learns from."""
        gathered = self._rollouts.gather(index, self._carried)
        clock.add(gathered.seconds)
        self._carried = gathered.carried
        return gathered

    def settle(self, clock: PhaseClock) -> None:
        """Returns when no engine samples any more: the weights may change."""

    def states(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Of the prompts and of the running scales of rewards, to continue with the next iteration."""
        return self._rollouts.stream.state(), self._rollouts.scorer.state()

    def carried(self) -> tuple[StartedPrompt, ...]:
        """Prompts that are started and not learned from, to continue with the next iteration."""
        return self._carried


class _Abandoned(Exception):
    """The stage has ended while the next iteration was being sampled."""


class OneAhead(InTurn):
    """The next iteration is sampled while this one learns, with the weights before its update: one version old.

    What is sampled ahead is not part of a checkpoint: a resumed stage samples it again, with the newer weights.
    """

    def __init__(self, rollouts: Rollouts, *, start: int, end: int, carried: Sequence[StartedPrompt]) -> None:
        super().__init__(replace(rollouts, stop_if_asked=self._stop_if_asked), start=start, end=end, carried=carried)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rollouts")
        self._ended = threading.Event()
        self._ahead: Future[Gathered] | None = None
        self._before: tuple[Mapping[str, Any], Mapping[str, Any]] = ({}, {})

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.shutdown(wait=True)

    def _stop_if_asked(self) -> None:
        if self._ended.is_set():
            raise _Abandoned

    def take(self, index: int, clock: PhaseClock) -> Gathered:
        """See `InTurn.take`."""
        if self._ahead is None:
            gathered = super().take(index, clock)
        else:
            gathered = self._ahead.result()  # done: it was settled before the weights changed
            own = {f"time/ahead_{name}_s": seconds for name, seconds in gathered.seconds.items()}
            gathered.metrics.update(own)
            self._carried = gathered.carried
        self._before = super().states()
        self._ahead = None
        if index + 1 < self._end:
            self._ahead = self._thread.submit(self._rollouts.gather, index + 1, self._carried)
        return gathered

    def settle(self, clock: PhaseClock) -> None:
        """See `InTurn.settle`."""
        if self._ahead is not None:
            with clock.phase("rollout"):
                self._ahead.result()

    def states(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """See `InTurn.states`."""
        return self._before
