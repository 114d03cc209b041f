"""A behaviour term: responses of a wanted length, against rewards that are pleased by length alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from rewards.completions import completion_text


def length_reward(
    *, high: int, slope: int, low: int = 0, unit: Literal["tokens", "words", "characters"] = "tokens"
) -> Callable[..., list[float | None]]:
    """0.0 for lengths from `low` to `high`, then linearly down to -1.0 when `slope` too short or too long.

    Raises:
        ValueError: low is above high, a number is negative, or the unit is unknown.
    """
    if not 0 <= low <= high or slope < 1:
        raise ValueError(f"0 <= low <= high and slope >= 1 are expected, not low {low}, high {high}, slope {slope}")
    if unit not in ("tokens", "words", "characters"):
        raise ValueError(f"unit {unit!r}: tokens, words or characters is expected")

    def length(
        completions: Sequence[Any], completion_ids: Sequence[Sequence[int]] | None = None, **columns: Any
    ) -> list[float | None]:
        if unit == "tokens" and completion_ids is None:
            raise ValueError("unit tokens needs completion_ids; for text alone use words or characters")
        sizes = [len(ids) for ids in completion_ids or ()] if unit == "tokens" else list(map(measure, completions))
        return [-min(1.0, max(low - size, size - high, 0) / slope) for size in sizes]

    def measure(completion: Any) -> int:
        text = completion_text(completion)
        return len(text.split()) if unit == "words" else len(text)

    return length
