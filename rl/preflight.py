"""Everything that can be wrong with a run and can be known before a model is loaded; and the numbers it implies."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from rewards import BUILT_IN, load_reward, required_columns
from rewards.registry import RewardSpecError
from rl.cluster import check_engine_installed, model_folder_exists
from rl.errors import UserError
from rl.recipe import (
    EvaluationSection,
    MessageCacheStage,
    PreferenceModelStage,
    Recipe,
    RewardSection,
    RlStage,
    SftStage,
    Source,
    Stage,
    WeightedSource,
    looks_local,
)
from rl.recipe_sources import DatasetSource, MessageCacheSource, TaskSource
from rl.sources import SourceOpener, View
from rollouts.pacore import TemplateError, synthesis_prompt
from rollouts.prompts import row_content
from rollouts.rows import DatasetError, Row


def check(recipe: Recipe, *, on_this_machine: bool) -> list[str]:
    """Every problem that can be found without loading a model, each with its key and value.

    Args:
        on_this_machine: also what only matters where the recipe is run: engine installed, hub datasets readable.
    """
    problems = [*_model_problems(recipe)]
    if on_this_machine:
        try:
            check_engine_installed(recipe.engine)
        except UserError as error:
            problems.append(str(error))
    for name, stage in recipe.stages.items():
        problems += [f"stages.{name}.{problem}" for problem in _stage_problems(stage, on_this_machine)]
    for name, evaluation in recipe.evaluations.items():
        problems += [f"evaluations.{name}.{problem}" for problem in _evaluation_problems(evaluation, on_this_machine)]
    return problems


def _model_problems(recipe: Recipe) -> Iterator[str]:
    path = recipe.model.path
    if path is not None and looks_local(path) and not model_folder_exists(path):
        yield f"model.path: {path!r}: no folder with a config.json; a local folder or a hub name organisation/name"


def _stage_problems(stage: Stage, read_hub: bool) -> Iterator[str]:
    if isinstance(stage, SftStage):
        for number, phase in enumerate(stage.phases):
            for index, mixed in enumerate(phase.sources):
                key = f"phases.{number}.sources.{index}.source"
                yield from _source_problems(mixed.source, "demonstration", key, read_hub)[1]
    elif isinstance(stage, PreferenceModelStage):
        yield from _source_problems(stage.pairs, "preference", "pairs", read_hub)[1]
    elif isinstance(stage, MessageCacheStage):
        yield from _pattern_problems(stage.conclusion)
        yield from _scored_problems([stage.prompts], stage.rewards, "prompts", read_hub)
    else:
        yield from _scored_problems(stage.prompts, stage.rewards, "prompts", read_hub)


def _evaluation_problems(section: EvaluationSection, read_hub: bool) -> Iterator[str]:
    if section.synthesis is not None:
        yield from _pattern_problems(section.synthesis.conclusion)
        yield from _template_problems(section.synthesis.template, "synthesis.template")
    yield from _scored_problems([WeightedSource(source=section.prompts)], section.rewards, "prompts", read_hub)


def _pattern_problems(pattern: str | None) -> Iterator[str]:
    try:
        re.compile(pattern or "")
    except re.error as error:
        yield f"conclusion: {pattern!r}: not a regular expression: {error}"


def _template_problems(template: str, key: str) -> Iterator[str]:
    try:
        synthesis_prompt("problem", ["message"], template=template)
    except TemplateError as error:
        yield f"{key}: {error}"


def _scored_problems(
    mixture: Sequence[WeightedSource], rewards: Sequence[RewardSection], key: str, read_hub: bool
) -> Iterator[str]:
    """Sources, rewards, and whether the sources have the columns that the rewards need."""
    needed: dict[str, frozenset[str]] = {}
    for index, section in enumerate(rewards):
        columns, problem = _reward_columns(section)
        needed[section.label] = columns
        if problem:
            yield f"rewards.{index}.fn: {problem}"
    for index, mixed in enumerate(mixture):
        row, problems = _source_problems(mixed.source, "problem", f"{key}.{index}.source", read_hub)
        yield from problems
        if row is None:
            continue
        for label in mixed.rewards or needed:
            missing = needed.get(label, frozenset()) - set(row)
            if missing:
                yield (
                    f"{key}.{index}: reward {label!r} needs the column {', '.join(sorted(missing))}; "
                    f"{mixed.label!r} has: {', '.join(row)}"
                )


def _reward_columns(section: RewardSection) -> tuple[frozenset[str], str | None]:
    """(columns that the reward cannot do without, what is wrong with it)."""
    if section.from_stage is not None or section.fn == "preference":
        unknown = section.fn not in BUILT_IN and ":" not in section.fn
        return frozenset(), f"{section.fn!r} is not a reward" if unknown else None
    try:
        return required_columns(load_reward(section.fn, **section.args)), None
    except RewardSpecError as error:
        return frozenset(), str(error)
    except Exception as error:  # noqa: BLE001 - the user's module runs here, and may raise anything
        return frozenset(), f"{section.fn!r}: importing it raised {type(error).__name__}: {error}"


def _source_problems(source: Source, view: View, key: str, read_hub: bool) -> tuple[Row | None, list[str]]:
    """(a row to look at, what is wrong). No row where the source does not exist yet or is not read now."""
    if isinstance(source, MessageCacheSource):
        low, high = source.messages
        problems = [f"{key}.messages: [{low}, {high}]: the lowest number comes first"] if low > high else []
        return None, problems + list(_template_problems(source.template, f"{key}.template"))
    if isinstance(source, DatasetSource) and not looks_local(source.dataset) and not read_hub:
        return None, []
    name = source.task if isinstance(source, TaskSource) else source.dataset
    try:
        row = SourceOpener(lambda stage: Path(stage)).rows(source, view, seed=0).row(0)
        if view != "preference":
            row_content(row, "prompt", name)
    except (DatasetError, ValueError) as error:
        return None, [f"{key}: {error}"]
    return row, []


# ---------------------------------------------------------------- derived numbers


def derived_numbers(recipe: Recipe) -> list[tuple[str, str, str]]:
    """(stage, quantity, value) of what the recipe implies; printed by `stepladder validate`, never configured."""
    engine, learner = recipe.engine, recipe.learner
    gpus = engine.replicas * engine.gpus + learner.ranks * learner.gpus
    rows = [
        ("pipeline", "rollout engines", f"{engine.replicas} x {engine.kind}, {engine.gpus:g} GPU each"),
        ("pipeline", "learner ranks", f"{learner.ranks}, {learner.gpus:g} GPU each"),
        ("pipeline", "GPUs in all", f"{gpus:g}"),
    ]
    for name, stage in recipe.stages.items():
        rows += [(name, quantity, value) for quantity, value in _derived(stage)]
    total = sum(s.iterations * s.trajectories_per_iteration for s in recipe.stages.values() if isinstance(s, RlStage))
    iterations = sum(s.iterations for s in recipe.stages.values() if isinstance(s, RlStage))
    rows.append(("pipeline", "PPO iterations in all", f"{iterations:,}"))
    rows.append(("pipeline", "scored trajectories in all", f"{total:,}"))
    return rows


def _derived(stage: Stage) -> Iterator[tuple[str, str]]:
    if isinstance(stage, SftStage):
        yield "optimizer steps", f"{stage.num_steps:,} in {len(stage.phases)} phases"
        yield "rows", f"{stage.num_steps * stage.batch_size:,}"
        yield "tokens at most", f"{stage.num_steps * stage.batch_size * stage.max_length:,}"
    elif isinstance(stage, RlStage):
        per_iteration = stage.trajectories_per_iteration
        tokens = per_iteration * stage.sampling.max_tokens
        yield "iterations", f"{stage.iterations:,}"
        yield (
            "trajectories per iteration",
            f"{stage.prompts_per_iteration} prompts x {stage.samples_per_prompt} samples = {per_iteration:,}",
        )
        yield "trajectories in all", f"{per_iteration * stage.iterations:,}"
        yield "sampled tokens at most", f"{tokens:,} per iteration, {tokens * stage.iterations:,} in all"
        yield "policy mini-batches", _minibatches(stage.algorithm.minibatches, stage.algorithm.epochs, per_iteration)
        if stage.critic is not None:
            yield "critic mini-batches", _minibatches(stage.critic.minibatches, stage.critic.epochs, per_iteration)
    elif isinstance(stage, MessageCacheStage):
        answers = stage.num_problems * stage.samples_per_prompt
        yield "answers", f"{stage.num_problems:,} problems x {stage.samples_per_prompt} = {answers:,}"
        yield "sampled tokens at most", f"{answers * stage.sampling.max_tokens:,}"
    else:
        yield "pairs", f"{stage.num_pairs:,} for training, {stage.num_held_out:,} held out"


def _minibatches(count: int, epochs: int, trajectories: int) -> str:
    policy = "strictly on-policy, " if count * epochs == 1 else ""
    return f"{policy}{count * epochs} per iteration, {trajectories // count:,} trajectories each"
