"""The trainer's side of one worker process: start it, ask it with a deadline, kill it."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import select
import signal
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from rewards.worker_template import WorkerTemplate


class RewardLoadError(RuntimeError):
    """A worker could not load its reward function; the message carries the worker's traceback."""


class WorkerDied(Exception):
    """The worker's process ended during a call."""


class Worker:
    """One forked process with a pipe each way and a lifeline; it loads while the caller does something else."""

    def __init__(self, template: WorkerTemplate, greeting: bytes, spec: str, start_timeout_s: float) -> None:
        self._template = template
        self._spec = spec
        self._start_by = time.monotonic() + start_timeout_s
        self._ready = False
        self._status: int | None = None  # wait status, once it is known
        self._is_reaped = False
        self._kill_lock = threading.Lock()
        child_reads, self._write_fd = os.pipe()
        self._read_fd, child_writes = os.pipe()
        child_lifeline, self._lifeline = os.pipe()
        child_fds = [child_reads, child_writes, child_lifeline]
        try:
            self.pid = template.fork(child_fds)
        finally:
            for fd in child_fds:
                os.close(fd)
        os.set_blocking(self._write_fd, False)
        self._pidfd = os.pidfd_open(self.pid)  # the id is not reused before the template has waited for it
        self._buffer = bytearray()
        self._greeting: bytes | None = greeting

    def wait_ready(self) -> None:
        """Wait until the reward function is loaded.

        Raises:
            RewardLoadError: it could not be loaded, or not in time.
        """
        if self._ready:
            return
        try:
            if self._greeting is not None:
                self._send(self._greeting, self._start_by)
                self._greeting = None
            message = self._receive(self._start_by)
        except TimeoutError:
            raise RewardLoadError(f"reward {self._spec!r} did not finish loading in time") from None
        except WorkerDied as error:
            raise RewardLoadError(f"reward {self._spec!r}: loading it failed: {error}") from None
        if "load_error" in message:
            raise RewardLoadError(f"reward {self._spec!r}: {message['load_error']}\n{message['traceback']}")
        self._ready = True

    def ask(self, payload: Mapping[str, object], timeout_s: float) -> dict[str, Any]:
        """The worker's answer.

        Raises:
            TimeoutError: none within `timeout_s` seconds; the worker is still busy and must be killed.
            WorkerDied: its process ended.
        """
        deadline = time.monotonic() + timeout_s
        self._send(pickle.dumps(payload), deadline)
        return self._receive(deadline)

    def kill(self) -> None:
        """Kill the process and everything in its group, and reap it. May be called twice, from any thread."""
        with self._kill_lock:
            if not self._is_reaped:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)
                self._status = self._template.wait(self.pid)
                self._is_reaped = True

    def discard(self) -> None:
        """Kill, and close the pipes; only for the thread that asks this worker."""
        self.kill()
        for name in ("_write_fd", "_read_fd", "_lifeline", "_pidfd"):
            fd = getattr(self, name)
            if fd >= 0:
                setattr(self, name, -1)
                os.close(fd)

    def _send(self, body: bytes, deadline: float) -> None:
        view = memoryview(len(body).to_bytes(8, "little") + body)
        while view:
            self._wait(self._write_fd, select.POLLOUT, deadline)
            try:
                view = view[os.write(self._write_fd, view) :]
            except BlockingIOError:
                continue
            except OSError:
                raise WorkerDied(self._obituary()) from None

    def _receive(self, deadline: float) -> dict[str, Any]:
        size = int.from_bytes(self._read(8, deadline), "little")
        message: dict[str, Any] = json.loads(self._read(size, deadline))
        return message

    def _read(self, size: int, deadline: float) -> bytes:
        while len(self._buffer) < size:
            self._wait(self._read_fd, select.POLLIN, deadline)
            try:
                chunk = os.read(self._read_fd, 1 << 20)
            except OSError:
                chunk = b""
            if not chunk:
                raise WorkerDied(self._obituary())
            self._buffer += chunk
        data, self._buffer = bytes(self._buffer[:size]), self._buffer[size:]
        return data

    def _wait(self, fd: int, event: int, deadline: float) -> None:
        """Wait for the pipe, the process's end or the deadline; a dead process's last words are still read."""
        if fd < 0:
            raise WorkerDied("the worker was killed")
        poll = select.poll()
        poll.register(fd, event)
        poll.register(self._pidfd, select.POLLIN)
        ready = dict(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))
        if not ready:
            raise TimeoutError
        if fd not in ready:
            raise WorkerDied(self._obituary())

    def _obituary(self) -> str:
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        if not poll.poll(1_000):
            return "the worker closed its pipe"
        self.kill()  # what it started may have outlived it
        if self._status is None:
            return "the worker process ended"
        code = os.waitstatus_to_exitcode(self._status)
        if code < 0:
            return f"the worker process was killed by {signal.Signals(-code).name}"
        return f"the worker process exited with status {code}"


class Nursery:
    """Starts workers, keeps the spares, and knows every process so that none is left behind."""

    def __init__(
        self, greeting: bytes, spec: str, num_spares: int, start_timeout_s: float, preload: Sequence[str]
    ) -> None:
        self.closed = False
        self._template = WorkerTemplate(preload)
        self._greeting = greeting
        self._spec = spec
        self._num_spares = num_spares
        self._start_timeout_s = start_timeout_s
        self._spares: list[Worker] = []
        self._all: weakref.WeakSet[Worker] = weakref.WeakSet()
        self._lock = threading.RLock()  # the garbage collector may close a pool inside take()

    def take(self) -> Worker:
        """A worker, loaded or loading.

        Raises:
            RuntimeError: the pool is closed.
        """
        with self._lock:
            if self.closed:
                raise RuntimeError("the reward pool was closed")
            return self._spares.pop(0) if self._spares else self._start()

    def replenish(self) -> None:
        """Bring the spares up to their number; called after a death, so most runs never pay for one."""
        with self._lock:
            while not self.closed and len(self._spares) < self._num_spares:
                self._spares.append(self._start())

    def close(self) -> None:
        with self._lock:
            self.closed = True
            for worker in list(self._all):
                worker.kill()
            for worker in self._spares:
                worker.discard()
            self._spares.clear()
            self._template.close()

    def _start(self) -> Worker:
        worker = Worker(self._template, self._greeting, self._spec, self._start_timeout_s)
        self._all.add(worker)
        return worker
