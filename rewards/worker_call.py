"""The calls that a pool makes: some rows of one score(), and how many rows a call gets."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rewards.result import RewardResult

_CLEAN_CALLS_TO_GROW = 512  # after this many calls without a lost worker, calls get twice as many rows again


@dataclass
class Call:
    """Some rows of one score(): what a worker gets at once."""

    job: Job
    rows: list[int]
    is_second: bool = False
    """of a row alone, whose first worker was killed"""


@dataclass
class Job:
    """One score() on its way: results fill up in any order, `done` is set with the last."""

    prompts: Sequence[Any]
    completions: Sequence[Any]
    columns: Mapping[str, Sequence[object]]
    completion_ids: Sequence[Any] | None
    results: list[RewardResult | None]
    timeout_s: float
    lock: threading.Lock = field(default_factory=threading.Lock)
    done: threading.Event = field(default_factory=threading.Event)
    failure: Exception | None = None
    num_left: int = 0

    def payload(self, rows: Sequence[int]) -> dict[str, object]:
        ids = self.completion_ids
        return {
            "prompts": [self.prompts[i] for i in rows],
            "completions": [self.completions[i] for i in rows],
            "columns": {name: [values[i] for i in rows] for name, values in self.columns.items()},
            "completion_ids": [ids[i] for i in rows] if ids is not None else [[] for _ in rows],
        }

    def settle(self, row: int, result: RewardResult) -> None:
        with self.lock:
            if self.results[row] is None:
                self.results[row] = result
                self.num_left -= 1
            if self.num_left == 0:
                self.done.set()

    def fail(self, error: Exception) -> None:
        self.failure = error
        self.done.set()


def cut(prompts: Sequence[Any], batch_rows: int) -> list[list[int]]:
    """Row numbers in calls of at most `batch_rows`, cut between two prompts where there is such a place."""
    calls: list[list[int]] = []
    start, count = 0, len(prompts)
    while start < count:
        stop = min(start + batch_rows, count)
        boundary = stop
        while stop < count and boundary > start and prompts[boundary] == prompts[boundary - 1]:
            boundary -= 1
        stop = boundary if boundary > start else stop
        calls.append(list(range(start, stop)))
        start = stop
    return calls


class CallSizes:
    """How many rows a call gets: an eighth after a lost worker, doubled after a run of clean calls.

    A bad row that comes alone costs one worker and one timeout; in company it costs two.
    """

    def __init__(self, limit: int) -> None:
        self.current = limit
        self._limit = limit
        self._clean = 0

    def lost_a_worker(self) -> None:
        self._clean = 0
        self.current = max(1, self.current // 8)

    def succeeded(self) -> None:
        self._clean += 1
        if self._clean >= _CLEAN_CALLS_TO_GROW:
            self._clean = 0
            self.current = min(self._limit, self.current * 2)
