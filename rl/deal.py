"""Which engine samples which request: pure bookkeeping, no Ray. `rl.engine_pool` carries it out."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from rollouts.engine import Generation, Progress, Request

Rule = Literal["load", "fixed"]
MAX_ATTEMPTS = 3


class RequestFailed(Exception):
    """A request that every engine refuses."""


class Deal:
    """The requests of one stream: who has which, what is left, what is done.

    `fixed`: each engine gets one block at once, so that what it samples is a function of requests, weights and seed;
    after a crash the whole block is sampled again, and what was delivered before is not delivered twice.
    `load`: the next prompt's samples go to the engine with the fewest sequences under way, and no engine holds much
    more than it decodes at the same time; after a crash only what was not finished is dealt again.
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
        self._under_way: list[set[int]] = [set() for _ in range(engines)]
        self._attempts: Counter[int] = Counter()
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

    def seed_for(self, engine: int, seed: int) -> int:
        """Seed of an engine that begins with nothing under way: equal for the same block, new for new work."""
        self._begun[engine] += 1
        return seed + engine if self._fixed else seed + engine + 1_000_003 * (self._begun[engine] - 1)

    def next_for(self, ready: Sequence[int]) -> dict[int, list[int]]:
        """Numbers for each of the engines that can take some now."""
        hands: dict[int, list[int]] = {}
        if self._fixed:
            for engine in ready:
                if not self._under_way[engine] and self._blocks[engine]:
                    hands[engine], self._blocks[engine] = self._blocks[engine], []
                    self._under_way[engine] = set(hands[engine])
            return hands
        while self._waiting and ready:
            engine = min(ready, key=lambda index: (len(self._under_way[index]), index))
            load = len(self._under_way[engine])
            if load and load + len(self._waiting[0]) > self._room:
                break
            group = self._waiting.popleft()
            hands.setdefault(engine, []).extend(group)
            self._under_way[engine].update(group)
        return hands

    def take(self, engine: int, progress: Progress) -> list[tuple[int, Generation]]:
        """What is new of an engine's answer, by index of the request.

        Raises:
            RequestFailed: one of its requests was refused too often.
        """
        for number, reason in progress.failed:
            if number in self._under_way[engine]:
                self._refused(engine, number, reason)
        new: list[tuple[int, Generation]] = []
        for number, generation in progress.finished:
            self._under_way[engine].discard(number)
            if number in self._open:
                self._open.remove(number)
                new.append((number - self.first, generation))
        return new

    def _refused(self, engine: int, number: int, reason: str) -> None:
        self.refusals += 1
        self._attempts[number] += 1
        if self._attempts[number] >= MAX_ATTEMPTS:
            raise RequestFailed(
                f"request {number - self.first} of {len(self.requests)} was refused {MAX_ATTEMPTS} times: {reason}"
            )
        self._under_way[engine].remove(number)
        self._again(engine, [number])

    def broken(self, engine: int) -> None:
        """An engine is gone: what it had is dealt again."""
        lost = sorted(self._under_way[engine])
        self._under_way[engine].clear()
        self.dealt_again += len(lost)
        if self._fixed and lost:
            self._blocks[engine] = self._whole_blocks[engine]
        else:
            self._again(engine, lost)

    def _again(self, engine: int, numbers: list[int]) -> None:
        if self._fixed:
            self._blocks[engine] = numbers + self._blocks[engine]
        else:
            self._waiting.extendleft([number] for number in reversed(numbers))

    def open_requests(self) -> dict[int, Request]:
        """Requests that are not delivered, by number."""
        return {number: self.requests[number] for number in sorted(self._open)}
