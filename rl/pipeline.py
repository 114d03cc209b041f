"""The stages of a recipe in order: what starts before them, what each one hands on, and where a run continues."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError

from rl.cluster import Bundles, ray_cluster, start_engines
from rl.display import Display
from rl.durable import damage, folder_written_aside, remove
from rl.engine_pool import EnginePool
from rl.errors import RunFailed, UserError
from rl.held_out_scores import Measurements, is_win_rate, measured_after, measured_before
from rl.interrupt import InterruptRequest
from rl.recipe import MessageCacheStage, PreferenceModelStage, Recipe, RlStage, SftStage, Stage, rewards_of
from rl.recovery import recover
from rl.reporting.report import write_report
from rl.reward_pools import RewardPools
from rl.run_directory import RunDirectory, StageRecord, open_run_directory
from rl.run_parts import RunParts
from rl.stage_kinds import RUNNERS, StageOutcome
from rl.startup import StartupClock
from rollouts.endpoint import EndpointSettings
from rollouts.rows import DatasetError
from rollouts.sampler import SamplingError
from rollouts.server_engine import ServerEngine


def run_pipeline(recipe: Recipe, path: Path, display: Display) -> None:
    """Runs the stages that are not done yet, and leaves `final/`.

    Raises:
        UserError: the run directory belongs to another recipe or process.
        RunFailed: the run cannot go on.
        Interrupted: a signal asked it to stop; the state is saved.
    """
    with open_run_directory(path, recipe) as run, InterruptRequest() as interrupt, _files_told_plainly(path):
        for note in run.notes:
            display.message(f"changed since the run began: {note}")
        recover(run, recipe, display.message)
        if run.final.exists():
            display.message(f"{path}: this run is finished; its model is in {run.final}")
        else:
            with _parts(recipe, run, display, interrupt) as parts:
                for name, stage in recipe.stages.items():
                    if name not in run.records():
                        parts.stop_if_asked(f"before {name}")
                        _run_stage(parts, name, stage)
                _export_final(parts)
                write_report(run.path)
            display.message(f"done: the model is in {run.final}" if run.final.exists() else "done")
        display.table(run.records())


@contextlib.contextmanager
def _files_told_plainly(path: Path) -> Iterator[None]:
    """A run whose files cannot be written, or whose data turn out malformed, ends with a message, not a traceback."""
    try:
        yield
    except DatasetError as error:
        raise UserError(str(error)) from error
    except SamplingError as error:
        raise RunFailed(f"engine.server: {error}") from error
    except (OSError, SafetensorError) as error:
        number = _errno(error)
        if number not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO):
            raise
        where = getattr(error, "filename", None) or path
        raise RunFailed(
            f"{where}: cannot be written: {os.strerror(number)}. What was saved before is usable still: "
            f"make room and run the same command to continue"
        ) from error


def _errno(error: OSError | SafetensorError) -> int | None:
    """Number of the system's error, which safetensors only tells in words."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


@contextlib.contextmanager
def _parts(
    recipe: Recipe, run: RunDirectory, display: Display, interrupt: InterruptRequest
) -> Iterator[RunParts]:
    """Ray, engines, learner and reward workers, started side by side and ended together."""
    clock = StartupClock()
    imports = threading.Thread(target=_import_learner, args=(clock,), daemon=True)
    imports.start()  # seconds, while Ray starts
    engine_cpus = recipe.engine.replicas * recipe.engine.cpus
    learner_cpus = 0.0 if recipe.learner.in_driver else recipe.learner.ranks * recipe.learner.cpus
    reward_cpus = sum(reward.workers * reward.actor.cpus for reward in rewards_of(recipe) if reward.actor)
    num_cpus = max(math.ceil(engine_cpus + learner_cpus + reward_cpus), 1)
    models: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        with clock.part("Ray"):
            stack.enter_context(ray_cluster(recipe.ray, num_cpus=num_cpus))
        interrupt.take_back()
        pools = stack.enter_context(RewardPools(models))
        with clock.part("model"):
            model_path = _model_path(recipe, run, imports)
        bundles = Bundles(recipe.engine, recipe.learner) if recipe.engine.colocate else None
        engine = _engine(recipe, model_path, display, bundles)
        imports.join()
        with clock.part("learner"):
            parts = RunParts(recipe, run, display, interrupt, pools, models, model_path, engine, bundles)
        started = clock.stop()
        run.write_json(run.path / "startup.json", asdict(started))
        display.message(str(started))
        try:
            yield parts
        finally:
            display.close()


