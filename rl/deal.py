"""Which engine samples which request: pure bookkeeping, no Ray. `rl.engine_pool` carries it out."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from rollouts.engine import Begun, Generation, GivenUp, Progress, Request

Rule = Literal["load", "fixed"]
MAX_ATTEMPTS = 3
# A group of requests with one among them that may break engines is dealt in so many pieces, each to an engine that has
# nothing else.
_PIECES = 8
# With nothing left to deal, requests move from the engine with the most to the one with the fewest, while the
# difference is larger than this share of the most, and the most larger than this share of what an engine decodes at
# once: with few sequences a step takes hardly less time than with one, and a request that moves waits for a moment. So
# it moves once.
_UNEVEN = 0.35
_WORTH_MOVING = 0.25


class Deal:
    """The requests of one stream: who has which, what is left, what is done.

    `fixed`: each engine gets one block at once, so that what it samples is a function of requests, weights and seed;
    after a crash the whole block is sampled again, and what was delivered before is not delivered twice.
    `load`: the next prompt's samples go to the engine with the fewest sequences under way, and no engine holds much
    more than it decodes at the same time; after a crash only what was not finished is dealt again. Where all is dealt
    and one engine has much more left than another, some of it moves, with the tokens that it has so far.

    A request that an engine refuses is dealt again, and given up after MAX_ATTEMPTS. One that breaks engines is found:
    what was under way at two breaks is dealt apart, when all else has been dealt, in ever smaller pieces, and a request
    that was under way at MAX_ATTEMPTS breaks, at the last alone, is given up.
    """

    def __init__(self, requests: Sequence[Request], *, engines: int, capacity: int, rule: Rule, first: int = 0) -> None:
        """
        Args:
            capacity: sequences that one engine decodes at the same time.
            first: number of the first request; numbers of different streams differ.
        """
        self.requests = {first + index: request for index, request in enumerate(requests)}
        self.first = first
        self.dealt_again = 0
        """requests that were under way on an engine that broke"""
        self.refusals = 0
        """answers of an engine that it cannot take a request"""
        self._fixed = rule == "fixed" or engines == 1
        self._room = capacity + max(capacity // 8, 1)
        self._worth_moving = _WORTH_MOVING * capacity
        self._under_way: list[set[int]] = [set() for _ in range(engines)]
        self._attempts: Counter[int] = Counter()
        self._breaks: Counter[int] = Counter()
        self._apart: deque[list[int]] = deque()
        self._alone: set[int] = set()  # engines that hold such a piece, and get nothing beside it
        self._leaving: set[int] = set()  # requests that an engine was asked to give back
        self._moved: set[int] = set()
        self._begun: Counter[int] = Counter()
        self._open = set(self.requests)
        numbers = np.arange(first, first + len(requests))
        self._whole_blocks = [block.tolist() for block in np.array_split(numbers, engines)]
        self._blocks = list(self._whole_blocks)
        self._waiting = deque(self._groups())

    def _groups(self) -> Iterator[list[int]]:
        """Runs of requests with the same prompt: they share its prefix, so one engine takes them."""
        run: list[int] = []
        for number, request in self.requests.items():
            if run and self.requests[run[-1]].prompt_token_ids is not request.prompt_token_ids:
                yield run
                run = []
            run.append(number)
        if run:
            yield run

    @property
    def complete(self) -> bool:
        """True when every request has been delivered."""
        return not self._open

    def busy(self, engine: int) -> bool:
        """True while an engine has requests."""
        return bool(self._under_way[engine])

    def is_apart(self, engine: int) -> bool:
        """True while an engine has only requests of which one may break it."""
        return engine in self._alone

    def seed_for(self, engine: int, seed: int) -> int:
        """Seed of an engine that begins with nothing under way: equal for the same block, new for new work."""
        self._begun[engine] += 1
        return seed + engine if self._fixed else seed + engine + 1_000_003 * (self._begun[engine] - 1)

    def next_for(self, ready: Sequence[int]) -> dict[int, list[int]]:
        """Numbers for each of the engines that can take some now."""
        ready = [engine for engine in ready if engine not in self._alone]
        hands = self._next_blocks(ready) if self._fixed else self._next_by_load(ready)
        for engine in ready:
            if self._apart and (self._fixed or not self._waiting) and not self._under_way[engine]:
                hands[engine] = self._apart.popleft()
                self._under_way[engine] = set(hands[engine])
                self._alone.add(engine)
        return hands

    def _next_blocks(self, ready: Sequence[int]) -> dict[int, list[int]]:
        hands: dict[int, list[int]] = {}
        for engine in ready:
            if not self._under_way[engine] and self._blocks[engine]:
                hands[engine], self._blocks[engine] = self._blocks[engine], []
                self._under_way[engine] = set(hands[engine])
        return hands

    def _next_by_load(self, ready: Sequence[int]) -> dict[int, list[int]]:
        hands: dict[int, list[int]] = {}
        while self._waiting and ready:
            engine = min(ready, key=lambda index: (len(self._under_way[index]), index))
            load = len(self._under_way[engine])
            if load and load + len(self._waiting[0]) > self._room:
                break
            group = self._waiting.popleft()
            hands.setdefault(engine, []).extend(group)
            self._under_way[engine].update(group)
        return hands

    @property
    def moved(self) -> int:
        """Requests that went from one engine to another."""
        return len(self._moved)

    def to_move(self) -> dict[int, list[int]]:
        """Numbers that each engine shall give back, so that others take them; `given_back` takes what it gives."""
        if self._fixed or self._waiting or self._apart or self._leaving:
            return {}
        asked: dict[int, list[int]] = {}
        loads = {engine: len(own) for engine, own in enumerate(self._under_way) if engine not in self._alone}
        may_go = {engine: sorted(self._under_way[engine] - self._moved) for engine in loads}
        while any(may_go.values()):
            most = max((engine for engine in loads if may_go[engine]), key=lambda engine: (loads[engine], engine))
            fewest = min(loads, key=lambda engine: (loads[engine], engine))
            if loads[most] < self._worth_moving or loads[most] - loads[fewest] <= max(2, _UNEVEN * loads[most]):
                break
            asked.setdefault(most, []).append(may_go[most].pop())
            loads[most] -= 1
            loads[fewest] += 1
        self._leaving.update(number for numbers in asked.values() for number in numbers)
        return asked

    def given_back(self, engine: int, begun: Sequence[tuple[int, Begun]]) -> None:
        """What an engine had so far of the requests that were to move; those that it lacks are finished meanwhile."""
        for number, own in begun:
            if number in self._under_way[engine]:
                self._under_way[engine].remove(number)
                self.requests[number] = replace(self.requests[number], begun=own)
                self._waiting.append([number])
                self._moved.add(number)
        self._leaving -= {number for number, _ in begun}

    def take(self, engine: int, progress: Progress) -> list[tuple[int, Generation | GivenUp]]:
        """What is new of an engine's answer, by index of the request."""
        new: list[tuple[int, Generation | GivenUp]] = []
        for number, reason in progress.failed:
            if number in self._under_way[engine]:
                new += self._refused(engine, number, reason)
        for number, generation in progress.finished:
            self._leaving.discard(number)
            self._under_way[engine].discard(number)
            if number in self._open:
                self._open.remove(number)
                new.append((number - self.first, generation))
        if not self._under_way[engine]:
            self._alone.discard(engine)
        return new

    def _refused(self, engine: int, number: int, reason: str) -> list[tuple[int, GivenUp]]:
        self.refusals += 1
        self._leaving.discard(number)
        self._attempts[number] += 1
        self._under_way[engine].remove(number)
        if self._attempts[number] >= MAX_ATTEMPTS:
            return [self._given_up(number, f"it was refused {MAX_ATTEMPTS} times: {reason}")]
        self._again(engine, [number])
        return []

    def _given_up(self, number: int, reason: str) -> tuple[int, GivenUp]:
        self._open.discard(number)
        return number - self.first, GivenUp(reason, breaks=self._breaks[number])

    def broken(self, engine: int, reason: str) -> list[tuple[int, GivenUp]]:
        """An engine is gone: what it had is dealt again, but for a request that was alone and breaks engines."""
        lost = sorted(self._under_way[engine])
        self._leaving.difference_update(lost)
        self._under_way[engine].clear()
        self._alone.discard(engine)
        if len(lost) == 1 and self._breaks[lost[0]] + 1 >= MAX_ATTEMPTS and lost[0] in self._open:
            self._breaks.update(lost)
            times = self._breaks[lost[0]]
            return [self._given_up(lost[0], f"it breaks engines ({times} times, the last time alone): {reason}")]
        self.dealt_again += len(lost)
        self._breaks.update(lost)
        suspects = [number for number in lost if self._breaks[number] > 1 and number in self._open]
        if suspects:
            size = max(len(suspects) // _PIECES, 1)
            self._apart.extend(suspects[start : start + size] for start in range(0, len(suspects), size))
            self._again(engine, [number for number in lost if self._breaks[number] == 1 and number in self._open])
        elif self._fixed and lost:
            self._blocks[engine] = self._whole_blocks[engine]
        else:
            self._again(engine, lost)
        return []

    def _again(self, engine: int, numbers: list[int]) -> None:
        if self._fixed:
            self._blocks[engine] = numbers + self._blocks[engine]
        else:
            self._waiting.extendleft([number] for number in reversed(numbers))

    def open_requests(self) -> dict[int, Request]:
        """Requests that are not delivered, by number."""
        return {number: self.requests[number] for number in sorted(self._open)}
