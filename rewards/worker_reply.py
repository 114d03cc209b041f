"""Checks what a reward function returned: the count, each value's type, whether it is finite and in its range."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rewards.result import RewardResult, RewardStatus


def check_reply(
    reply: Mapping[str, Any], num_rows: int, value_range: tuple[float, float] | None
) -> list[RewardResult] | str:
    """The results of one call, or what is wrong with the call as a whole."""
    values = reply["values"]
    if len(values) != num_rows:
        if len(values) == 1 and isinstance(values[0], str):
            return values[0]
        return f"the function returned {len(values)} values for {num_rows} completions"
    results = [_check_value(value, value_range, _row_metrics(reply, row)) for row, value in enumerate(values)]
    return [_with_partial(result, parts) for result, parts in zip(results, reply["partial"])]


def _with_partial(result: RewardResult, parts: Sequence[tuple[int, float]]) -> RewardResult:
    if result.value is None or not parts:
        return result
    return replace(result, partial=tuple((index, reward) for index, reward in parts))


def _row_metrics(reply: Mapping[str, Any], row: int) -> dict[str, float]:
    own = {name: entries[row] for name, entries in reply["rows"].items() if entries[row] is not None}
    return dict(reply["metrics"], **own)


def _check_value(
    value: float | str | None, value_range: tuple[float, float] | None, metrics: Mapping[str, float]
) -> RewardResult:
    if value is None:
        return RewardResult(None, RewardStatus.NOT_APPLICABLE, "", metrics)
    if isinstance(value, str):
        return RewardResult(None, RewardStatus.INVALID, value, metrics)
    if not math.isfinite(value):
        return RewardResult(None, RewardStatus.INVALID, f"{value} is not a finite number", metrics)
    if value_range is not None and not value_range[0] <= value <= value_range[1]:
        low, high = value_range
        return RewardResult(None, RewardStatus.INVALID, f"{value:g} is outside the range [{low:g}, {high:g}]", metrics)
    return RewardResult(float(value), RewardStatus.OK, "", metrics)
