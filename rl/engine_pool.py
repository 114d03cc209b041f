"""Several engine actors as one engine: requests are dealt to them, what is finished streams back, and what breaks is
replaced.

Each engine has two short calls under way, so that it never waits for the driver. An engine breaks when its process
dies, when a call raises, or when it does not answer in time; it is then killed and started anew with the newest
weights, and its work is dealt again.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rl.deal import Deal, Rule
from rl.errors import RunFailed, last_line
from rollouts.engine import (
    Begun,
    Engine,
    EngineStart,
    Generation,
    GivenUp,
    Paused,
    Progress,
    Request,
    RequestRefused,
)
from rollouts.shared_weights import SharedBuffer

if TYPE_CHECKING:
    from ray.actor import ActorHandle

_CALLS_UNDER_WAY = 2
_LOOK_EVERY_S = 5.0  # at the nodes, while no engine answers


@dataclass(frozen=True)
class PoolSettings:
    """Numbers of the recipe's `engine` section."""

    replicas: int
    capacity: int
    """sequences that one engine decodes at the same time"""
    deal: Rule
    max_restarts: int
    start_timeout_s: float
    answer_timeout_s: float
    """without an answer of an engine that has calls under way"""
    one_machine: bool = True
    """every engine runs on the machine of this process"""
    max_failed_requests: int = 0
    """that may be given up before the run ends"""


@dataclass
class _Seat:
    """The place of one engine, whichever actor sits there."""

    actor: ActorHandle
    calls: deque[Any] = field(default_factory=deque)
    """futures in the order in which the actor answers them"""
    deadline: float = 0.0
    """monotonic seconds when the oldest call counts as not answered"""


