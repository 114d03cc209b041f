"""Run directories as a run leaves them, with real folders, checksums and logs, but models of a few bytes."""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import tempfile
from pathlib import Path

from rl.durable import folder_written_aside
from rl.recipe import Recipe
from rl.recipe.file import read_recipe
from rl.run_directory import RunDirectory, StageRecord, open_run_directory

QUICKSTART = Path(__file__).parent.parent / "recipes" / "quickstart.yaml"


def quickstart(*overrides: str) -> Recipe:
    """The recipe of all kinds of stages."""
    return read_recipe(QUICKSTART, list(overrides))


def model(folder: Path, content: str) -> None:
    """A folder that is written as models are."""
    with folder_written_aside(folder) as aside:
        (aside / "config.json").write_text("{}")
        (aside / "model.safetensors").write_text(content)


def checkpoint(run: RunDirectory, stage: str, iteration: int, num_sources: int = 2) -> None:
    """A checkpoint of an rl stage with a critic."""
    with folder_written_aside(run.checkpoints(stage) / str(iteration)) as aside:
        for name in ("policy", "policy_optimizer", "critic", "critic_optimizer"):
            (aside / f"{name}.safetensors").write_text(f"{stage} {iteration}")
        stream = {"positions": [iteration] * num_sources, "drawn": [iteration] * num_sources}
        (aside / "stage.json").write_text(json.dumps({"iteration": iteration, "stream": stream, "rollbacks": 0}))


def half_done(path: Path) -> RunDirectory:
    """A run of the quickstart's recipe.

    sft, rlvr, preference, rlhf and messages are done; pacore has checkpoints of iterations 4 and 6, and a log of 7.
    """
    shutil.copytree(_half_done(), path)
    return RunDirectory(path)


@functools.cache
def _half_done() -> Path:
    """Made once: hundreds of flushes to the disk take their time."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    _make_half_done(Path(folder.name) / "run", quickstart())
    return Path(folder.name) / "run"


def _make_half_done(path: Path, recipe: Recipe) -> None:
    with open_run_directory(path, recipe) as run:
        model(run.model, "start")
        for number, name in enumerate(("sft", "rlvr", "preference", "rlhf", "messages")):
            if name == "messages":
                run.message_cache(name).parent.mkdir()
                run.message_cache(name).write_text('{"kept": 1}\n')
            else:
                model(run.stage_model(name), name)
            if name in ("sft", "rlvr", "rlhf"):
                run.write_json(run.measurements(name), {"addition": {"score": 0.5}})
            for iteration in range(2):
                run.append_metrics(name, iteration, {"loss": 1.0 / (number + 1)})
            run.add_record(name, StageRecord(recipe.stages[name].kind, 2, 1.0, {}, {}, {}), order=list(recipe.stages))
        for iteration in (4, 6):
            checkpoint(run, "pacore", iteration, len(recipe.stages["pacore"].prompts))
        for iteration in range(7):
            run.append_metrics("pacore", iteration, {"loss": 0.1})
            run._append("rollouts/pacore/iterations.jsonl", [{"iteration": iteration, "reward": 1.0}])


def flip(path: Path) -> None:
    """One bit of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
