"""Where the time before the first step goes. Parts run side by side, so they add up to more than the whole."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Startup:
    """The start of one process of a run."""

    total_s: float
    """from the start of the interpreter to the first stage"""
    parts_s: Mapping[str, float]
    """by part; parts overlap"""

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.parts_s.items())
        return f"ready after {self.total_s:.1f} s (side by side: {parts})"


class StartupClock:
    """Seconds by part since the operating system started this process."""

    def __init__(self) -> None:
        self._began = psutil.Process().create_time()
        self._parts = {"command": time.time() - self._began}

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Adds the time of the block."""
        start = time.monotonic()
        yield
        self._parts[name] = self._parts.get(name, 0.0) + time.monotonic() - start

    def stop(self) -> Startup:
        """What has been measured until now."""
        return Startup(time.time() - self._began, dict(self._parts))
