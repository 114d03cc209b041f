"""Checkpoints inside a stage: everything that the next iteration depends on, in one folder that is whole or absent."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl.group import LearnerGroup
from rl.run_directory import folder_written_aside


@dataclass(frozen=True)
class StageState:
    """Counters of a stage; seeds are derived from them, so no generator has a state of its own."""

    iteration: int
    """iterations (steps) that are done"""
    stream: Mapping[str, Any]
    """state of the row stream"""


def save_checkpoint(folder: Path, learner: LearnerGroup, state: StageState, *, keep: int) -> None:
    """Writes `folder/<iteration>` and drops all but the newest `keep`."""
    with folder_written_aside(folder / str(state.iteration)) as aside:
        learner.save_state(aside)
        (aside / "stage.json").write_text(json.dumps({"iteration": state.iteration, "stream": state.stream}))
    for old in _numbered(folder)[:-keep]:
        shutil.rmtree(old)


def load_checkpoint(folder: Path, learner: LearnerGroup) -> StageState | None:
    """Restores the newest checkpoint of a stage; None where there is none."""
    found = _numbered(folder)
    if not found:
        return None
    learner.load_state(found[-1])
    stored = json.loads((found[-1] / "stage.json").read_text())
    return StageState(stored["iteration"], stored["stream"])


def _numbered(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob("*") if path.name.isdigit()), key=lambda path: int(path.name))
