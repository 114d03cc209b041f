"""The run directory: who owns it, what has been done, and everything that a run leaves behind."""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from rl.durable import append_lines, checksum, flush_to_disk, json_lines, mend_log, remove, write_text
from rl.errors import UserError
from rl.inputs import changed_inputs, fingerprints
from rl.recipe import Recipe
from rl.recipe.changes import judged
from rl.rollout_log import logged
from rl.scoring import Failure, ScoredTrajectory

# Of a file that grows while its stage runs, and that nothing reads afterwards.
_GRADED = ".graded.jsonl"


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

    def __init__(self, path: Path, notes: Sequence[str] = ()) -> None:
        self.path = path
        self.notes = tuple(notes)
        """what has changed harmlessly in the recipe since the run began"""
        self.model = path / "model"
        """the model that the pipeline starts from, where the recipe makes one"""
        self.final = path / "final"

    def stage_model(self, stage: str) -> Path:
        """The policy at the end of a stage, or the model of a preference_model stage."""
        return self.path / "checkpoints" / stage / "final"

    def best_model(self, stage: str) -> Path:
        """The policy that scored best on the held-out set that the stage keeps it by."""
        return self.path / "checkpoints" / stage / "best"

    def unfinished(self, stage: str) -> Path:
        """What a preference_model stage continues from; nothing reads it once the stage is done."""
        return self.path / "checkpoints" / stage / "unfinished"

    def checkpoints(self, stage: str) -> Path:
        """Folder of a stage's checkpoints, named by iteration."""
        return self.path / "checkpoints" / stage

    def message_cache(self, stage: str) -> Path:
        """Kept problems of a message_cache stage."""
        return self.path / "message_caches" / f"{stage}.jsonl"

    def graded_problems(self, stage: str) -> Path:
        """All problems of a message_cache stage with their grades, before its filter."""
        return self.path / "message_caches" / f"{stage}{_GRADED}"

    def trace(self, stage: str) -> Path:
        """Time line of the first iterations of an rl stage."""
        return self.path / "traces" / f"{stage}.json"

    def measurements(self, name: str) -> Path:
        """Held-out measurements after a stage, or `start`."""
        return self.path / "evaluations" / f"{name}.json"

    def outcome(self, stage: str) -> Path:
        """What a stage says of itself, once it is done and its model is saved, but not measured yet."""
        return self.path / "checkpoints" / stage / "outcome.json"

    # ------------------------------------------------------------ what has been done

    @property
    def state(self) -> Path:
        """The records of finished stages; `previous_state` is the file as it was before the last one."""
        return self.path / "state.json"

    @property
    def previous_state(self) -> Path:
        """See `state`."""
        return self.path / "state.previous.json"

    def records(self) -> dict[str, StageRecord]:
        """Finished stages in order."""
        if not self.state.exists():
            return {}
        return {name: StageRecord(**record) for name, record in json.loads(self.state.read_text())["stages"].items()}

    def add_record(self, stage: str, record: StageRecord, *, order: Sequence[str]) -> None:
        """Marks a stage as finished. `order`: every stage of the recipe, in its order."""
        records = self.records() | {stage: record}
        self._write_state({name: records[name] for name in order if name in records})

    def drop_record(self, stage: str) -> None:
        """Marks a stage as not finished."""
        self._write_state({name: record for name, record in self.records().items() if name != stage})

    def set_records(self, records: Mapping[str, StageRecord]) -> None:
        """The finished stages, in order."""
        self._write_state(records)

    def _write_state(self, records: Mapping[str, StageRecord]) -> None:
        if self.state.exists():
            write_text(self.previous_state, self.state.read_text())
        stages = {name: asdict(record) for name, record in records.items()}
        files = {name: checksum(self.path / name) for name in self.checked_files() if (self.path / name).is_file()}
        content = {"stages": stages, "files": files}
        self.write_json(self.state, {**content, "checksum": checksum_of(content)})

    def checked_files(self) -> list[str]:
        """Single files that later stages read: their checksums are part of the state."""
        folders = ("message_caches", "evaluations")
        found = (path for name in folders for path in self.path.glob(f"{name}/[!.]*") if path.is_file())
        return sorted(str(path.relative_to(self.path)) for path in found if not path.name.endswith(_GRADED))

    # ------------------------------------------------------------ files

    def append_metrics(self, stage: str, iteration: int, metrics: Mapping[str, float]) -> None:
        """One line of metrics.jsonl."""
        self._append("metrics.jsonl", [{"stage": stage, "iteration": iteration, "time": time.time(), **metrics}])

    def metrics(self, stage: str) -> list[dict[str, Any]]:
        """Logged lines of a stage, in order."""
        path = self.path / "metrics.jsonl"
        return [row for row in json_lines(path) if row.get("stage") == stage] if path.exists() else []

    def forget_after(self, stage: str, iteration: int) -> None:
        """Drops logged lines and kept batches of iterations that a resumed stage does again."""
        folder = self.path / "rollouts" / stage
        for path in (self.path / "metrics.jsonl", folder / "iterations.jsonl", folder / "failures.jsonl"):
            mend_log(path, keep=lambda row: row.get("stage", stage) != stage or row.get("iteration", -1) < iteration)
        for path in self.bad_batches(stage).glob("*"):
            if path.name.partition("-")[0].isdigit() and int(path.name.partition("-")[0]) >= iteration:
                remove(path)

    def logs(self) -> list[Path]:
        """Every log of JSON lines."""
        return [self.path / "metrics.jsonl", *sorted(self.path.glob("rollouts/*/*.jsonl"))]

    def bad_batches(self, stage: str) -> Path:
        """Batches whose loss or gradient was not finite; names begin with the iteration."""
        return self.path / "bad_batches" / stage

    def flush_logs(self, stage: str) -> None:
        """Waits until what was logged is on the disk, so that no checkpoint is ahead of its log."""
        for path in (self.path / "metrics.jsonl", *(self.path / "rollouts" / stage).glob("*.jsonl")):
            flush_to_disk(path)

    def append_rollouts(self, stage: str, iteration: int, scored: Sequence[ScoredTrajectory]) -> None:
        """Sampled trajectories with their rewards."""
        rows = [logged(item, iteration, self.path / "rollouts" / stage) for item in scored]
        self._append(f"rollouts/{stage}/iterations.jsonl", rows)

    def append_failure(self, stage: str, iteration: int, failure: Failure) -> None:
        """A reward that had no value, with the text that it had none for."""
        self._append(f"rollouts/{stage}/failures.jsonl", [{"iteration": iteration, **asdict(failure)}])

    def _append(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        append_lines(self.path / name, [json.dumps(row, ensure_ascii=False) for row in rows])

    def write_json(self, path: Path, value: Any) -> None:
        """Atomic."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(value, indent=1))


def checksum_of(value: Any) -> str:
    """SHA-256 of a value that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def open_run_directory(path: Path, recipe: Recipe) -> Iterator[RunDirectory]:
    """Takes a new or an own run directory for this process.

    Raises:
        UserError: it belongs to another recipe or is not a run directory, its inputs have changed, or another
            process runs in it. Nothing is changed then.
    """
    resolved = recipe.model_dump(mode="json")
    notes = check_ownership(path, resolved)
    path.mkdir(parents=True, exist_ok=True)
    with (path / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{path}: another process runs in this run directory") from None
        run = RunDirectory(path, notes)
        if notes and (path / "recipe.yaml").exists():
            append_lines(path / "recipe_changes.jsonl", [json.dumps({"time": time.time(), "changes": notes})])
        run.write_json(path / "inputs.json", {**_stored_inputs(path), **fingerprints(resolved)})
        write_text(path / "recipe.yaml", as_yaml(resolved))
        yield run


def as_yaml(recipe: Mapping[str, Any]) -> str:
    """A resolved recipe as it stands in a run directory."""
    return yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True)


def check_ownership(path: Path, given: Mapping[str, Any]) -> list[str]:
    """What has changed harmlessly since the run began, a line each; nothing for a new run.

    Raises:
        UserError: this is not a run directory, or one of another recipe, or an input has other content.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: the run directory is a file; give another one with --run-dir")
    stored = path / "recipe.yaml"
    if not stored.exists():
        if path.exists() and any(entry.name != ".lock" for entry in path.iterdir()):
            raise UserError(f"{path}: not empty and not a run directory; give another one with --run-dir")
        return []
    finished = _finished(path)
    old = _stored_recipe(stored)
    changes = judged(old, given, finished)
    if changes.refused:
        raise UserError(_other_recipe(path, changes.refused, as_yaml(old), as_yaml(given)))
    data, rewards = changed_inputs(_stored_inputs(path), fingerprints(given, skip=frozenset(finished)))
    if data:
        raise UserError(
            f"{path}: files that this run reads have other content than when it began ({', '.join(data)}); what "
            f"follows would not fit to what is done. Restore them, or start from what is done with --fork-from {path}"
        )
    return [*changes.accepted, *(f"{key}: the file of this reward has other content now" for key in rewards)]


def _finished(path: Path) -> list[str]:
    try:
        return list(RunDirectory(path).records())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []  # damaged; `rl.recovery` sees to it


def _stored_recipe(path: Path) -> dict[str, Any]:
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
        if isinstance(recipe, dict) and isinstance(recipe.get("stages"), dict):
            return recipe
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        pass
    raise UserError(f"{path}: not the recipe of a run; restore it, or give another run directory with --run-dir")


def _stored_inputs(path: Path) -> dict[str, str]:
    try:
        return dict(json.loads((path / "inputs.json").read_bytes()))
    except (OSError, ValueError, TypeError):
        return {}


def _other_recipe(path: Path, refused: Sequence[str], old: str, new: str) -> str:
    changed = difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=1)
    lines = [line for line in changed if not line.startswith(("---", "+++", "@@"))]
    shown = "\n".join(lines[:20])
    reasons = "\n".join(f"  {line}" for line in refused[:20])
    return (
        f"{path}: this run directory belongs to another recipe; give another one with --run-dir, or start a new run "
        f"from what is done here with --fork-from {path}. A run cannot take this over on its way:\n{reasons}\n"
        f"Its recipe (-) and the given one (+) differ:\n{shown}"
    )
