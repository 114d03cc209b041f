"""The inside of one reward worker: loads a reward function, then scores what arrives on a pipe.

Forked by rewards.worker_template. Requests come as pickles (rows may hold images), answers go back as JSON: nothing
that user code makes is unpickled by the trainer.
Every message is an 8-byte little-endian length followed by that many bytes.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import inspect
import json
import math
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO

from rewards.registry import RewardFn, load_reward

IN_WORKER = "STEPLADDER_REWARD_WORKER"  # set in this process, so that a reward knows it may be killed at any time
_PR_SET_PDEATHSIG = 1
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # glibc's malloc.h
_F_SETSIG = 10  # Linux; the fcntl module does not name it


def serve(request_fd: int, reply_fd: int, lifeline_fd: int) -> None:
    """Serve one pool slot until the pipe closes; does not return."""
    for fd in (request_fd, reply_fd, lifeline_fd):
        os.set_inheritable(fd, False)
    _die_with_lifeline(lifeline_fd)
    os.dup2(2, 1)  # what a reward prints belongs in the log, not in anybody's standard output
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)  # by lines: a killed process flushes nothing
    os.environ[IN_WORKER] = "1"
    requests, replies = os.fdopen(request_fd, "rb"), os.fdopen(reply_fd, "wb")
    spec, args, memory_limit = read_message(requests)
    if memory_limit:
        limit_memory(memory_limit)
    try:
        fn = load_reward(spec, **args)
        load_model_of(fn)
        score = Caller(fn)
    except BaseException as error:  # user code runs at import: whatever it raises is reported, never lost
        _reply(replies, {"load_error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()})
        os._exit(1)
    _reply(replies, {"ready": os.getpid()})
    while (request := read_message(requests)) is not None:
        _reply(replies, score(request))
    os._exit(0)  # threads that a reward started must not keep the process alive


def load_model_of(fn: RewardFn) -> None:
    """A reward that holds a model loads it now, not in the first call; nothing for others."""
    warm_up = getattr(fn, "warm_up", None)
    if warm_up is not None:
        keep_freed_memory()
        warm_up()


def keep_freed_memory() -> None:
    """Have malloc use freed memory again in place of giving it back to the kernel.

    Activations are freed after every layer: fetched again page by page they cost a fifth of the time of a small model.
    """
    with contextlib.suppress(OSError, AttributeError):  # glibc only
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def limit_memory(num_bytes: int) -> None:
    """Make allocations beyond `num_bytes` of address space fail instead of taking the machine down."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (num_bytes, num_bytes))


def read_message(stream: BinaryIO) -> Any:
    """The next unpickled message, or None when the other side is gone."""
    header = stream.read(8)
    if len(header) < 8:
        return None
    return pickle.loads(stream.read(int.from_bytes(header, "little")))


def _reply(stream: BinaryIO, message: Mapping[str, object]) -> None:
    body = json.dumps(message).encode()
    stream.write(len(body).to_bytes(8, "little") + body)
    stream.flush()


