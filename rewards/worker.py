"""A pool of processes that score completions and can be killed.

A reward function may hang, raise, crash its process or return nonsense; none of these may stop a run or look like a
score of 0. Each worker is its own process in its own process group. A call that passes its deadline is killed with
everything it started, the worker is replaced, and the rows of the failed call are tried again one at a time, so that
only the bad row fails.
"""

from __future__ import annotations

import pickle
import queue
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from rewards.result import RewardResult, RewardStatus
from rewards.worker_call import Call, CallSizes, Job, cut
from rewards.worker_handle import Nursery, RewardLoadError, WorkerDied
from rewards.worker_reply import check_reply

_HOLDS_A_MODEL = frozenset({"preference"})  # a spare of these would cost a second copy of the model
# Imported once, before workers are forked: a killed one is replaced in milliseconds. Only what starts no thread.
_PRELOAD = {"math": ("rewards.math_answer", "math_verify"), "rewards.mathematics.slow:slow_reward": ("math_verify",)}
_MEMORY_LIMITS_MB = {"math": 4_000}  # sympy may eat memory before its time is up


__all__ = ["RewardLoadError", "RewardPool"]


class WorkerLike(Protocol):
    """What a slot of the pool needs of a worker; see `rewards.worker_handle.Worker`."""

    def wait_ready(self) -> None:
        """Returns once the reward function is loaded, or raises RewardLoadError."""

    def ask(self, payload: Mapping[str, object], timeout_s: float) -> dict[str, Any]:
        """The answer; raises TimeoutError or WorkerDied."""
        ...

    def discard(self) -> None:
        """Kill it."""


class Workers(Protocol):
    """Where a pool gets its workers from; see `rewards.worker_handle.Nursery`."""

    closed: bool

    def take(self) -> WorkerLike:
        """A worker, loaded or loading; raises RuntimeError when closed."""
        ...

    def replenish(self) -> None:
        """Called after a death."""

    def close(self) -> None:
        """Kill every worker."""


