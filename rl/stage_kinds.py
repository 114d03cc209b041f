"""What each kind of stage does with the parts of a run. The order of stages is the pipeline's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rl.checkpoint import StageState
from rl.durable import folder_written_aside
from rl.errors import RunFailed
from rl.iteration_log import IterationLog, back_to_best
from rl.non_finite import RollBack
from rl.progress import StageProgress
from rl.recipe import MessageCacheStage, PreferenceModelStage, RlStage, SftStage
from rl.recipe.sources import MessageCacheSource
from rl.reward_model.pairs import split_pairs
from rl.reward_model.unfinished import UnfinishedWork
from rl.run_parts import RunParts
from rl.scoring import Scorer
from rl.trace import StageTrace
from rollouts.truncation import Truncation

if TYPE_CHECKING:  # they import transformers, which takes seconds
    from rl.loop import RlLoop
    from rl.online_messages import OnlineMessages


@dataclass(frozen=True)
class StageOutcome:
    """What a stage says of itself."""

    iterations: int
    details: Mapping[str, float] = field(default_factory=dict)


def run_sft(parts: RunParts, name: str, stage: SftStage) -> StageOutcome:
    """Supervised fine-tuning."""
    from rl.sft import SftLoop

    parts.learner.begin_sft(stage.optimizer)
    progress = parts.progress(name)
    state = progress.resume()
    parts.display.stage_started(name, stage.kind, stage.num_steps, state.iteration)
    streams = [
        parts.opener.stream(
            phase.sources, "demonstration", seed=parts.seed(f"{name} {n}"), held_out=parts.held_out_ids
        )
        for n, phase in enumerate(stage.phases)
    ]

    def after_step(step: int, metrics: Mapping[str, float], state: StageState) -> None:
        progress.after(step, metrics, state, last=state.iteration == stage.num_steps)

    loop = SftLoop(stage, parts.learner, streams, parts.tokenizer, parts.step_watch(name))
    _until_done(parts, progress, state, lambda start: loop.run(start, after_step))
    recent = [row["loss"] for row in parts.run.metrics(name)[-20:]]
    return StageOutcome(stage.num_steps, {"loss": sum(recent) / len(recent)} if recent else {})


def _until_done(
    parts: RunParts, progress: StageProgress, state: StageState, train: Callable[[StageState], None]
) -> None:
    """Trains from a state to the end, with as many returns to a checkpoint as the recipe allows."""
    allowed = parts.recipe.non_finite
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
            state = dataclasses.replace(state, stream={}, carried="")  # other rows than those that failed


def run_rl(parts: RunParts, name: str, stage: RlStage) -> StageOutcome:
    """PPO; see rl/loop.py."""
    from rl.started_prompts import unpacked

    truncation = Truncation(stage.sampling.top_p, stage.sampling.top_k)
    parts.learner.begin_rl(stage.policy, stage.critic, stage.algorithm, stage.sampling.temperature, truncation)
    progress = parts.progress(name)
    state = progress.resume()
    parts.display.stage_started(name, stage.kind, stage.iterations, state.iteration)
    trace = StageTrace(state.iteration, parts.recipe.saving.trace_iterations)
    log = IterationLog(parts, name, stage, progress, trace)
    loop = _rl_loop(parts, name, stage, progress, trace)
    if state.stream:
        loop.stream.load_state(state.stream)

    def train(start: StageState) -> None:
        parts.publish(version=start.iteration)
        loop.scorer.load_state(start.scales)
        log.history[:] = parts.run.metrics(name)
        own_seed = parts.seed(f"{name}, return {start.rollbacks}") if start.rollbacks else loop.seed
        carried = unpacked(start.carried, parts.tokenizer)
        dataclasses.replace(loop, seed=own_seed).run(start.iteration, log.after, carried)

    _until_done(parts, progress, state, train)
    return StageOutcome(stage.iterations, back_to_best(parts, name))


def _rl_loop(parts: RunParts, name: str, stage: RlStage, progress: StageProgress, trace: StageTrace) -> RlLoop:
    """The loop with the engines, once they are ready, and whatever else the recipe asks for."""
    from rl.loop import RlLoop

    seed = parts.seed(name)
    engine = parts.started_pool()
    engine.on_span = trace.engine_span
    scorer = Scorer(
        stage.rewards,
        parts.pools,
        keep_failure=lambda failure: parts.run.append_failure(name, progress.iteration, failure),
        on_span=trace.reward_span,
    )
    loop = RlLoop(
        stage=stage,
        engine=engine,
        learner=parts.learner,
        scorer=scorer,
        stream=parts.opener.stream(stage.prompts, "problem", seed=seed, held_out=parts.held_out_ids),
        tokenizer=parts.tokenizer,
        seed=seed,
        max_model_len=parts.recipe.engine.max_model_len,
        before_learning=progress.before_learning,
        watch=parts.step_watch(name),
        on_phase=trace.learner_span,
        engine_sleeps=parts.recipe.engine.colocate,
        async_level=parts.recipe.learner.async_level,
        tell=parts.display.message,
    )
    if stage.episodes is not None:
        from rl.gui.episodes import EpisodeCollector

        limit = parts.recipe.engine.max_model_len
        loop = dataclasses.replace(loop, collect=EpisodeCollector(stage.episodes, parts.tokenizer, limit))
    if stage.online_messages is not None:
        loop = dataclasses.replace(loop, rewrite=_online_messages(parts, stage, scorer))
    return loop


def _online_messages(parts: RunParts, stage: RlStage, scorer: Scorer) -> OnlineMessages:
    from rl.online_messages import OnlineMessages

    assert stage.online_messages is not None
    room = parts.recipe.engine.max_model_len - stage.sampling.max_tokens
    return OnlineMessages(stage.online_messages, parts.started_engine(), scorer, parts.tokenizer, stage.success, room)


def run_preference_model(parts: RunParts, name: str, stage: PreferenceModelStage) -> StageOutcome:
    """A reward model on TRL's trainer."""
    from rl.preference_model import train_preference_model

    rows = parts.opener.rows(stage.pairs, "preference", seed=parts.seed(name))
    pairs = split_pairs(rows, stage, parts.held_out_ids, f"stages.{name}.pairs: {stage.pairs.label}")
    work = UnfinishedWork(
        parts.run.unfinished(name),
        parts.recipe.saving.checkpoint_every,
        before_saving=lambda: parts.run.flush_logs(name),
        stop_asked=lambda: parts.interrupt.requested,
        say=parts.display.message,
    )
    steps = max(int(stage.epochs * len(pairs.training) / stage.batch_size), 1)
    done = work.steps_done(stage.members)
    parts.display.stage_started(name, stage.kind, steps * stage.members, done)
    parts.run.forget_after(name, done + 1)

    def on_log(step: int, total: int, numbers: Mapping[str, float]) -> None:
        parts.run.append_metrics(name, step, numbers)
        parts.display.iteration(step - 1, numbers)

    earlier = parts.policy_stages(before=name)
    start = stage.start or (str(parts.run.stage_model(earlier[-1])) if earlier else parts.model_path)
    seed = parts.seed(name) % 2**31
    with folder_written_aside(parts.run.stage_model(name)) as aside:
        details = train_preference_model(
            stage, start=start, pairs=pairs, folder=aside, seed=seed, on_log=on_log, work=work
        )
    counts = {"pairs": float(len(pairs.training)), "held_out_pairs": float(len(pairs.held_out))}
    return StageOutcome(int(details["steps"]) * stage.members, {**details, **counts})


