"""What an agent acts in: one protocol, for the simulated device here and for a real device or browser of yours.

    class MyBrowser:                                   # nothing to inherit from
        def reset(self, seed: int) -> Observation: ...
        def step(self, action: Action) -> Observation: ...
        @property
        def completed(self) -> bool: ...               # your own check of the goal; what the agent claims is not asked
        @property
        def target_box(self) -> Box | None: ...        # what to click now, or None where that is unknown or no click
        @property
        def shortest_path(self) -> int | None: ...     # actions of the shortest way, or None

The order of calls is reset, then step until `finished`. A wrong action is not an error: the environment stays as it is
and shows that. An exception from an environment ends the run, so raise only what the agent did not cause.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from PIL import Image

Point = tuple[float, float]
Box = tuple[int, int, int, int]

ActionKind = Literal["click", "type", "scroll", "back", "done", "unreadable"]


@dataclass(frozen=True)
class Action:
    """One thing to do."""

    kind: ActionKind
    """`unreadable` is an answer in which no action was found; it changes nothing"""
    point: Point | None = None
    """of a click, in pixels of the screenshot"""
    text: str = ""
    """what to type, in place of what the focused field holds; or the direction to scroll, up or down"""


@dataclass(frozen=True)
class Observation:
    """What the agent sees before its next action."""

    image: Image.Image
    instruction: str
    """the whole task, the same at every step"""
    finished: bool
    """no further action is taken: the agent said that it is done"""


class Environment(Protocol):
    """A task on a screen; see the head of this module."""

    def reset(self, seed: int) -> Observation:
        """Begins the task of a seed."""

    def step(self, action: Action) -> Observation:
        """Does one action."""

    @property
    def completed(self) -> bool:
        """Whether the goal is reached now."""

    @property
    def target_box(self) -> Box | None:
        """Where a click should go now, x1, y1, x2, y2 in pixels."""

    @property
    def shortest_path(self) -> int | None:
        """Actions of the shortest way from the start to the end, the last `done` included."""