class RewardPool:
    """Scores completions in `num_workers` killable processes. Thread-safe; works off the main thread.

    Args:
        spec: what load_reward takes. A relative file path is resolved here, once.
        args: options of the function, or arguments of the factory; they must pickle.
        timeout_s: the longest one call may take. A row that was called together with others gets a call of its own
            before it counts as timed out, so the limit is a limit per row.
        num_workers: processes that score at the same time.
        value_range: (low, high), inclusive; a value outside is invalid. None: any finite number.
        batch_rows: the most rows in one call. Cuts fall between prompts where possible, and the number shrinks while
            calls fail. A reward must not depend on which rows come together.
        spares: workers kept loaded to step in for a killed one. None: 1, or 0 for rewards that hold a model.
        start_timeout_s: the longest that importing and loading the function may take.
        workers: where workers come from; None: forked processes. What is said above of spares, start and memory is
            then not this pool's to decide.
        memory_limit_mb: address space of each worker in MiB. None: 4,000 for "math", no limit for others.
    """

    def __init__(
        self,
        spec: str,
        *,
        args: Mapping[str, object] = {},  # noqa: B006 - never changed
        timeout_s: float,
        num_workers: int = 1,
        value_range: tuple[float, float] | None = None,
        batch_rows: int = 32,
        spares: int | None = None,
        start_timeout_s: float = 300.0,
        memory_limit_mb: int | None = None,
        workers: Workers | None = None,
    ) -> None:
        if timeout_s <= 0 or num_workers < 1 or batch_rows < 1:
            raise ValueError(
                f"reward {spec!r}: timeout_s {timeout_s}, num_workers {num_workers} and batch_rows {batch_rows} "
                "must all be positive"
            )
        self.spec = _absolute(spec)
        self._timeout_s = timeout_s
        self._range = value_range
        self._calls: queue.Queue[Call | None] = queue.Queue()
        self._sizes = CallSizes(batch_rows)
        memory_limit_mb = memory_limit_mb or _MEMORY_LIMITS_MB.get(spec, 0)
        self._workers: Workers = workers or Nursery(
            pickle.dumps((self.spec, dict(args), memory_limit_mb << 20)),
            self.spec,
            (0 if spec in _HOLDS_A_MODEL else 1) if spares is None else spares,
            start_timeout_s,
            _PRELOAD.get(spec, ()),
        )
        self._num_workers = num_workers
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._closed = False
        self._finalizer = weakref.finalize(self, _shut_down, self._calls, self._workers, num_workers)

    def start(self) -> None:
        """Start the workers and return at once, so that they load while something else does."""
        with self._lock:
            if self._closed:
                raise RuntimeError(f"reward {self.spec!r}: the pool is closed")
            for index in range(len(self._threads), self._num_workers):
                slot = _Slot(self._calls, self._workers, self._range, self._sizes)
                thread = threading.Thread(target=slot.run, name=f"reward-{index}", daemon=True)
                thread.start()
                self._threads.append(thread)

    def score(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        columns: Mapping[str, Sequence[object]],
        completion_ids: Sequence[Any] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> list[RewardResult]:
        """One result per completion, in order. Never raises for what the function does to a row.

        Args:
            timeout_s: for this call instead of the pool's own.

        Raises:
            RewardLoadError: the function could not be loaded.
            ValueError: the inputs differ in length.
            RuntimeError: the pool is closed.
        """
        _check_lengths(prompts, completions, columns, completion_ids)
        self.start()
        job = Job(
            prompts, completions, columns, completion_ids, [None] * len(completions), timeout_s or self._timeout_s
        )
        job.num_left = len(completions)
        if job.num_left == 0:
            return []
        for rows in cut(prompts, self._sizes.current):
            self._calls.put(Call(job, rows))
        if self._closed:  # closed from another thread while the calls were queued
            job.fail(RuntimeError("the reward pool was closed"))
        job.done.wait()
        if job.failure is not None:
            raise job.failure
        return [result for result in job.results if result is not None]

    def close(self) -> None:
        """Kill every worker; a score() that still waits raises."""
        with self._lock:
            self._closed = True
        self._finalizer()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> RewardPool:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class _Slot:
    """One thread of the pool: takes calls, has its worker score them, replaces the worker when it must."""

    def __init__(
        self,
        calls: queue.Queue[Call | None],
        workers: Workers,
        value_range: tuple[float, float] | None,
        sizes: CallSizes,
    ) -> None:
        self._calls = calls
        self._workers = workers
        self._range = value_range
        self._sizes = sizes
        self._worker: WorkerLike | None = None

    def run(self) -> None:
        if not self._workers.closed:
            self._worker = self._workers.take()  # starts to load before the first call comes
        while (call := self._calls.get()) is not None:
            self._handle(self._first_rows(call))
        if self._worker is not None:
            self._worker.discard()

    def _first_rows(self, call: Call) -> Call:
        """As much of a call as is now thought safe; the rest goes back for any worker to take."""
        size = self._sizes.current
        if len(call.rows) > size:
            self._calls.put(Call(call.job, call.rows[size:]))
            if self._workers.closed:  # nobody may be left to take it
                call.job.fail(RuntimeError("the reward pool was closed"))
        return Call(call.job, call.rows[:size], call.is_second)

    def _handle(self, call: Call) -> None:
        if call.job.failure is not None:
            return
        try:
            reply = self._ask(call)
        except (RewardLoadError, RuntimeError) as error:
            was_closed = self._workers.closed  # then the worker did not fail to load, it was killed while it did
            self._drop_worker()
            call.job.fail(RuntimeError("the reward pool was closed") if was_closed else error)
        except TimeoutError:
            self._drop_worker()
            limit = call.job.timeout_s
            self._failed(call, RewardStatus.TIMEOUT, f"no answer within {limit:g} s; the worker was killed")
        except WorkerDied as error:
            self._drop_worker()
            if len(call.rows) == 1 and not call.is_second:  # it may have been killed for no fault of the row
                self._again(Call(call.job, call.rows, is_second=True))
            else:
                self._failed(call, RewardStatus.ERROR, str(error))
        else:
            self._settle(call, reply)

    def _ask(self, call: Call) -> dict[str, Any]:
        if self._worker is None:
            self._worker = self._workers.take()
        self._worker.wait_ready()
        return self._worker.ask(call.job.payload(call.rows), call.job.timeout_s)

    def _drop_worker(self) -> None:
        if self._worker is not None:
            self._worker.discard()
            self._worker = None
            self._sizes.lost_a_worker()
            self._workers.replenish()

    def _settle(self, call: Call, reply: Mapping[str, Any]) -> None:
        if "error" in reply:
            self._failed(call, RewardStatus.ERROR, reply["error"])
            return
        results = check_reply(reply, len(call.rows), self._range)
        if isinstance(results, str):
            self._failed(call, RewardStatus.INVALID, results)
            return
        self._sizes.succeeded()
        for row, result in zip(call.rows, results):
            call.job.settle(row, result)

    def _failed(self, call: Call, status: RewardStatus, message: str) -> None:
        """One row alone has failed; of several, each gets a call of its own."""
        if len(call.rows) == 1 and not self._workers.closed:
            call.job.settle(call.rows[0], RewardResult(None, status, message))
            return
        for row in call.rows:
            self._again(Call(call.job, [row]))

    def _again(self, call: Call) -> None:
        if self._workers.closed:
            call.job.fail(RuntimeError("the reward pool was closed"))
        else:
            self._calls.put(call)


def _check_lengths(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    columns: Mapping[str, Sequence[object]],
    completion_ids: Sequence[Any] | None,
) -> None:
    lengths = {"prompts": len(prompts), **{name: len(values) for name, values in columns.items()}}
    if completion_ids is not None:
        lengths["completion_ids"] = len(completion_ids)
    wrong = {name: length for name, length in lengths.items() if length != len(completions)}
    if wrong:
        raise ValueError(f"{len(completions)} completions, but {wrong}: every column needs one entry per completion")


def _absolute(spec: str) -> str:
    location, _, name = spec.rpartition(":")
    return f"{Path(location).expanduser().resolve()}:{name}" if location.endswith(".py") else spec


def _shut_down(calls: queue.Queue[Call | None], workers: Workers, num_workers: int) -> None:
    """Kill the workers, then let the threads find that there is nothing left to do."""
    workers.close()
    while True:
        try:
            call = calls.get_nowait()
        except queue.Empty:
            break
        if call is not None:
            call.job.fail(RuntimeError("the reward pool was closed"))
    for _ in range(num_workers):
        calls.put(None)
