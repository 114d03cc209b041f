"""A small process that forks workers: starting Python costs 40 ms of processor time, forking it 1 ms.

The template is itself a fresh process of one thread that has imported little, so forking it is safe where forking
the trainer, with its threads and its GPU, would not be. It serves one pool, over a socket:

    b"fork" with three file descriptors   ->  8 bytes, the new process's id
    b"wait" and 8 bytes, a process's id   ->  8 bytes, its wait status; waits for its end
"""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence

from rewards.worker_process import die_with_parent_process, serve

_MESSAGE_BYTES = 12


class WorkerTemplate:
    """The trainer's side: starts the template at the first fork, and again if it dies.

    Linux kills the template when the *thread* that started it ends; call fork() from threads that live as long as
    the workers.
    """

    def __init__(self, preload: Sequence[str]) -> None:
        self._preload = tuple(preload)
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def fork(self, fds: Sequence[int]) -> int:
        """Start a worker that gets these descriptors; returns its process id.

        Raises:
            OSError: the template cannot be started.
        """
        with self._lock:
            if self._socket is None:
                self._start()
            try:
                return self._ask(b"fork", fds)
            except OSError:  # the template was killed; one more try with a new one
                self._stop()
                self._start()
                return self._ask(b"fork", fds)

    def wait(self, pid: int) -> int | None:
        """The wait status of a worker that has ended or is about to; None if the template is gone."""
        with self._lock:
            if self._socket is None:
                return None
            try:
                return self._ask(b"wait" + pid.to_bytes(8, "little"))
            except OSError:
                return None

    def close(self) -> None:
        with self._lock:
            self._stop()

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            command = [sys.executable, "-m", "rewards.worker_template", str(theirs.fileno()), *self._preload]
            self._process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # an interrupt from the keyboard is the trainer's to handle
                env=dict(os.environ, PYTHONPATH=os.pathsep.join(path or os.getcwd() for path in sys.path)),
            )
        self._socket = ours

    def _stop(self) -> None:
        if self._socket is not None:
            self._socket.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._socket = self._process = None

    def _ask(self, message: bytes, fds: Sequence[int] = ()) -> int:
        assert self._socket is not None
        socket.send_fds(self._socket, [message.ljust(_MESSAGE_BYTES, b"\0")], list(fds))
        answer = self._socket.recv(8, socket.MSG_WAITALL)
        if len(answer) < 8:
            raise ConnectionResetError("the worker template ended")
        return int.from_bytes(answer, "little")


def main() -> None:
    """The template's own life: fork and wait as told, until the socket closes."""
    die_with_parent_process()
    with socket.socket(fileno=int(sys.argv[1])) as control:
        control.set_inheritable(False)
        for module in sys.argv[2:]:
            with contextlib.suppress(ImportError):  # the worker reports what it cannot import
                importlib.import_module(module)
        with contextlib.suppress(ConnectionError):  # the trainer was killed with an answer unread
            while _served(control):
                pass
    os._exit(0)


def _served(control: socket.socket) -> bool:
    """Does what one message asks for; False when the trainer has closed the socket."""
    message, fds, _, _ = socket.recv_fds(control, _MESSAGE_BYTES, 3)
    if len(message) < _MESSAGE_BYTES:
        return False
    answer = _fork(control, fds) if message.startswith(b"fork") else _wait(int.from_bytes(message[4:], "little"))
    control.sendall(answer.to_bytes(8, "little"))
    return True


def _fork(control: socket.socket, fds: list[int]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            os.setpgid(0, 0)  # a process group of its own: what the worker starts can be killed with it
            control.close()
            serve(*fds)
        finally:
            os._exit(1)
    with contextlib.suppress(OSError):
        os.setpgid(pid, pid)  # here too: the trainer may kill the group before the worker runs at all
    for fd in fds:
        os.close(fd)
    return pid


def _wait(pid: int) -> int:
    try:
        return os.waitpid(pid, 0)[1]
    except ChildProcessError:
        return 0


if __name__ == "__main__":
    main()
