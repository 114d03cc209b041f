"""Checkpoints inside a stage: everything that the next iteration depends on, in one folder that is whole or absent."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rl.durable import damage, folder_written_aside, remove, set_aside_damaged
from rl.errors import RunFailed
from rl.group import LearnerGroup

_STATE = "stage.json"


@dataclass(frozen=True)
class StageState:
    """Counters of a stage; seeds are derived from them, so no generator has a state of its own."""

    iteration: int
    """iterations (steps) that are done"""
    stream: Mapping[str, Any]
    """state of the row stream"""
    scales: Mapping[str, Any] = field(default_factory=dict)
    """running scales of rewards, by label"""
    rollbacks: int = 0
    """times that the stage went back to a checkpoint; part of the seeds, so that it does not repeat what failed"""
    carried: str = ""
    """prompts that are started and not learned from yet; see `rl.started_prompts.packed`"""


def save_checkpoint(folder: Path, learner: LearnerGroup, state: StageState, *, keep: int) -> None:
    """Writes `folder/<iteration>` and drops all but the newest `keep`.

    Raises:
        RunFailed: it cannot be written (a full disk); earlier checkpoints are as they were.
    """
    try:
        with folder_written_aside(folder / str(state.iteration)) as aside:
            learner.save_state(aside)
            (aside / _STATE).write_text(json.dumps(vars(state)))
    except OSError as error:
        kept = saved_iterations(folder)
        usable = f"that of iteration {kept[-1]} is usable still" if kept else "there is no earlier one"
        raise RunFailed(
            f"the checkpoint of iteration {state.iteration} cannot be written to {folder}: {_reason(error)}; {usable}. "
            f"Make room and run the same command to continue"
        ) from error
    for iteration in saved_iterations(folder)[:-keep]:
        remove(folder / str(iteration))


def load_checkpoint(folder: Path, learner: LearnerGroup, *, on_damage: Callable[[str], None]) -> StageState | None:
    """Restores the newest checkpoint of a stage that is as it was written; None where there is none.

    Args:
        on_damage: told of each one that is passed over, which is renamed.
    """
    for iteration in reversed(saved_iterations(folder)):
        path = folder / str(iteration)
        problem = damage(path)
        if problem is None:
            learner.load_state(path)
            return StageState(**json.loads((path / _STATE).read_text()))
        on_damage(f"checkpoint {path} is damaged and passed over: {problem}; kept as {set_aside_damaged(path).name}")
    return None


def saved_iterations(folder: Path) -> list[int]:
    """Iterations that have a checkpoint, the newest last."""
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit())


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
