"""A new run that begins with what another one has done: `--fork-from RUN_DIR[:stage[:iteration]]`."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from rl.checkpoint import saved_iterations
from rl.durable import append_lines, damage, json_lines
from rl.errors import UserError
from rl.recipe import Recipe, RlStage, SftStage
from rl.recipe.changes import judged
from rl.run_directory import RunDirectory, as_yaml

_ORIGIN = "fork.json"


@dataclass(frozen=True)
class ForkPoint:
    """Where a run branches off."""

    source: Path
    stage: str | None = None
    """first stage that is not taken over; None: that which the source is in"""
    iteration: int | None = None
    """iterations of that stage that are taken over, from a checkpoint; None: none, or with no stage the newest"""

    def __str__(self) -> str:
        return ":".join(str(part) for part in (self.source, self.stage, self.iteration) if part is not None)


def parse_fork_point(text: str) -> ForkPoint:
    """`RUN_DIR[:stage[:iteration]]`. The path may hold colons.

    Raises:
        UserError: no part of it is a run directory, or the iteration is no number.
    """
    parts = text.split(":")
    for length in range(len(parts), max(len(parts) - 3, 0), -1):
        source = Path(":".join(parts[:length])).expanduser()
        if (source / "recipe.yaml").is_file():
            return _with_stage(source, parts[length:], text)
    raise UserError(f"--fork-from: {text!r}: there is no run directory; RUN_DIR[:stage[:iteration]] is expected")


def _with_stage(source: Path, rest: Sequence[str], text: str) -> ForkPoint:
    if len(rest) == 2 and not (rest[1].isascii() and rest[1].isdigit()):
        raise UserError(f"--fork-from: {text!r}: the iteration {rest[1]!r} is not a whole number")
    return ForkPoint(source, rest[0] if rest else None, int(rest[1]) if len(rest) == 2 else None)


def fork(point: ForkPoint, path: Path, recipe: Recipe) -> list[str]:
    """Makes the run directory `path`; nothing where an earlier call has made it from the same point.

    Files of the source are linked where the file system can, so a fork takes little room. The source stays as it is.

    Returns:
        How the recipe differs from the source's, a line each.

    Raises:
        UserError: `path` is taken, or the source does not hold what the point asks for or the recipe needs.
    """
    origin = path / _ORIGIN
    if origin.is_file() and json.loads(origin.read_bytes())["from"] == str(point):
        return []
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path}: exists already; give a fork another run directory with --run-dir")
    source = RunDirectory(point.source)
    stored = _stored_recipe(point.source)
    stage = _first_new_stage(point, source, recipe)
    kept = [name for name in source.records() if name in recipe.stages and _is_before(name, stage, recipe)]
    iteration = _iteration(point, source, stage)
    _check_model(point, stored, recipe)
    if iteration:
        assert stage is not None
        _check_checkpoint(source.checkpoints(stage) / str(iteration), stored, recipe, stage, point)
    aside = path.with_name(f".{path.name}.writing")
    shutil.rmtree(aside, ignore_errors=True)
    _take_over(source, aside, kept, stage if iteration else None, iteration)
    resolved = recipe.model_dump(mode="json")
    differs = judged(stored, resolved, kept)
    changes = [*differs.accepted, *differs.refused]
    RunDirectory(aside).write_json(aside / _ORIGIN, {"from": str(point), "stages": kept, "changes": changes})
    (aside / "recipe.yaml").write_text(as_yaml(resolved), encoding="utf-8")
    if path.exists():
        path.rmdir()
    aside.replace(path)
    where = f"{stage}, iteration {iteration}" if iteration else f"the start of {stage}" if stage else "its end"
    return [f"branches off from {point.source} at {where}", *changes]


def _stored_recipe(source: Path) -> dict[str, Any]:
    try:
        stored = yaml.safe_load((source / "recipe.yaml").read_text(encoding="utf-8"))
        if isinstance(stored, dict) and isinstance(stored.get("stages"), dict):
            return stored
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        pass
    raise UserError(f"--fork-from: {source / 'recipe.yaml'}: not the recipe of a run")


def _first_new_stage(point: ForkPoint, source: RunDirectory, recipe: Recipe) -> str | None:
    """The stage that the new run begins with; None where all its stages are done in the source."""
    try:
        done = source.records()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"--fork-from: {source.state}: cannot be read: {error}") from None
    names = list(recipe.stages)
    if point.stage is None:
        return next((name for name in names if name not in done), None)
    if point.stage not in names:
        raise UserError(f"--fork-from: {point}: the recipe has no stage {point.stage!r}; it has {', '.join(names)}")
    missing = [name for name in names[: names.index(point.stage)] if name not in done]
    if missing:
        raise UserError(f"--fork-from: {point}: {', '.join(missing)} come before and are not finished there")
    return point.stage


def _is_before(name: str, stage: str | None, recipe: Recipe) -> bool:
    names = list(recipe.stages)
    return stage is None or names.index(name) < names.index(stage)


def _iteration(point: ForkPoint, source: RunDirectory, stage: str | None) -> int:
    """Iterations of the stage that are taken over; 0 for its start."""
    saved = saved_iterations(source.checkpoints(stage)) if stage else []
    if point.iteration is None:
        return saved[-1] if saved and point.stage is None else 0
    if point.iteration not in (0, *saved):
        there = f"those of {', '.join(map(str, saved))}" if saved else "none"
        raise UserError(f"--fork-from: {point}: there is no checkpoint of that iteration; there are {there}")
    return point.iteration


def _check_model(point: ForkPoint, stored: dict[str, Any], recipe: Recipe) -> None:
    now = recipe.model.model_dump(mode="json")
    if stored.get("model", {}).get("create") != now["create"]:
        raise UserError(f"--fork-from: {point}: model.create: the weights there are of another model than the recipe's")


def _check_checkpoint(path: Path, stored: dict[str, Any], recipe: Recipe, stage: str, point: ForkPoint) -> None:
    """The checkpoint is whole, and holds what the stage as it is now reads."""
    if problem := damage(path):
        raise UserError(f"--fork-from: {path} is damaged: {problem}")
    section = recipe.stages[stage]
    assert isinstance(section, SftStage | RlStage), "no other kind has checkpoints by iteration"
    state = json.loads((path / "stage.json").read_text())
    if state["iteration"] > _length(section):
        raise UserError(f"--fork-from: {point}: stages.{stage} has only {_length(section)} iterations in the recipe")
    if isinstance(section, RlStage):
        for problem in _unlike(stored, section, stage, state["stream"].get("positions", ())):
            raise UserError(f"--fork-from: {point}: {problem}; branch off at the start of the stage")


def _length(section: SftStage | RlStage) -> int:
    return section.iterations if isinstance(section, RlStage) else section.num_steps


def _unlike(stored: dict[str, Any], section: RlStage, stage: str, positions: Sequence[int]) -> Iterator[str]:
    """What a checkpoint of the stage, as it was, lacks of the stage as it is."""
    try:
        before = RlStage.model_validate(stored["stages"][stage])
    except (KeyError, ValidationError):
        yield f"stages.{stage} was of another form there"
        return
    if len(positions) != len(section.prompts):
        yield (
            f"stages.{stage}.prompts: the checkpoint knows the positions in {len(positions)} sources, the recipe has "
            f"{len(section.prompts)}"
        )
    if section.critic is not None and before.critic is None:
        yield f"stages.{stage}.critic: the checkpoint has no critic"
    if section.policy.ema_decay is not None and before.policy.ema_decay is None:
        yield f"stages.{stage}.policy.ema_decay: the checkpoint has no average"
    if section.algorithm.needs_reference and not before.algorithm.needs_reference:
        yield f"stages.{stage}.algorithm: the checkpoint has no reference, with which the policy is compared now"


# ---------------------------------------------------------------- files


def _take_over(source: RunDirectory, new: Path, kept: Sequence[str], stage: str | None, iteration: int) -> None:
    """Links everything that the kept stages left, and one checkpoint of the stage that goes on."""
    target = RunDirectory(new)
    new.mkdir(parents=True)
    _link(source.model, target.model)
    for name in kept:
        for path in (source.stage_model(name), source.outcome(name), source.message_cache(name)):
            _link(path, new / path.relative_to(source.path))
    for name in ("start", *kept):
        path = source.measurements(name)
        _link(path, new / path.relative_to(source.path))
    if stage is not None:
        _link(source.checkpoints(stage) / str(iteration), target.checkpoints(stage) / str(iteration))
    limits: dict[str, float] = {name: float("inf") for name in kept} | ({stage: iteration} if stage else {})
    for log in source.logs():
        if log.exists():
            rows = _rows_below(log, limits, log.parent.name if log.parent.parent.name == "rollouts" else None)
            append_lines(new / log.relative_to(source.path), rows)
    target.set_records({name: record for name, record in source.records().items() if name in kept})


def _rows_below(log: Path, limits: dict[str, float], stage: str | None) -> Iterator[str]:
    """Lines of what is taken over. `stage`: of a log that has one stage and does not say so in each line."""
    for row in json_lines(log):
        if row.get("iteration", -1) < limits.get(str(row.get("stage", stage)), -1):
            yield json.dumps(row, ensure_ascii=False)


def _link(path: Path, target: Path) -> None:
    """A hard link, or a copy where the file system has none; nothing where there is no such file."""
    if path.is_dir():
        for inner in path.iterdir():
            _link(inner, target / inner.name)
    elif path.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):
            os.link(path, target)
            return
        shutil.copy2(path, target)
