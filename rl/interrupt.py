"""Ctrl-C and SIGTERM: the first asks the run to stop after the current iteration, the second stops it at once."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType

from rl.errors import Interrupted


class InterruptRequest:
    """True after the first signal. A context manager that restores the handlers."""

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> InterruptRequest:
        self._previous = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def take_back(self) -> None:
        """Handles the signals again, after a library has taken them: ray.init puts its own handler on SIGTERM."""
        for number in self._previous:
            signal.signal(number, self._handle)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Raises Interrupted where SIGTERM came while that library's handler stood, which ends the process."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if isinstance(error, SystemExit) and error.code == signal.SIGTERM:
            raise Interrupted("stopped at the start; run the same command to continue") from None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
