"""The stages of a recipe in order: what each one gets, what it hands on, and where a run continues."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rl.checkpoint import StageState
from rl.cluster import EnginePool, RayRanks, make_engine, ray_cluster
from rl.display import Display
from rl.durable import damage, folder_written_aside
from rl.errors import Interrupted, RunFailed, UserError
from rl.group import InProcessRank, LearnerGroup, Ranks
from rl.interrupt import InterruptRequest
from rl.non_finite import RollBack, StepWatch
from rl.over_optimisation import first_finding, over_optimised, watch_points
from rl.progress import StageProgress
from rl.recipe import MessageCacheStage, PreferenceModelStage, Recipe, RlStage, SftStage, Stage, rewards_of
from rl.recipe.sources import MessageCacheSource
from rl.recovery import recover
from rl.reporting.report import write_report
from rl.reward_model.pairs import split_pairs
from rl.run_directory import RunDirectory, StageRecord, open_run_directory
from rl.scoring import RewardPools, Scorer
from rl.sources import SourceOpener, held_out_rows
from rl.startup import StartupClock
from rollouts.prompts import MixedSource, row_id, to_prompt
from rollouts.rows import DatasetError, Row
from rollouts.trajectory import PromptContent

if TYPE_CHECKING:  # rl.held_out imports transformers, which takes seconds
    from rl.held_out import Measurement
    from rl.online_messages import OnlineMessages

Measurements = dict[str, "Measurement"]


@dataclass(frozen=True)
class StageOutcome:
    """What a stage says of itself."""

    iterations: int
    details: Mapping[str, float] = field(default_factory=dict)


def run_pipeline(recipe: Recipe, path: Path, display: Display) -> None:
    """Runs the stages that are not done yet, and leaves `final/`.

    Raises:
        UserError: the run directory belongs to another recipe or process.
        RunFailed: the run cannot go on.
        Interrupted: a signal asked it to stop; the state is saved.
    """
    with open_run_directory(path, recipe) as run, InterruptRequest() as interrupt, _full_disk_is_no_bug(path):
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
                        parts.run_stage(name, stage)
                parts.export_final()
                write_report(run.path)
            display.message(f"done: the model is in {run.final}")
        display.table(run.records())


@contextlib.contextmanager
def _full_disk_is_no_bug(path: Path) -> Iterator[None]:
    """A run whose files cannot be written fails with a message in place of a traceback."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO):
            raise
        where = error.filename or path
        raise RunFailed(
            f"{where}: cannot be written: {error.strerror}. What was saved before is usable still: "
            f"make room and run the same command to continue"
        ) from error


@contextlib.contextmanager
def _parts(
    recipe: Recipe, run: RunDirectory, display: Display, interrupt: InterruptRequest
) -> Iterator[PipelineParts]:
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
        engine = _start_engines(recipe, model_path, display) if _needs_engine(recipe) else None
        imports.join()
        with clock.part("learner"):
            parts = PipelineParts(recipe, run, display, interrupt, pools, models, model_path, engine)
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


def _needs_engine(recipe: Recipe) -> bool:
    return bool(recipe.evaluations) or any(isinstance(s, RlStage | MessageCacheStage) for s in recipe.stages.values())


def _start_engines(recipe: Recipe, model_path: str, display: Display) -> EnginePool:
    section = recipe.engine
    return EnginePool(
        lambda: make_engine(section, recipe.model, model_path),
        replicas=section.replicas,
        max_restarts=section.max_restarts,
        start_timeout_s=section.start_timeout_s,
        on_restart=display.message,
    )


