"""What starts before the first stage, side by side. Imports no torch: Ray and the engines start while it is loaded."""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rl.cluster import Bundles, ray_cluster, start_engines
from rl.display import Display
from rl.engine_pool import EnginePool
from rl.errors import UserError
from rl.interrupt import InterruptRequest
from rl.recipe import MessageCacheStage, Recipe, RlStage, rewards_of
from rl.reward_pools import RewardPools
from rl.run_directory import RunDirectory
from rl.startup import StartupClock
from rollouts.endpoint import EndpointSettings
from rollouts.quick_imports import quick_imports
from rollouts.server_engine import ServerEngine

if TYPE_CHECKING:
    from rl.run_parts import RunParts


@contextlib.contextmanager
def started_parts(
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
        engine = _engine(recipe, model_path, display, bundles, imports)
        imports.join()
        with clock.part("learner"):
            from rl.run_parts import RunParts

            parts = RunParts(recipe, run, display, interrupt, pools, models, model_path, engine, clock, bundles)
        clock.stop()
        run.write_json(run.path / "startup.json", clock.content())
        display.message(str(clock))
        try:
            yield parts
        finally:
            display.close()


def _import_learner(clock: StartupClock) -> None:
    with clock.part("imports"), quick_imports():
        import rl.learner
        import rl.stage_run  # noqa: F401  # all that the stages need


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
    recipe: Recipe, model_path: str, display: Display, bundles: Bundles | None, imports: threading.Thread
) -> EnginePool | ServerEngine | None:
    """What samples, starting in the background; None where nothing is sampled."""
    section = recipe.engine
    if not _needs_engine(recipe):
        return None
    if section.kind == "hf":
        imports.join()  # it is made of transformers, as the learner is
    if section.server is None:
        return start_engines(section, recipe.model, model_path, on_event=display.message, bundles=bundles)
    server = section.server
    if server.api_key_env is not None and server.api_key_env not in os.environ:
        raise UserError(f"engine.server.api_key_env: the environment has no variable {server.api_key_env}")
    key = os.environ[server.api_key_env] if server.api_key_env else None
    return ServerEngine(EndpointSettings(server.url, server.model, key, concurrency=server.concurrency))


def _needs_engine(recipe: Recipe) -> bool:
    return bool(recipe.evaluations) or any(isinstance(s, RlStage | MessageCacheStage) for s in recipe.stages.values())
