"""Where the time before the first step goes. Parts run side by side, so they add up to more than the whole."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence

import psutil

from rollouts.engine import EngineStart


class StartupClock:
    """When which part of a process's start began and ended, in seconds since the operating system started it."""

    def __init__(self) -> None:
        self._began = psutil.Process().create_time()
        self._total_s = 0.0
        self._parts = {"command": (0.0, self._now())}

    def _now(self) -> float:
        return time.time() - self._began

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """The block is a part of this name."""
        began = self._now()
        yield
        self._parts[name] = began, self._now()

    def stop(self) -> None:
        """The first stage begins; engines may still be loading."""
        self._total_s = self._now()

    def add_engines(self, starts: Sequence[EngineStart]) -> None:
        """What engines tell of their start, in their own processes."""
        for index, start in enumerate(starts):
            moments = {
                "process": (start.process, start.constructed),
                "imports": (start.constructed, start.imported),
                "model": (start.imported, start.ready),
            }
            for name, (began, ended) in moments.items():
                self._parts[f"engine {index} {name}"] = began - self._began, ended - self._began

    def content(self) -> dict[str, object]:
        """What `startup.json` holds: `total_s` until the first stage, `began` (seconds since the epoch), and each
        part's length, beginning and end in seconds since `began`."""
        return {
            "began": self._began,
            "total_s": self._total_s,
            "parts_s": {name: ended - began for name, (began, ended) in self._parts.items()},
            "timeline_s": {name: list(ends) for name, ends in self._parts.items()},
        }

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {ended - began:.1f} s" for name, (began, ended) in self._parts.items())
        return f"ready after {self._total_s:.1f} s (side by side: {parts})"