class PipelineParts:
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
        engine: EnginePool | None,
    ) -> None:
        from transformers import AutoTokenizer

        self.recipe, self.run, self.display, self.interrupt = recipe, run, display, interrupt
        self.pools, self.models, self.engine = pools, models, engine
        self.tokenizer = AutoTokenizer.from_pretrained(model_path, trust_remote_code=recipe.model.trust_remote_code)
        self.learner = LearnerGroup(_ranks(recipe, model_path))
        self.opener = SourceOpener(run.message_cache, self._num_tokens)
        self._model_path = model_path
        self._engine_ready = False
        self._held_out_rows = self._open_held_out()
        self.held_out = frozenset(
            row_id(row, name) for name, rows in self._held_out_rows.items() for row in rows
        )
        self._take_over_finished_stages()

    def _num_tokens(self, content: PromptContent) -> int:
        from rollouts.collect import encode_content

        return len(encode_content(self.tokenizer, content))

    def _open_held_out(self) -> dict[str, list[Row]]:
        """Rows of every held-out set, the same whatever stage asks."""
        opened: dict[str, list[Row]] = {}
        for name, section in self.recipe.evaluations.items():
            rows = self.opener.rows(section.prompts, "problem", seed=_seed(self.recipe, f"held-out {name}"))
            opened[name] = held_out_rows(rows, section.num_prompts, name)
        return opened

    def _take_over_finished_stages(self) -> None:
        """Continues where an earlier process stopped: its models and caches are on disk."""
        for name in self.run.records():
            stage = self.recipe.stages[name]
            if isinstance(stage, PreferenceModelStage):
                self.models[name] = str(self.run.stage_model(name))
        self._held: str | None = None  # the stage whose policy the learner holds; None: the start
        self._hold(self.policy_stages()[-1] if self.policy_stages() else None)

    def policy_stages(self, before: str | None = None) -> list[str]:
        """Finished stages that changed the policy, in order; only those before a stage, where one is given."""
        records, names = self.run.records(), list(self.recipe.stages)
        names = names[: names.index(before)] if before else names
        return [n for n in names if n in records and isinstance(self.recipe.stages[n], SftStage | RlStage)]

    def _hold(self, stage: str | None) -> None:
        """Has the learner hold the policy at the end of a stage."""
        if stage != self._held:
            self.learner.load_model(self.run.stage_model(stage) if stage else Path(self._model_path))
            self._held = stage

    def stop_if_asked(self, where: str) -> None:
        """Stops where a signal came in and everything is saved.

        Raises:
            Interrupted: a signal came in.
        """
        if self.interrupt.requested:
            raise Interrupted(f"stopped {where}; run the same command to continue")

    # ------------------------------------------------------------ stages

    def run_stage(self, name: str, stage: Stage) -> None:
        """One stage from its start or its newest checkpoint to its record in state.json."""
        changes_policy = isinstance(stage, SftStage | RlStage)
        earlier = self.policy_stages(before=name)
        self._hold(earlier[-1] if earlier else None)
        before: Measurements = self._measured_before(name) if changes_policy else {}
        outcome, seconds = self._ran(name, stage)
        after: Measurements = self._finish_policy_stage(name, before) if changes_policy else {}
        scores_before = {key: 0.5 if self._is_win_rate(key) else m.score for key, m in before.items()}
        scores_after = {key: m.score for key, m in after.items()}
        details = {**outcome.details, **_flat_details(after)}
        record = StageRecord(stage.kind, outcome.iterations, seconds, scores_before, scores_after, details)
        self.run.add_record(name, record, order=list(self.recipe.stages))
        self.display.stage_finished(name, record)
        self.pools.keep(rewards_of(self.recipe, after=name))

    def _ran(self, name: str, stage: Stage) -> tuple[StageOutcome, float]:
        """(what came of the stage, seconds), from the run directory where an earlier process got as far as that."""
        path = self.run.outcome(name)
        if path.exists() and damage(self.run.stage_model(name)) is None:
            stored = json.loads(path.read_text())
            self._hold(name)
            return StageOutcome(stored["iterations"], stored["details"]), stored["seconds"]
        start = time.monotonic()
        outcome = _RUNNERS[type(stage)](self, name, stage)
        if isinstance(stage, SftStage | RlStage):
            self._held = name
            with folder_written_aside(self.run.stage_model(name)) as aside:
                self.learner.save_model(aside)
                self.tokenizer.save_pretrained(aside)
        seconds = time.monotonic() - start
        if isinstance(stage, SftStage | RlStage | PreferenceModelStage):
            self.run.write_json(path, {**asdict(outcome), "seconds": seconds})
        return outcome, seconds

    def _is_win_rate(self, name: str) -> bool:
        return self.recipe.evaluations[name].measure == "win_rate"

    def _measured_before(self, stage: str) -> Measurements:
        """Held-out measurements at the start of a stage: those after the last one that changed the policy.

        A model that was just made from random weights is not measured: it knows nothing.
        """
        done = self.policy_stages(before=stage)
        if not done and self.recipe.model.create is not None:
            return {}
        path = self.run.measurements(done[-1] if done else "start")
        if not path.exists():
            self._publish(version=0)
            self._measure(path, self._stored_measurements(self.run.measurements(done[-2])) if done[1:] else {})
        return self._stored_measurements(path)

    @staticmethod
    def _stored_measurements(path: Path) -> Measurements:
        from rl.held_out import Measurement

        stored = json.loads(path.read_text()) if path.exists() else {}
        return {name: Measurement(**values) for name, values in stored.items()}

    def _finish_policy_stage(self, name: str, before: Measurements) -> Measurements:
        """Measures the policy at the end of a stage."""
        if not self.recipe.evaluations:
            return {}
        self._publish(version=-1)
        return self._measure(self.run.measurements(name), before)

    def _measure(self, path: Path, before: Measurements) -> Measurements:
        partial = path.with_suffix(".partial")
        measured = self._stored_measurements(partial)
        for name in self.recipe.evaluations:
            if name in measured:
                continue
            self.stop_if_asked(f"while measuring, before {name}")
            measured[name] = self._measure_set(name, before.get(name))
            self.run.write_json(partial, {name: asdict(measurement) for name, measurement in measured.items()})
        partial.replace(path)
        return measured

    def _measure_set(self, name: str, before: Measurement | None) -> Measurement:
        from rl.held_out import HeldOutSet

        section = self.recipe.evaluations[name]
        source = MixedSource(self.opener.rows(section.prompts, "problem", seed=0), 1.0, name)
        prompts = [to_prompt(source, row) for row in self._held_out_rows[name]]
        scorer = Scorer(section.rewards, self.pools)
        held_out = HeldOutSet(section, prompts, scorer, self.recipe.engine.max_model_len)
        seed = _seed(self.recipe, f"measure {name}")
        return held_out.measure(self.started_engine(), self.tokenizer, seed=seed, before=before)

    def _measured_during(self, stage: str, done: int) -> dict[str, float]:
        """Held-out scores after `done` iterations of an rl stage, of the sets that the recipe wants measured now."""
        due = [name for name, section in self.recipe.evaluations.items() if section.every and done % section.every == 0]
        if not due:
            return {}
        start, before = time.monotonic(), self._measured_before(stage)
        numbers: dict[str, float] = {}
        for name in due:
            measured = self._measure_set(name, before.get(name))
            numbers[f"held_out/{name}"] = measured.score
            numbers[f"held_out_error/{name}"] = measured.details.get("standard_error", 0.0)
            numbers[f"held_out_reward/{name}"] = measured.details.get("reward_mean", measured.score)
        return {**numbers, "time/held_out_s": time.monotonic() - start}

    def _watch(self, name: str, stage: RlStage, latest: Mapping[str, float]) -> None:
        """Warns the first time that a learned reward rises while what it stands for falls."""
        for reward in stage.rewards:
            if reward.gold is None or f"held_out/{reward.gold}" not in latest:
                continue
            points = watch_points([*self.run.metrics(name), latest], reward.label, reward.gold)
            finding = over_optimised(points, reward.label, reward.gold)
            if finding is not None and first_finding(points[:-1], reward.label, reward.gold) is None:
                self.display.message(f"[{name}] warning: {finding}")

    def started_engine(self) -> EnginePool:
        """The engines, once they are ready."""
        assert self.engine is not None, "a recipe with rollouts starts engines"
        if not self._engine_ready:
            start = time.monotonic()
            seconds = self.engine.wait_ready()
            waited = time.monotonic() - start
            self.display.message(f"engines took {seconds:.1f} s to start; the run waited {waited:.1f} s for them")
            self._engine_ready = True
        return self.engine

    def _publish(self, version: int) -> None:
        self.started_engine().load_weights(self.learner.weights(), version)

    def export_final(self) -> None:
        """The last policy as a plain transformers model in `final/`."""
        import shutil

        done = self.policy_stages()
        if done:
            with folder_written_aside(self.run.final) as aside:
                shutil.copytree(self.run.stage_model(done[-1]), aside, dirs_exist_ok=True)

    def _progress(self, name: str) -> StageProgress:
        return StageProgress(
            name, self.run, self.learner, self.recipe.saving, display=self.display, interrupt=self.interrupt
        )

    def _step_watch(self, name: str) -> StepWatch:
        return StepWatch(self.recipe.non_finite, self.run.bad_batches(name), self.display.message)

    # ------------------------------------------------------------ kinds of stages

    def run_sft(self, name: str, stage: SftStage) -> StageOutcome:
        """Supervised fine-tuning."""
        from rl.sft import SftLoop

        self.learner.begin_sft(stage.optimizer)
        progress = self._progress(name)
        state = progress.resume()
        self.display.stage_started(name, stage.kind, stage.num_steps, state.iteration)
        streams = [
            self.opener.stream(
                phase.sources, "demonstration", seed=_seed(self.recipe, f"{name} {n}"), held_out=self.held_out
            )
            for n, phase in enumerate(stage.phases)
        ]

        def after_step(step: int, metrics: Mapping[str, float], state: StageState) -> None:
            progress.after(step, metrics, state, last=state.iteration == stage.num_steps)

        loop = SftLoop(stage, self.learner, streams, self.tokenizer, self._step_watch(name))
        self._until_done(progress, state, lambda start: loop.run(start, after_step))
        recent = [row["loss"] for row in self.run.metrics(name)[-20:]]
        return StageOutcome(stage.num_steps, {"loss": sum(recent) / len(recent)} if recent else {})

    def _until_done(self, progress: StageProgress, state: StageState, train: Callable[[StageState], None]) -> None:
        """Trains from a state to the end, with as many returns to a checkpoint as the recipe allows."""
        allowed = self.recipe.non_finite
        if allowed.then == "roll_back":
            progress.save_start()
        while True:
            try:
                with progress.saved_when_failing():
                    return train(state)
            except RollBack:
                state = progress.roll_back()
                if state.rollbacks > allowed.max_rollbacks:
                    raise RunFailed(
                        f"after {allowed.max_rollbacks} returns to a checkpoint (non_finite.max_rollbacks) there are "
                        f"still more than {allowed.max_in_a_row} steps in a row that are not finite"
                    ) from None
                state = dataclasses.replace(state, stream={})  # other rows than those that failed

    def run_rl(self, name: str, stage: RlStage) -> StageOutcome:
        """PPO; see rl/loop.py."""
        from rl.loop import Iteration, RlLoop

        self.learner.begin_rl(stage.policy, stage.critic, stage.algorithm, stage.sampling.temperature)
        progress = self._progress(name)
        state = progress.resume()
        seed = _seed(self.recipe, name)
        stream = self.opener.stream(stage.prompts, "problem", seed=seed, held_out=self.held_out)
        if state.stream:
            stream.load_state(state.stream)
        self.display.stage_started(name, stage.kind, stage.iterations, state.iteration)

        def after_iteration(iteration: Iteration) -> None:
            wanted = self.recipe.saving.rollouts_per_iteration
            spread = max(len(iteration.scored) // max(wanted, 1), 1)  # over prompts and sources
            logged = iteration.scored[::spread][:wanted]
            self.run.append_rollouts(name, iteration.index, logged)
            metrics = {**iteration.metrics, "engine_restarts": float(self.started_engine().restarts)}
            last = iteration.state.iteration == stage.iterations
            metrics |= self._measured_during(name, iteration.state.iteration)
            self._watch(name, stage, {**metrics, "iteration": iteration.index})
            self._keep_if_best(name, stage, iteration.state.iteration, metrics)
            progress.after(iteration.index, metrics, iteration.state, last=last)

        scorer = Scorer(
            stage.rewards,
            self.pools,
            keep_failure=lambda failure: self.run.append_failure(name, progress.iteration, failure),
        )
        loop = RlLoop(
            stage=stage,
            engine=self.started_engine(),
            learner=self.learner,
            scorer=scorer,
            stream=stream,
            tokenizer=self.tokenizer,
            seed=seed,
            max_model_len=self.recipe.engine.max_model_len,
            before_learning=progress.before_learning,
            watch=self._step_watch(name),
        )

        if stage.online_messages is not None:
            loop = dataclasses.replace(loop, rewrite=self._online_messages(stage, scorer))

        def train(start: StageState) -> None:
            self._publish(version=start.iteration)
            own_seed = _seed(self.recipe, f"{name}, return {start.rollbacks}") if start.rollbacks else seed
            dataclasses.replace(loop, seed=own_seed).run(start.iteration, after_iteration)

        self._until_done(progress, state, train)
        return StageOutcome(stage.iterations, self._back_to_best(name))

    def _online_messages(self, stage: RlStage, scorer: Scorer) -> OnlineMessages:
        from rl.online_messages import OnlineMessages

        assert stage.online_messages is not None
        room = self.recipe.engine.max_model_len - stage.sampling.max_tokens
        return OnlineMessages(stage.online_messages, self.started_engine(), scorer, self.tokenizer, stage.success, room)

    def _keep_if_best(self, name: str, stage: RlStage, done: int, metrics: Mapping[str, float]) -> None:
        """Saves the policy where it scored higher than any before on the held-out set that the stage names."""
        score = metrics.get(f"held_out/{stage.keep_best}")
        if score is None:
            return
        best = self.run.best_model(name)
        note = best / "best.json"
        if note.exists() and json.loads(note.read_text())["score"] >= score:
            return
        with folder_written_aside(best) as aside:
            self.learner.save_model(aside)
            self.run.write_json(aside / note.name, {"score": score, "iteration": done})

    def _back_to_best(self, name: str) -> dict[str, float]:
        """Takes the best policy of a stage back, where one was kept."""
        best = self.run.best_model(name)
        if not best.exists():
            return {}
        kept = json.loads((best / "best.json").read_text())
        self.learner.load_model(best)
        self.display.message(f"[{name}] hands on the policy after iteration {kept['iteration']}, which scored best")
        return {"best_iteration": float(kept["iteration"]), "best_score": float(kept["score"])}

    def run_preference_model(self, name: str, stage: PreferenceModelStage) -> StageOutcome:
        """A reward model on TRL's trainer."""
        from rl.preference_model import train_preference_model

        rows = self.opener.rows(stage.pairs, "preference", seed=_seed(self.recipe, name))
        try:
            pairs = split_pairs(rows, stage, self.held_out, stage.pairs.label)
        except DatasetError as error:
            raise UserError(f"stages.{name}.pairs: {error}") from None
        steps = max(int(stage.epochs * len(pairs.training) / stage.batch_size), 1)
        self.display.stage_started(name, stage.kind, steps * stage.members, 0)
        self.run.forget_after(name, 0)  # a stage that was interrupted begins again
        logged_before = 0

        def on_log(step: int, total: int, numbers: Mapping[str, float]) -> None:
            nonlocal logged_before
            if self.interrupt.requested:
                raise Interrupted(f"stopped in {name}; run the same command to begin this stage again")
            if "train_runtime" in numbers:  # the last line of a member
                logged_before += step
                return
            self.run.append_metrics(name, logged_before + step, numbers)
            self.display.iteration(logged_before + step - 1, numbers)

        done = self.policy_stages(before=name)
        start = stage.start or (str(self.run.stage_model(done[-1])) if done else self._model_path)
        with folder_written_aside(self.run.stage_model(name)) as aside:
            seed = _seed(self.recipe, name) % 2**31
            details = train_preference_model(stage, start=start, pairs=pairs, folder=aside, seed=seed, on_log=on_log)
        self.models[name] = str(self.run.stage_model(name))
        counts = {"pairs": float(len(pairs.training)), "held_out_pairs": float(len(pairs.held_out))}
        return StageOutcome(int(details["steps"]) * stage.members, {**details, **counts})

    def run_message_cache(self, name: str, stage: MessageCacheStage) -> StageOutcome:
        """Many graded answers per problem, chunk by chunk on disk; then the problems that pass the filter."""
        from rl.message_cache import GradedFile, MessageCacheFiller, count, passes, told
        from rollouts.message_cache import CacheFile, write_cache

        seed = _seed(self.recipe, name)
        graded = GradedFile(self.run.graded_problems(name))
        problems_done = graded.num_drawn
        self.run.forget_after(name, problems_done)
        source = stage.prompts.source
        filler = MessageCacheFiller(
            stage=stage,
            engine=self.started_engine(),
            scorer=Scorer(
                stage.rewards,
                self.pools,
                keep_failure=lambda failure: self.run.append_failure(name, problems_done, failure),
            ),
            stream=self.opener.stream([stage.prompts], "problem", seed=seed, held_out=self.held_out),
            tokenizer=self.tokenizer,
            seed=seed,
            max_model_len=self.recipe.engine.max_model_len,
            synthesized=CacheFile(self.run.message_cache(source.message_cache))
            if isinstance(source, MessageCacheSource)
            else None,
        )
        self.display.stage_started(name, stage.kind, stage.num_problems, problems_done)
        self._publish(version=0)

        def after_chunk(drawn: int) -> None:
            nonlocal problems_done
            problems_done = drawn
            self.display.iteration(drawn - 1, {"problems": float(drawn)})
            self.stop_if_asked(f"in {name} after {drawn} problems")

        counts = count(stage, graded, repeated=filler.fill(graded, after_chunk))
        self.display.message(f"[{name}] {told(stage, counts)}")
        if not counts.kept:
            raise RunFailed(f"{name}: none of {counts.seen} problems passes the filter; change above or below")
        write_cache(self.run.message_cache(name), (one.problem for one in graded if passes(stage, one)))
        details = {"problems": counts.seen, "kept": counts.kept, "accuracy": counts.accuracy}
        return StageOutcome(counts.seen, {**details, "repeated_rows": counts.repeated})


_RUNNERS: dict[type, Callable[..., StageOutcome]] = {
    SftStage: PipelineParts.run_sft,
    RlStage: PipelineParts.run_rl,
    PreferenceModelStage: PipelineParts.run_preference_model,
    MessageCacheStage: PipelineParts.run_message_cache,
}


def _ranks(recipe: Recipe, model_path: str) -> Ranks:
    if not recipe.learner.in_driver:
        return RayRanks(recipe.learner, recipe.model, model_path)
    from rl.learner import Learner

    trust = recipe.model.trust_remote_code
    return InProcessRank(Learner(recipe.learner, model_path, trust_remote_code=trust, device="cpu"))


def _seed(recipe: Recipe, purpose: str) -> int:
    return random.Random(f"{recipe.seed} {purpose}").getrandbits(31)


def _flat_details(measured: Measurements) -> dict[str, float]:
    return {f"{name}/{key}": value for name, m in measured.items() for key, value in m.details.items()}
