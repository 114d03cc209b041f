"""What one reward says about one completion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType


class RewardStatus(StrEnum):
    """Why a reward has, or has not, a value."""

    OK = "ok"
    NOT_APPLICABLE = "not_applicable"  # the function returned None for this row
    ERROR = "error"  # it raised, or its process died
    TIMEOUT = "timeout"  # it was killed at its deadline
    INVALID = "invalid"  # it returned something that is not a finite number inside the range


# (index among the sampled tokens of the completion, reward earned with that token)
PartialRewards = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class RewardResult:
    """One row's verdict; `value` is a finite float exactly when `status` is ok."""

    value: float | None
    status: RewardStatus
    message: str = ""  # for people: what went wrong, empty when nothing did
    metrics: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))  # what the function logged
    partial: PartialRewards = ()  # the parts of `value` that were earned on the way

    @property
    def failed(self) -> bool:
        """True for error, timeout and invalid: the cases that `on_error` decides about."""
        return self.status not in (RewardStatus.OK, RewardStatus.NOT_APPLICABLE)
