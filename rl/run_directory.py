"""The run directory: who owns it, what has been done, and everything that a run leaves behind."""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from rl.errors import UserError
from rl.recipe import Recipe
from rl.scoring import Failure, ScoredTrajectory


@dataclass(frozen=True)
class StageRecord:
    """A finished stage, as it stands in state.json and in the table at the end."""

    kind: str
    iterations: int
    seconds: float
    before: Mapping[str, float]
    """held-out score by evaluation; empty where it was not measured"""
    after: Mapping[str, float]
    details: Mapping[str, float]


class RunDirectory:
    """Paths and files of one run. All writes of whole files are atomic: written aside, then renamed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = path / "model"
        """the model that the pipeline starts from, where the recipe makes one"""
        self.final = path / "final"

    def stage_model(self, stage: str) -> Path:
        """The policy at the end of a stage, or the model of a preference_model stage."""
        return self.path / "checkpoints" / stage / "final"

    def checkpoints(self, stage: str) -> Path:
        """Folder of a stage's checkpoints, named by iteration."""
        return self.path / "checkpoints" / stage

    def message_cache(self, stage: str) -> Path:
        """Kept problems of a message_cache stage."""
        return self.path / "message_caches" / f"{stage}.jsonl"

    def measurements(self, name: str) -> Path:
        """Held-out measurements after a stage, or `start`."""
        return self.path / "evaluations" / f"{name}.json"

    # ------------------------------------------------------------ what has been done

    def records(self) -> dict[str, StageRecord]:
        """Finished stages in order."""
        path = self.path / "state.json"
        if not path.exists():
            return {}
        return {name: StageRecord(**record) for name, record in json.loads(path.read_text())["stages"].items()}

    def add_record(self, stage: str, record: StageRecord) -> None:
        """Marks a stage as finished."""
        records = self.records() | {stage: record}
        self.write_json(self.path / "state.json", {"stages": {name: asdict(r) for name, r in records.items()}})

    # ------------------------------------------------------------ files

    def append_metrics(self, stage: str, iteration: int, metrics: Mapping[str, float]) -> None:
        """One line of metrics.jsonl."""
        self._append("metrics.jsonl", [{"stage": stage, "iteration": iteration, "time": time.time(), **metrics}])

    def metrics(self, stage: str) -> list[dict[str, Any]]:
        """Logged lines of a stage, in order."""
        path = self.path / "metrics.jsonl"
        return [row for row in json_lines(path) if row.get("stage") == stage] if path.exists() else []

    def forget_after(self, stage: str, iteration: int) -> None:
        """Drops logged lines of iterations that a resumed stage does again."""
        for name in ("metrics.jsonl", f"rollouts/{stage}/iterations.jsonl"):
            path = self.path / name
            if path.exists():
                rows = json_lines(path)
                kept = [row for row in rows if row.get("stage", stage) != stage or row["iteration"] < iteration]
                write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))

    def append_rollouts(self, stage: str, iteration: int, scored: Sequence[ScoredTrajectory]) -> None:
        """Sampled trajectories with their rewards."""
        rows = [
            {
                "iteration": iteration,
                "prompt_id": item.trajectory.prompt.prompt_id,
                "origin": item.trajectory.prompt.origin,
                "prompt": item.trajectory.prompt.content,
                "completion": item.trajectory.completion,
                "finish_reason": str(item.trajectory.finish_reason),
                "policy_version": item.trajectory.policy_version,
                "num_tokens": item.trajectory.num_sampled_tokens,
                "reward": item.reward,
                "terms": dict(item.terms),
            }
            for item in scored
        ]
        self._append(f"rollouts/{stage}/iterations.jsonl", rows)

    def append_failure(self, stage: str, failure: Failure) -> None:
        """A reward that had no value, with the text that it had none for."""
        self._append(f"rollouts/{stage}/failures.jsonl", [asdict(failure)])

    def _append(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    def write_json(self, path: Path, value: Any) -> None:
        """Atomic."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(value, indent=1))


def write_text(path: Path, text: str) -> None:
    """Writes a file aside and renames it, so that readers see the old or the new one, never half."""
    aside = path.with_name(f".{path.name}.writing")
    with aside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


@contextlib.contextmanager
def folder_written_aside(path: Path) -> Iterator[Path]:
    """A folder to fill; it takes its name only when the block ends well, so a folder of that name is complete."""
    aside = path.with_name(f".{path.name}.writing")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    yield aside
    shutil.rmtree(path, ignore_errors=True)
    aside.replace(path)


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Whole lines only: a crash can leave the last one cut, also within a character."""
    # Not splitlines: text in a JSON string may hold U+2028 and other ends of lines that are not those of the file.
    for line in path.read_bytes().split(b"\n"):
        with contextlib.suppress(ValueError):
            yield json.loads(line)


@contextlib.contextmanager
def open_run_directory(path: Path, recipe: Recipe) -> Iterator[RunDirectory]:
    """Takes a new or an own run directory for this process.

    Raises:
        UserError: it belongs to another recipe or is not a run directory, or another process runs in it.
            Nothing is changed then.
    """
    resolved = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    _check_ownership(path, resolved)
    path.mkdir(parents=True, exist_ok=True)
    with (path / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{path}: another process runs in this run directory") from None
        write_text(path / "recipe.yaml", resolved)
        yield RunDirectory(path)


def _check_ownership(path: Path, resolved: str) -> None:
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: the run directory is a file; give another one with --run-dir")
    stored = path / "recipe.yaml"
    if not stored.exists():
        if path.exists() and any(entry.name != ".lock" for entry in path.iterdir()):
            raise UserError(f"{path}: not empty and not a run directory; give another one with --run-dir")
        return
    changed = difflib.unified_diff(stored.read_text().splitlines(), resolved.splitlines(), lineterm="", n=1)
    lines = [line for line in changed if not line.startswith(("---", "+++", "@@"))]
    if lines:
        shown = "\n".join(lines[:20])
        raise UserError(
            f"{path}: this run directory belongs to another recipe; give another one with --run-dir. "
            f"Its recipe (-) and the given one (+) differ:\n{shown}"
        )