def die_with_parent_process() -> None:
    """Have this process killed when the one that started it ends."""
    with contextlib.suppress(OSError, AttributeError):  # Linux only
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _die_with_lifeline(lifeline_fd: int) -> None:
    """Have this process and everything it starts killed when the trainer is gone, however the trainer ended.

    The kernel signals the whole process group when the lifeline pipe loses its writer, also while this process hangs
    in C; where it cannot, a thread does, and the parent-death signal helps.

    No parent-death signal beside the first: the template dies with one thread of the trainer, and so may die before
    the trainer closes the pipe. This process would die with it, and nobody would be left in the group who reads the
    pipe: what it had started would live on.
    """
    threading.Thread(target=_kill_group_at_eof, args=(lifeline_fd,), daemon=True).start()
    try:
        fcntl.fcntl(lifeline_fd, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(lifeline_fd, _F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline_fd, fcntl.F_SETFL, fcntl.fcntl(lifeline_fd, fcntl.F_GETFL) | os.O_ASYNC)
    except OSError:  # not Linux
        die_with_parent_process()


def _kill_group_at_eof(lifeline_fd: int) -> None:
    os.read(lifeline_fd, 1)  # nobody ever writes: this returns at end of file
    os.killpg(os.getpgrp(), signal.SIGKILL)


class Caller:
    """Calls one reward function on batches and turns whatever happens into a plain message."""

    def __init__(self, fn: RewardFn) -> None:
        self._fn = fn
        self._is_async = inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(type(fn).__call__)
        self._runner = _event_loop() if self._is_async else None
        parameters = inspect.signature(fn).parameters.values()
        takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
        self.accepted = None if takes_all else {p.name for p in parameters}

    def __call__(self, request: Mapping[str, Any]) -> dict[str, object]:
        """`request` has prompts, completions, completion_ids and columns, all of one length."""
        log = CallLog([len(ids) for ids in request["completion_ids"]])
        try:
            values = self._call(request, log)
        except BaseException as error:  # user code: sys.exit() and cancellation must not end the worker in silence
            return {"error": _describe(error)}
        return {
            "values": [plain_value(value) for value in as_list(values)],
            "metrics": log.metrics,
            "rows": log.rows,
            "partial": log.partial,
        }

    def _call(self, request: Mapping[str, Any], log: CallLog) -> Any:
        kwargs = dict(request["columns"], prompts=request["prompts"], completions=request["completions"])
        kwargs |= {"completion_ids": request["completion_ids"], "trainer_state": None}
        kwargs |= {"log_extra": log.log_extra, "log_metric": log.log_metric, "log_partial": log.log_partial}
        if self.accepted is not None:
            kwargs = {name: value for name, value in kwargs.items() if name in self.accepted}
        if self._runner is None:
            return self._fn(**kwargs)
        return self._runner.run(self._fn(**kwargs))


def _event_loop() -> Any:
    """One loop for the life of the worker; asyncio is imported where it is needed, since every restart pays for it."""
    import asyncio

    return asyncio.Runner()


class CallLog:
    """What one call logged: through TRL's log_metric (one number a call) and log_extra (one entry a row), and through
    log_partial, which says where in a completion its reward was earned."""

    def __init__(self, num_tokens: Sequence[int]) -> None:
        """`num_tokens`: of each completion; 0 where its tokens are not known."""
        self.metrics: dict[str, float] = {}
        self.rows: dict[str, list[float | None]] = {}
        self.partial: list[list[tuple[int, float]]] = [[] for _ in num_tokens]
        self._num_tokens = num_tokens

    def log_metric(self, name: str, value: Any) -> None:
        self.metrics[str(name)] = float(value)

    def log_extra(self, name: str, values: Any) -> None:
        """Numbers are kept per row; text is for TRL's tables and has no place in a metric."""
        entries = as_list(values)
        if isinstance(entries, list) and len(entries) == len(self._num_tokens):
            self.rows[str(name)] = [float(v) if isinstance(v, (int, float)) else None for v in entries]

    def log_partial(self, rows: Sequence[Sequence[tuple[int, float]]]) -> None:
        """The parts of each completion's reward that were earned before its end: (index in completion_ids, reward).

        What is left of the reward that the function returns belongs to the last token. Nothing is kept of a completion
        whose tokens are not known, as when a file is scored.

        Raises:
            ValueError: not one list per completion, no such token, or a number that is not finite.
        """
        if len(rows) != len(self._num_tokens):
            raise ValueError(f"log_partial: {len(rows)} lists for {len(self._num_tokens)} completions")
        self.partial = [_checked_parts(row, parts, num) for row, (parts, num) in enumerate(zip(rows, self._num_tokens))]


def _checked_parts(row: int, parts: Sequence[tuple[int, float]], num_tokens: int) -> list[tuple[int, float]]:
    checked = [(int(index), float(reward)) for index, reward in parts] if num_tokens else []
    for index, reward in checked:
        if not 0 <= index < num_tokens:
            raise ValueError(f"log_partial: row {row} has a reward at token {index}; 0 to {num_tokens - 1} are allowed")
        if not math.isfinite(reward):
            raise ValueError(f"log_partial: row {row} has the reward {reward} at token {index}")
    return checked


def as_list(values: Any) -> list[Any]:
    """A list, tuple, array or tensor as a list; anything else is one value that is not a list of rewards."""
    if isinstance(values, (list, tuple)):
        return list(values)
    to_list: Callable[[], Any] | None = getattr(values, "tolist", None)
    listed = to_list() if callable(to_list) else None
    return listed if isinstance(listed, list) else [{"not_a_list": type(values).__name__}]


def plain_value(value: Any) -> float | None | str:
    """A float, None, or a text that says what was returned instead."""
    if value is None:
        return None
    if isinstance(value, dict) and "not_a_list" in value:
        return f"the function returned {value['not_a_list']}, not a list of numbers"
    if isinstance(value, (str, bytes, complex, list, tuple, dict)):
        return f"{_short(value)} is {type(value).__name__}, not a number"
    try:
        return float(value)
    except Exception as error:  # any object at all may come back from user code
        return f"a {type(value).__name__} is not a number ({type(error).__name__})"


def _describe(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {_short(error)}{where}"


def _short(value: object, limit: int = 500) -> str:
    try:
        text = str(value)
    except Exception:  # user classes may fail to print
        text = "<unprintable>"
    return text if len(text) <= limit else text[:limit] + "..."