def _import_learner(clock: StartupClock) -> None:
    with clock.part("imports"):
        import rl.learner  # noqa: F401


def _model_path(recipe: Recipe, run: RunDirectory, imports: threading.Thread) -> str:
    """Folder or hub name of the model that the pipeline starts from; made first where the recipe makes one."""
    if recipe.model.create is None:
        return str(Path(str(recipe.model.path)).expanduser())
    if not run.model.exists():
        imports.join()  # two threads that import transformers at once find it half made
        from rl.create_model import create_model

        create_model(recipe.model.create, run.model, seed=recipe.seed)
    return str(run.model.resolve())


def _engine(
    recipe: Recipe, model_path: str, display: Display, bundles: Bundles | None
) -> EnginePool | ServerEngine | None:
    """What samples, starting in the background; None where nothing is sampled."""
    section = recipe.engine
    if not _needs_engine(recipe):
        return None
    if section.server is None:
        return start_engines(section, recipe.model, model_path, on_event=display.message, bundles=bundles)
    server = section.server
    if server.api_key_env is not None and server.api_key_env not in os.environ:
        raise UserError(f"engine.server.api_key_env: the environment has no variable {server.api_key_env}")
    key = os.environ[server.api_key_env] if server.api_key_env else None
    return ServerEngine(EndpointSettings(server.url, server.model, key, concurrency=server.concurrency))


def _needs_engine(recipe: Recipe) -> bool:
    return bool(recipe.evaluations) or any(isinstance(s, RlStage | MessageCacheStage) for s in recipe.stages.values())


def _run_stage(parts: RunParts, name: str, stage: Stage) -> None:
    """One stage from its start or its newest checkpoint to its record in state.json."""
    changes_policy = isinstance(stage, SftStage | RlStage)
    earlier = parts.policy_stages(before=name)
    parts.hold(earlier[-1] if earlier else None)
    before: Measurements = measured_before(parts, name) if changes_policy else {}
    outcome, seconds = _ran(parts, name, stage)
    if isinstance(stage, PreferenceModelStage):
        parts.offer_reward_model(name)
    after: Measurements = measured_after(parts, name, before) if changes_policy else {}
    scores_before = {key: 0.5 if is_win_rate(parts, key) else m.score for key, m in before.items()}
    scores_after = {key: m.score for key, m in after.items()}
    details = {**outcome.details, **_flat_details(after)}
    record = StageRecord(stage.kind, outcome.iterations, seconds, scores_before, scores_after, details)
    parts.run.add_record(name, record, order=list(parts.recipe.stages))
    parts.display.stage_finished(name, record)
    parts.pools.keep(rewards_of(parts.recipe, after=name))


def _ran(parts: RunParts, name: str, stage: Stage) -> tuple[StageOutcome, float]:
    """(what came of the stage, seconds), from the run directory where an earlier process got as far as that."""
    path = parts.run.outcome(name)
    if path.exists() and damage(parts.run.stage_model(name)) is None:
        stored = json.loads(path.read_text())
        if isinstance(stage, SftStage | RlStage):
            parts.hold(name)
        return StageOutcome(stored["iterations"], stored["details"]), stored["seconds"]
    start = time.monotonic()
    outcome = RUNNERS[type(stage)](parts, name, stage)
    if isinstance(stage, SftStage | RlStage):
        parts.holds(name)
        with folder_written_aside(parts.run.stage_model(name)) as aside:
            parts.learner.save_model(aside)
            parts.tokenizer.save_pretrained(aside)
    seconds = time.monotonic() - start
    if isinstance(stage, SftStage | RlStage | PreferenceModelStage):
        parts.run.write_json(path, {**asdict(outcome), "seconds": seconds})
    remove(parts.run.unfinished(name))
    return outcome, seconds


def _export_final(parts: RunParts) -> None:
    """The last policy as a plain transformers model in `final/`."""
    done = parts.policy_stages()
    if done:
        with folder_written_aside(parts.run.final) as aside:
            shutil.copytree(parts.run.stage_model(done[-1]), aside, dirs_exist_ok=True)


def _flat_details(measured: Measurements) -> dict[str, float]:
    return {f"{name}/{key}": value for name, m in measured.items() for key, value in m.details.items()}
