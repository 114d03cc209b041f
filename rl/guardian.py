"""Nothing of a run outlives its driver: a small process waits for the driver's end, however it ends, and tidies up.

Every process that the driver starts inherits a mark in its environment. The guardian finds them by it: engines,
learner ranks, Ray's own processes, reward workers, and what these have started. Some of Ray's processes give
themselves a title, which is written over a part of the environment: these are found by the files that they have open
in the folder of the run. Linux only; elsewhere Ray and the
reward workers have their own, weaker nets.

This file is also the guardian's program. It imports the standard library alone, so that it starts in milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

MARK = "STEPLADDER_RUN"
# Ray puts sockets into its folder, and Linux limits their paths to 107 bytes: Ray's own part takes about 70.
_LONGEST_FOLDER = 32
_ROUND_S = 0.05
_MAX_ROUNDS = 1200


@contextlib.contextmanager
def guarded() -> Iterator[Path]:
    """A folder for the temporary files of this process and of those that it starts.

    At the end of the block, or of this process, the folder is removed and everything that was started is killed.
    """
    mark, folder = uuid.uuid4().hex, tempfile.mkdtemp(prefix="sl-", dir=_short_folder())
    command = [sys.executable, "-I", "-S", __file__, str(os.getpid()), mark, folder]
    guardian = None
    if sys.platform.startswith("linux"):
        guardian = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)  # without the mark
    try:
        with environment({MARK: mark, "TMPDIR": folder}):
            yield Path(folder)
    finally:
        tidy_up(mark, folder, quiet_rounds=2)  # everything was ended in order
        if guardian is not None:
            guardian.kill()
            guardian.wait()


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Sets variables for this process and those that it starts, until the end of the block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _short_folder() -> str:
    default = tempfile.gettempdir()
    return default if len(os.path.join(default, "sl-12345678")) <= _LONGEST_FOLDER else "/tmp"


def tidy_up(mark: str, folder: str, *, quiet_rounds: int) -> None:
    """Kills every process that has the mark, and removes the folder, until there is nothing for some rounds in a row.

    One round is not enough: a process that is just being started cannot be seen for a moment.
    """
    quiet = 0
    for _ in range(_MAX_ROUNDS):
        found = own_processes(mark, folder)
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
        quiet = 0 if found or os.path.exists(folder) else quiet + 1
        if quiet == quiet_rounds:
            return
        time.sleep(_ROUND_S)


def own_processes(mark: str, folder: str) -> list[int]:
    """Processes other than this one that inherited the mark, or have a file in the folder open; no zombies."""
    wanted = f"{MARK}={mark}".encode()
    found: list[int] = []
    for name in os.listdir("/proc") if sys.platform.startswith("linux") else ():
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(OSError):  # ended meanwhile, or another user's
                environment = Path(f"/proc/{name}/environ").read_bytes()  # empty for a zombie
                if wanted in environment.split(b"\0") or _has_open(name, f"{folder}/"):
                    found.append(int(name))
    return found


def _has_open(pid: str, folder: str) -> bool:
    return any(os.readlink(entry.path).startswith(folder) for entry in os.scandir(f"/proc/{pid}/fd"))


def main() -> None:
    """The guardian's own life."""
    driver, mark, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # meant for the driver, which ends in its own time
    try:
        ended = os.pidfd_open(driver)
    except ProcessLookupError:
        ended = -1
    if ended >= 0 and os.getppid() == driver:  # otherwise it has ended already, and the number may be another's
        select.select([ended], [], [])
    tidy_up(mark, folder, quiet_rounds=60)


if __name__ == "__main__":
    main()
