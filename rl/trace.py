"""A time line of a few iterations in Chrome's trace format: who worked when, and what overlapped.

Open the file in chrome://tracing or https://ui.perfetto.dev.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """A stretch of work."""

    lane: str
    """who worked: `learner`, `engine 0`, `reward math`"""
    name: str
    began: float
    """seconds since the epoch, the one clock that all processes of a machine share"""
    ended: float


class StageTrace:
    """Spans of the first iterations of a stage, from several threads and processes."""

    def __init__(self, first: int, count: int) -> None:
        """Iterations `first` to `first + count` (excluded) are kept; none where count is 0."""
        self._last = first + count - 1
        self._open = count > 0
        self._spans: list[Span] = []
        self._lock = threading.Lock()

    def engine_span(self, engine: int, began: float, ended: float) -> None:
        """A stretch in which an engine sampled."""
        self._add(Span(f"engine {engine}", "sampling", began, ended))

    def reward_span(self, reward: str, began: float, ended: float) -> None:
        """A stretch in which a reward was computed."""
        self._add(Span(f"reward {reward}", "scoring", began, ended))

    def learner_span(self, phase: str, began: float, ended: float) -> None:
        """A stretch of the driver: learning, publishing, or waiting for responses."""
        self._add(Span("learner", phase, began, ended))

    def _add(self, span: Span) -> None:
        with self._lock:
            if self._open:
                self._spans.append(span)

    def is_over(self, index: int) -> bool:
        """True once: after the last iteration that is kept."""
        with self._lock:
            over = self._open and index >= self._last
            self._open = self._open and not over
            return over

    def spans(self) -> list[Span]:
        """All so far."""
        with self._lock:
            return list(self._spans)

    def content(self) -> dict[str, object]:
        """What is written; see `chrome_trace`."""
        return chrome_trace(self.spans())


def chrome_trace(spans: Sequence[Span]) -> dict[str, object]:
    """Spans as JSON-able events of kind X (complete), microseconds from the first, and a name for each lane's row.

    `otherData.began` is the first one's beginning, in seconds since the epoch.
    """
    lanes = sorted({span.lane for span in spans}, key=lambda lane: (lane != "learner", lane))
    start = min((span.began for span in spans), default=0.0)
    names = [
        {"ph": "M", "name": "thread_name", "pid": 0, "tid": row, "args": {"name": lane}}
        for row, lane in enumerate(lanes)
    ]
    events = [
        {
            "ph": "X",
            "name": span.name,
            "pid": 0,
            "tid": lanes.index(span.lane),
            "ts": round((span.began - start) * 1e6),
            "dur": round((span.ended - span.began) * 1e6),
        }
        for span in sorted(spans, key=lambda span: span.began)
    ]
    return {"traceEvents": [*names, *events], "displayTimeUnit": "ms", "otherData": {"began": start}}


def overlap_s(spans: Sequence[Span], lane: str, other: str) -> float:
    """Seconds in which lanes that begin with `lane` and with `other` both worked."""
    first, second = (_union([span for span in spans if span.lane.startswith(name)]) for name in (lane, other))
    return sum(max(min(b, d) - max(a, c), 0.0) for a, b in first for c, d in second)


def busy_s(spans: Sequence[Span], lane: str) -> float:
    """Seconds in which a lane that begins with `lane` worked."""
    return sum(b - a for a, b in _union([span for span in spans if span.lane.startswith(lane)]))


def _union(spans: Sequence[Span]) -> list[tuple[float, float]]:
    """Stretches that some span covers, in order."""
    union: list[tuple[float, float]] = []
    for span in sorted(spans, key=lambda span: span.began):
        if union and span.began <= union[-1][1]:
            union[-1] = union[-1][0], max(union[-1][1], span.ended)
        else:
            union.append((span.began, span.ended))
    return union
