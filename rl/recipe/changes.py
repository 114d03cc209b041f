"""A recipe that has changed since a run began: what may change on the way, and why the rest may not."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Key = tuple[str, ...]

# What a run computes does not depend on these, but for the rounding of sums that are added in another order.
_MACHINE: Mapping[str, frozenset[str]] = {
    "engine": frozenset(
        ("replicas", "gpus", "cpus", "max_num_seqs", "kv_cache_gb", "gpu_memory_utilization", "max_restarts",
         "start_timeout_s")
    ),
    "learner": frozenset(
        ("ranks", "gpus", "cpus", "threads", "micro_batch_tokens", "activation_checkpointing", "head_chunk_tokens")
    ),
}  # fmt: skip
_FREE_SECTIONS = frozenset(("name", "ray", "saving", "non_finite"))
_FREE_OF_A_REWARD = frozenset(("timeout_s", "workers", "max_failure_rate", "actor", "gold"))
_MISSING = object()


@dataclass(frozen=True)
class Change:
    """One key of the recipe with another value than when the run began."""

    key: Key
    old: object
    """`_MISSING` where the key is new"""
    new: object
    """`_MISSING` where the key is gone"""

    def __str__(self) -> str:
        return f"{'.'.join(self.key)}: {_shown(self.old)} -> {_shown(self.new)}"


@dataclass(frozen=True)
class Judgement:
    """What is to be said of the changes."""

    accepted: tuple[str, ...]
    """`key: old -> new`"""
    refused: tuple[str, ...]
    """`key: old -> new: the reason`"""


def judged(stored: Mapping[str, Any], given: Mapping[str, Any], finished: Collection[str]) -> Judgement:
    """Compares two resolved recipes as JSON has them. `finished`: the stages that are done.

    A path may change: what it leads to is compared apart from this, by content (rl/inputs.py).
    """
    accepted, refused = [], []
    for change in _changes(stored, given, ()):
        reason = _refusal(change, stored, given, finished)
        if reason is None:
            accepted.append(str(change))
        else:
            refused.append(f"{change}: {reason}")
    return Judgement(tuple(accepted), tuple(refused))


def _changes(old: Any, new: Any, key: Key) -> Iterator[Change]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*old, *(name for name in new if name not in old)]:
            yield from _changes(old.get(name, _MISSING), new.get(name, _MISSING), (*key, str(name)))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (a, b) in enumerate(zip(old, new)):
            yield from _changes(a, b, (*key, str(index)))
    elif old != new:
        yield Change(key, old, new)


def _refusal(
    change: Change, stored: Mapping[str, Any], given: Mapping[str, Any], finished: Collection[str]
) -> str | None:
    """Why a change cannot be taken over; None where it can."""
    section, *rest = change.key
    if section in _FREE_SECTIONS or (rest and rest[0] in _MACHINE.get(section, ())):
        return None
    if change.key == ("model", "path") or change.key[-1:] in (("dataset",), ("fn",)):
        return None if _is_text(change) else "the source is of another kind"
    if rest[-3:-2] == ["rewards"] and rest[-1] in _FREE_OF_A_REWARD:
        return None
    if section == "evaluations" and rest[1:] == ["every"]:
        return None
    if section == "stages" and len(rest) == 1:
        return _added_stage(change, list(stored["stages"]), list(given["stages"]))
    if section == "stages" and _is_length(rest, given["stages"]):
        return _longer(change, rest[0], finished)
    if section == "stages" and rest[1:] in (["above"], ["below"]) and rest[0] not in finished:
        return None  # the filter of a message cache, which comes after everything that is sampled
    if section == "stages":
        return f"{rest[0]} is finished with the old value" if rest[0] in finished else "what is done has the old value"
    return "what is done has the old value"


def _is_text(change: Change) -> bool:
    return isinstance(change.old, str) and isinstance(change.new, str)


def _is_length(rest: list[str], stages: Mapping[str, Any]) -> bool:
    """True for the key that says how long a stage is: its iterations, or the steps of its last phase."""
    if rest[1:] == ["iterations"]:
        return True
    phases = stages[rest[0]].get("phases", ())
    return rest[1:] == ["phases", str(len(phases) - 1), "steps"]


def _longer(change: Change, stage: str, finished: Collection[str]) -> str | None:
    if stage in finished:
        return f"{stage} is finished with the old value"
    if not (isinstance(change.old, int) and isinstance(change.new, int) and change.new > change.old):
        return "a stage that is under way can only get longer"
    return None


def _added_stage(change: Change, old: list[str], new: list[str]) -> str | None:
    if change.new is _MISSING:
        return "a stage cannot be taken out of a run"
    return None if new[: len(old)] == old else "a new stage can only follow the others"


def _shown(value: object) -> str:
    text = "nothing" if value is _MISSING else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