def run_message_cache(parts: RunParts, name: str, stage: MessageCacheStage) -> StageOutcome:
    """Many graded answers per problem, chunk by chunk on disk; then the problems that pass the filter."""
    from rl.message_cache import GradedFile, MessageCacheFiller, count, passes, told
    from rollouts.message_cache import CacheFile, write_cache

    seed = parts.seed(name)
    graded = GradedFile(parts.run.graded_problems(name))
    problems_done = graded.chunks_done * stage.problems_at_once
    parts.run.forget_after(name, problems_done)
    source = stage.prompts.source
    filler = MessageCacheFiller(
        stage=stage,
        engine=parts.started_engine(),
        scorer=Scorer(
            stage.rewards,
            parts.pools,
            keep_failure=lambda failure: parts.run.append_failure(name, problems_done, failure),
        ),
        stream=parts.opener.stream([stage.prompts], "problem", seed=seed, held_out=parts.held_out_ids),
        tokenizer=parts.tokenizer,
        seed=seed,
        max_model_len=parts.recipe.engine.max_model_len,
        synthesized=CacheFile(parts.run.message_cache(source.message_cache))
        if isinstance(source, MessageCacheSource)
        else None,
    )
    parts.display.stage_started(name, stage.kind, stage.num_problems, problems_done)
    parts.publish(version=0)

    def after_chunk(drawn: int) -> None:
        nonlocal problems_done
        problems_done = drawn
        parts.display.iteration(drawn - 1, {"problems": float(drawn)})
        parts.stop_if_asked(f"in {name} after {drawn} problems")

    counts = count(stage, graded, repeated=filler.fill(graded, after_chunk))
    parts.display.message(f"[{name}] {told(stage, counts)}")
    if not counts.kept:
        raise RunFailed(f"{name}: none of {counts.seen} problems passes the filter; change above or below")
    write_cache(parts.run.message_cache(name), (one.problem for one in graded if passes(stage, one)))
    details = {"problems": counts.seen, "kept": counts.kept, "accuracy": counts.accuracy}
    return StageOutcome(counts.seen, {**details, "repeated_rows": counts.repeated})


RUNNERS: Mapping[type, Callable[..., StageOutcome]] = {
    SftStage: run_sft,
    RlStage: run_rl,
    PreferenceModelStage: run_preference_model,
    MessageCacheStage: run_message_cache,
}
