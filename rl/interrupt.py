"""Ctrl-C and SIGTERM: the first asks the run to stop after the current iteration, the second stops it at once."""

from __future__ import annotations

import signal
from types import FrameType


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

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
