"""What a procedural task offers: problems to train and test on, and demonstrations to start from."""

import random
from typing import Protocol

Row = dict[str, object]


class Task(Protocol):
    """A procedural source of rows; everything is drawn from `rng`, so a seed fixes the rows."""

    def problem(self, rng: random.Random) -> Row:
        """{"prompt": str} plus the columns that the task's reward needs."""
        ...

    def demonstration(self, rng: random.Random) -> Row:
        """{"prompt": str, "completion": str}, written by an annotator who makes mistakes."""
        ...


class PreferenceTask(Task, Protocol):
    """A task without a verifier: an annotator compares two replies instead."""

    def preference(self, rng: random.Random) -> Row:
        """{"prompt": str, "chosen": str, "rejected": str}; some labels are wrong."""
        ...


def check_probability(name: str, value: float) -> None:
    """Raises ValueError unless 0 <= value <= 1."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value!r}; a probability in [0, 1] is allowed")
