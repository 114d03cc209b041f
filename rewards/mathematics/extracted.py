"""What an extraction found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Extracted:
    """A candidate answer and the rule that found it; `text` is empty when nothing was found."""

    text: str
    rule: str
