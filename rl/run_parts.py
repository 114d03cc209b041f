"""What the stages of one run share: learner, engines, rewards, held-out rows, and which policy the learner holds."""

from __future__ import annotations

import random
import time
from pathlib import Path

from rl.cluster import Bundles, RayRanks
from rl.display import Display
from rl.engine_pool import EnginePool
from rl.errors import Interrupted, UserError
from rl.group import InProcessRank, LearnerGroup, Ranks
from rl.interrupt import InterruptRequest
from rl.non_finite import StepWatch
from rl.progress import StageProgress
from rl.recipe import PreferenceModelStage, Recipe, RlStage, SftStage
from rl.reward_pools import RewardPools
from rl.run_directory import RunDirectory
from rl.sources import SourceOpener, held_out_rows
from rl.startup import StartupClock
from rollouts.prompts import row_id
from rollouts.rows import Row
from rollouts.sampler import SamplerUnusable
from rollouts.server_engine import ServerEngine
from rollouts.trajectory import PromptContent


class RunParts:
    """What the stages of one run share."""

    def __init__(
        self,
        recipe: Recipe,
        run: RunDirectory,
        display: Display,
        interrupt: InterruptRequest,
        pools: RewardPools,
        models: dict[str, str],
        model_path: str,
        engine: EnginePool | ServerEngine | None,
        startup: StartupClock,
        bundles: Bundles | None = None,
    ) -> None:
        from rollouts.processing import ProcessorUnusable, load_processing

        self.recipe, self.run, self.display, self.interrupt = recipe, run, display, interrupt
        self.pools, self.models, self.engine, self.startup = pools, models, engine, startup
        try:
            self.tokenizer = load_processing(model_path, trust_remote_code=recipe.model.trust_remote_code)
        except ProcessorUnusable as error:
            raise UserError(f"model.path: {error}") from None
        self.learner = LearnerGroup(_ranks(recipe, model_path, bundles))
        self.opener = SourceOpener(run.message_cache, self._num_tokens)
        self.model_path = model_path
        self._engine_ready = False
        self.held_out_rows = self._open_held_out()
        self.held_out_ids = frozenset(
            row_id(row, name) for name, rows in self.held_out_rows.items() for row in rows
        )
        self._take_over_finished_stages()

    def _num_tokens(self, content: PromptContent) -> int:
        from rollouts.collect import encode_content

        return len(encode_content(self.tokenizer, content))

    def _open_held_out(self) -> dict[str, list[Row]]:
        """Rows of every held-out set, the same whatever stage asks."""
        opened: dict[str, list[Row]] = {}
        for name, section in self.recipe.evaluations.items():
            rows = self.opener.rows(section.prompts, "problem", seed=self.seed(f"held-out {name}"))
            opened[name] = held_out_rows(rows, section.num_prompts, name)
        return opened

    def _take_over_finished_stages(self) -> None:
        """Continues where an earlier process stopped: its models and caches are on disk."""
        for name in self.run.records():
            stage = self.recipe.stages[name]
            if isinstance(stage, PreferenceModelStage):
                self.offer_reward_model(name)
        self._held: str | None = None  # the stage whose policy the learner holds; None: the start
        self.hold(self.policy_stages()[-1] if self.policy_stages() else None)

    def policy_stages(self, before: str | None = None) -> list[str]:
        """Finished stages that changed the policy, in order; only those before a stage, where one is given."""
        records, names = self.run.records(), list(self.recipe.stages)
        names = names[: names.index(before)] if before else names
        return [n for n in names if n in records and isinstance(self.recipe.stages[n], SftStage | RlStage)]

    def offer_reward_model(self, stage: str) -> None:
        """Lets the rewards of later stages load the model at the end of this one (`from_stage`)."""
        self.models[stage] = str(self.run.stage_model(stage))

    def hold(self, stage: str | None) -> None:
        """Has the learner hold the policy at the end of a stage."""
        if stage != self._held:
            self.learner.load_model(self.run.stage_model(stage) if stage else Path(self.model_path))
            self._held = stage

    def holds(self, stage: str) -> None:
        """The learner has just made the policy at the end of a stage."""
        self._held = stage

    def stop_if_asked(self, where: str) -> None:
        """Stops where a signal came in and everything is saved.

        Raises:
            Interrupted: a signal came in.
        """
        if self.interrupt.requested:
            raise Interrupted(f"stopped {where}; run the same command to continue")

    def started_pool(self) -> EnginePool:
        """The engines of a stage that changes weights, once they are ready."""
        engine = self.started_engine()
        assert isinstance(engine, EnginePool), "the recipe's rules keep servers from such stages"
        return engine

    def started_engine(self) -> EnginePool | ServerEngine:
        """The engines, once they are ready."""
        assert self.engine is not None, "a recipe with rollouts starts engines"
        if not self._engine_ready:
            start = time.monotonic()
            try:
                starts = self.engine.wait_ready()
            except SamplerUnusable as error:
                raise UserError(f"engine.server: {error}") from None
            waited = time.monotonic() - start
            self.startup.add_engines(starts)
            self.run.write_json(self.run.path / "startup.json", self.startup.content())
            if starts:
                seconds = max(start.ready - start.process for start in starts)
                self.display.message(f"engines took {seconds:.1f} s to start; the run waited {waited:.1f} s for them")
            self._engine_ready = True
        return self.engine

    def publish(self, version: int) -> None:
        """The learner's weights to every engine; a server has its own."""
        if not isinstance(self.engine, ServerEngine):
            self.started_pool().load_weights(self.learner.weights(), version)

    def progress(self, name: str) -> StageProgress:
        """What is logged and saved of a stage."""
        return StageProgress(
            name, self.run, self.learner, self.recipe.saving, display=self.display, interrupt=self.interrupt
        )

    def step_watch(self, name: str) -> StepWatch:
        """What happens after steps of a stage that are not finite."""
        return StepWatch(self.recipe.non_finite, self.run.bad_batches(name), self.display.message)

    def seed(self, purpose: str) -> int:
        """A seed of the run for one purpose."""
        return random.Random(f"{self.recipe.seed} {purpose}").getrandbits(31)


def _ranks(recipe: Recipe, model_path: str, bundles: Bundles | None) -> Ranks:
    if not recipe.learner.in_driver:
        return RayRanks(recipe.learner, recipe.model, model_path, bundles)
    from rl.learner import Learner

    trust = recipe.model.trust_remote_code
    return InProcessRank(Learner(recipe.learner, model_path, trust_remote_code=trust, device="cpu"))