class EnginePool(Engine):
    """See the head of this module."""

    def __init__(
        self,
        make_actor: Callable[[int], ActorHandle],
        settings: PoolSettings,
        *,
        on_event: Callable[[str], None] = lambda message: None,
    ) -> None:
        """
        Args:
            make_actor: starts the engine of an index.
            on_event: told of every engine that is replaced.
        """
        self._make_actor, self._settings = make_actor, settings
        self._on_event = on_event
        self.on_span: Callable[[int, float, float], None] | None = None
        """told of each stretch in which an engine sampled: its index, seconds since the epoch"""
        self._restarts_left = settings.max_restarts
        self._weights: tuple[Any, int] | None = None
        self._deal: Deal | None = None
        self._arrived: deque[tuple[int, Generation | GivenUp]] = deque()  # not delivered yet
        # Engines on other machines cannot see this one's memory: Ray carries the weights there.
        self._buffer = SharedBuffer() if settings.one_machine and SharedBuffer.is_possible() else None
        self._next_number = 0
        self._ended: str | None = None
        self._asleep = False
        self.restarts = 0
        self.dealt_again = 0
        self.refusals = 0
        self.given_up = 0
        self.moved = 0
        self._seats = [self._new_seat(index) for index in range(settings.replicas)]

    # ------------------------------------------------------------ Engine

    def wait_ready(self) -> list[EngineStart]:
        """Returns once every engine has loaded its model: how each came up.

        Raises:
            RunFailed: an engine does not start.
        """
        import ray

        ready = [seat.calls[0] for seat in self._seats]
        pending, deadline = ready, time.monotonic() + self._settings.start_timeout_s
        while pending and time.monotonic() < deadline:
            pending = ray.wait(pending, num_returns=len(pending), timeout=_LOOK_EVERY_S)[1]
            self._look_at_nodes()
        try:
            starts: list[EngineStart] = ray.get(ready, timeout=0.1)
        except ray.exceptions.RayError as error:
            raise RunFailed(f"a rollout engine did not start: {last_line(error)}") from error
        for seat in self._seats:
            seat.calls.popleft()
        return starts

    def generate(self, requests: Sequence[Request], *, seed: int) -> list[Generation]:
        """See `Engine.generate`.

        Raises:
            RequestRefused: no engine can answer a request.
        """
        found: dict[int, Generation] = {}
        for index, outcome in self.stream(requests, seed=seed):
            if isinstance(outcome, GivenUp):
                raise RequestRefused(outcome.reason, index)
            found[index] = outcome
        return [found[index] for index in range(len(requests))]

    def stream(self, requests: Sequence[Request], *, seed: int) -> Iterator[tuple[int, Generation | GivenUp]]:
        """See `Engine.stream`.

        Raises:
            RunFailed: the budget of restarts is used up.
        """
        settings, first = self._settings, self._next_number
        self._next_number += len(requests)
        deal = Deal(requests, engines=len(self._seats), capacity=settings.capacity, rule=settings.deal, first=first)
        self._deal = deal
        try:
            while not deal.complete or self._arrived:
                if not self._arrived:
                    self._feed(deal, seed)
                    self._listen(deal)
                while self._arrived:
                    yield self._arrived.popleft()
        finally:
            self.dealt_again += deal.dealt_again
            self.refusals += deal.refusals
            self.moved += deal.moved
            if not deal.complete and self._deal is deal and self._ended is None:
                self.pause()  # the caller wants no more of it
            self._deal = None
            self._arrived.clear()

    def pause(self) -> Paused:
        """See `Engine.pause`."""
        deal, self._deal = self._deal, None
        if deal is None:  # all of it has been delivered
            return Paused({}, {})
        late = {index: one for index, one in self._arrived if isinstance(one, Generation)}
        self._arrived.clear()
        begun: dict[int, Begun] = {}
        for index in range(len(self._seats)):
            if deal.busy(index):
                self._call(index, "pause")
        for index, answer in self._until_quiet():
            if isinstance(answer, Progress):
                late.update((i, one) for i, one in deal.take(index, answer) if isinstance(one, Generation))
            elif isinstance(answer, list):
                begun.update(answer)
        rest = deal.open_requests()
        return Paused(late, {number - deal.first: begun.get(number, rest[number].begun) for number in rest})

    def load_weights(self, weights: Mapping[str, NDArray[np.float32]], version: int) -> None:
        """See `Engine.load_weights`. Goes through memory, not over the disk.

        Engines that break meanwhile are replaced and get these weights. Where no restart is left, the next stream
        raises, not this call: the iteration that made the weights is done and can be saved first.
        """
        import ray

        shared = self._buffer.begin(weights) if self._buffer is not None else ray.put(dict(weights))
        self._weights = (shared, version)
        with contextlib.suppress(RunFailed):
            for index in range(len(self._seats)):
                if self._asleep:
                    self._call(index, "wake")
                self._call(index, "load_weights", *self._weights)
            if self._buffer is not None:  # the engines load what is written while the rest is being written
                self._buffer.fill(weights)
            self._asleep = False
            for _ in self._until_quiet():
                pass

    def sleep(self) -> None:
        """See `Engine.sleep`."""
        for index in range(len(self._seats)):
            self._call(index, "sleep")
        self._asleep = True
        for _ in self._until_quiet():
            pass

    def fault_metrics(self) -> dict[str, float]:
        """Counts since the pool began."""
        return {
            "engine_restarts": float(self.restarts),
            "requests_dealt_again": float(self.dealt_again),
            "requests_refused": float(self.refusals),
            "requests_given_up": float(self.given_up),
            "requests_moved": float(self.moved),
        }

    # ------------------------------------------------------------ calls and answers

    def _feed(self, deal: Deal, seed: int) -> None:
        """Hands out requests, and keeps calls under way at every engine that has some."""
        if self._ended is not None:
            raise RunFailed(self._ended)
        ready = [index for index, seat in enumerate(self._seats) if len(seat.calls) < _CALLS_UNDER_WAY]
        begin = [index for index in ready if not deal.busy(index)]
        for index, numbers in deal.next_for(ready).items():
            new = [(number, deal.requests[number]) for number in numbers]
            self._call(index, "advance", new, seed=deal.seed_for(index, seed) if index in begin else None)
        for index, seat in enumerate(self._seats):
            while deal.busy(index) and len(seat.calls) < _CALLS_UNDER_WAY:
                self._call(index, "advance", [], seed=None)
        for index, numbers in deal.to_move().items():
            self._call(index, "give_back", numbers)

    def _listen(self, deal: Deal) -> None:
        for index, answer in self._answers():
            if isinstance(answer, Progress):
                self._arrived.extend((number, self._judged(one)) for number, one in deal.take(index, answer))
            elif isinstance(answer, list):
                deal.given_back(index, answer)

    def _judged(self, outcome: Generation | GivenUp) -> Generation | GivenUp:
        """Counts a request that is given up, and says whether the run goes on."""
        if isinstance(outcome, Generation):
            return outcome
        self.given_up += 1
        return replace(outcome, allowed=self.given_up <= self._settings.max_failed_requests)

    def _call(self, index: int, method: str, *args: object, **kwargs: object) -> None:
        seat = self._seats[index]
        if not seat.calls:
            seat.deadline = time.monotonic() + self._settings.answer_timeout_s
        seat.calls.append(getattr(seat.actor, method).remote(*args, **kwargs))

    def _until_quiet(self) -> Iterator[tuple[int, Any]]:
        """Answers until no call is under way."""
        while any(seat.calls for seat in self._seats):
            yield from self._answers()

    def _answers(self) -> list[tuple[int, Any]]:
        """(index of the engine, what its oldest call gave) of those that have answered, after waiting for one."""
        import ray

        waiting = {seat.calls[0]: index for index, seat in enumerate(self._seats) if seat.calls}
        if not waiting:
            return []
        left = min(self._seats[index].deadline for index in waiting.values()) - time.monotonic()
        ready, _ = ray.wait(list(waiting), num_returns=1, timeout=min(max(left, 0.0), _LOOK_EVERY_S))
        if not ready:
            self._look_at_nodes()
        if len(waiting) > 1:  # those that have answered as well
            ready = ray.wait(list(waiting), num_returns=len(waiting), timeout=0)[0]
        now, answers = time.monotonic(), []
        for future in ready:
            index = waiting[future]
            try:
                answers.append((index, ray.get(future)))
            except ray.exceptions.RayError as error:
                self._replace(index, last_line(error))
            else:
                seat = self._seats[index]
                seat.calls.popleft()
                seat.deadline = now + self._settings.answer_timeout_s
        for index in set(waiting.values()) - {waiting[future] for future in ready}:
            if self._seats[index].deadline <= now:
                self._replace(index, f"it has not answered for {self._settings.answer_timeout_s:g} s")
        for index, answer in answers:
            if isinstance(answer, Progress) and self.on_span is not None:
                self.on_span(index, answer.began, answer.ended)
        return answers

    # ------------------------------------------------------------ what breaks

    def _new_seat(self, index: int) -> _Seat:
        actor = self._make_actor(index)
        calls = deque([actor.ready.remote()])
        return _Seat(actor, calls, time.monotonic() + self._settings.start_timeout_s)

    def _look_at_nodes(self) -> None:
        """Without a node that lives, an engine that is started anew waits for one for ever.

        Raises:
            RunFailed: there is none; every later stream raises it too.
        """
        import ray

        try:
            nodes = ray.nodes()
        except Exception:  # Ray's head does not answer, or not yet again: the engines may be well
            return
        if not any(node["Alive"] for node in nodes):
            self._ended = "no node of the Ray cluster lives any more; run the same command to continue"
            raise RunFailed(self._ended)

    def _replace(self, index: int, reason: str) -> None:
        """Kills an engine and starts another in its place, which gets the weights as soon as it is ready.

        Raises:
            RunFailed: the budget is used up; every later stream raises it too.
        """
        import ray

        with contextlib.suppress(Exception):  # it is dead, or dying; either is fine
            ray.kill(self._seats[index].actor)
        lost, explained = self._lost(index, reason)
        if not self._restarts_left and not explained:
            self._seats[index].calls.clear()
            self._ended = f"rollout engine {index} died and engine.max_restarts is used up: {reason}"
            raise RunFailed(self._ended)
        self._restarts_left -= not explained
        self.restarts += 1
        self._on_event(
            f"rollout engine {index} is started anew{', its work is dealt again' if lost else ''}: {reason}"
        )
        self._seats[index] = self._new_seat(index)
        if self._weights is not None:
            self._call(index, "load_weights", *self._weights)

    def _lost(self, index: int, reason: str) -> tuple[bool, bool]:
        """Whether an engine that broke had work, and whether one of its requests may be what broke it.

        Such restarts do not count towards the budget, nor do those before that a request turns out to have caused.
        """
        deal = self._deal
        if deal is None:
            return False, False
        lost, apart = deal.busy(index), deal.is_apart(index)
        given_up = deal.broken(index, reason)
        for number, one in given_up:
            self._restarts_left = min(self._restarts_left + one.breaks, self._settings.max_restarts)
            self._arrived.append((number, self._judged(one)))
        return lost, apart or bool(given_up)
