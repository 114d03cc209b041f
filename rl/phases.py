"""The phases of an iteration and their times. Imports no torch: the display is there before it is loaded."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping

PHASES = ("rollout", "scoring", "learning", "publishing")


class PhaseClock:
    """Seconds of one iteration by phase."""

    def __init__(self, on_phase: Callable[[str, float, float], None] = lambda name, began, ended: None) -> None:
        """`on_phase`: told of each block, its name and its time in seconds since the epoch."""
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self._on_phase = on_phase

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Adds the time of the block."""
        start, began = time.perf_counter(), time.time()
        yield
        self.seconds[name] += time.perf_counter() - start
        self._on_phase(name, began, time.time())

    def add(self, seconds: Mapping[str, float]) -> None:
        """Adds time that was measured elsewhere."""
        for name, value in seconds.items():
            self.seconds[name] += value

    def metrics(self, num_sampled_tokens: int) -> dict[str, float]:
        """`time/<phase>_s`, `time/iteration_s` and `tokens_per_s` (sampled tokens over the whole iteration)."""
        total = sum(self.seconds.values())
        times = {f"time/{name}_s": value for name, value in self.seconds.items()}
        return {**times, "time/iteration_s": total, "tokens_per_s": num_sampled_tokens / max(total, 1e-9)}


def shares(metrics: Mapping[str, float]) -> dict[str, float]:
    """Share of an iteration's time by phase."""
    total = max(metrics.get("time/iteration_s", 0.0), 1e-9)
    return {name: metrics.get(f"time/{name}_s", 0.0) / total for name in PHASES}
