"""Rules over several sections of a recipe: one line per violation, beginning with the key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rl.recipe.sources import MessageCacheSource
from rl.recipe.stages import MessageCacheStage, RlStage, SftStage, Stage, sources_of

if TYPE_CHECKING:
    from rl.recipe.pipeline import EvaluationSection, Recipe


def pipeline_problems(recipe: Recipe) -> Iterator[str]:
    """Everything in which sections of a recipe do not fit each other."""
    for rule in (
        _reference_problems,
        _length_problems,
        _gold_problems,
        _best_problems,
        _normalisation_problems,
        _staleness_problems,
        _placement_problems,
    ):
        yield from rule(recipe)


def _reference_problems(recipe: Recipe) -> Iterator[str]:
    """References to stages that do not exist earlier in the pipeline, or are of another kind."""
    earlier: dict[str, str] = {}
    for name, stage in recipe.stages.items():
        for key, wanted, kind in _references(stage):
            if earlier.get(wanted) != kind:
                names = [other for other, other_kind in earlier.items() if other_kind == kind]
                allowed = ", ".join(names) or "none"
                yield f"stages.{name}.{key}: {wanted!r} is not an earlier {kind} stage; there are: {allowed}"
        earlier[name] = stage.kind
    for name, evaluation in recipe.evaluations.items():
        if any(reward.from_stage for reward in evaluation.rewards) or evaluation.prompts.kind == "message_cache":
            yield f"evaluations.{name}: a held-out set cannot depend on a stage"


def _references(stage: Stage) -> Iterator[tuple[str, str, str]]:
    """(key, name of the stage that is referred to, its kind)."""
    for index, reward in enumerate(getattr(stage, "rewards", [])):
        if reward.from_stage is not None:
            yield f"rewards.{index}.from_stage", reward.from_stage, "preference_model"
    for source in sources_of(stage):
        if isinstance(source, MessageCacheSource):
            yield "message_cache", source.message_cache, "message_cache"


def _best_problems(recipe: Recipe) -> Iterator[str]:
    """Stages that keep the best policy by a held-out set that is not measured while they run."""
    watched = [name for name, evaluation in recipe.evaluations.items() if evaluation.every is not None]
    for name, stage in recipe.stages.items():
        if isinstance(stage, RlStage) and stage.keep_best is not None and stage.keep_best not in watched:
            allowed = ", ".join(watched) or "none"
            yield (
                f"stages.{name}.keep_best: {stage.keep_best!r} is not an evaluation with the key every; "
                f"there are: {allowed}"
            )


def _normalisation_problems(recipe: Recipe) -> Iterator[str]:
    """Rewards that are normalised where nothing is learned from them."""
    sections: dict[str, EvaluationSection | MessageCacheStage] = {
        f"evaluations.{name}": section for name, section in recipe.evaluations.items()
    }
    sections |= {f"stages.{n}": stage for n, stage in recipe.stages.items() if isinstance(stage, MessageCacheStage)}
    for key, section in sections.items():
        for index, reward in enumerate(section.rewards):
            if reward.normalise is not None:
                yield f"{key}.rewards.{index}.normalise: only rewards of an rl stage are normalised"


def _staleness_problems(recipe: Recipe) -> Iterator[str]:
    """Stages that learn from tokens of older policies and do not correct for it."""
    for name, stage in recipe.stages.items():
        if not isinstance(stage, RlStage):
            continue
        algorithm, tail = stage.algorithm, stage.long_tail
        stale = "learner.async_level 1" if recipe.learner.async_level else None
        stale = "long_tail" if tail is not None and tail.rest == "continue" else stale
        if stale and algorithm.importance_cap is None and algorithm.old_logprobs == "trainer":
            yield (
                f"stages.{name}.algorithm.importance_cap: {stale} learns from tokens of older policies; set "
                f"importance_cap, for example to 2, or old_logprobs to rollout"
            )
        if tail is not None and stage.episodes is not None:
            yield f"stages.{name}.long_tail: whole episodes cannot be paused"
        if tail is not None and algorithm.refill_rounds:
            yield f"stages.{name}.algorithm.refill_rounds: long_tail chooses prompts too; use one of the two"


def _placement_problems(recipe: Recipe) -> Iterator[str]:
    """Engines that cannot take weights, or that shall share bundles with learner ranks that are not there."""
    engine, learner = recipe.engine, recipe.learner
    if engine.kind == "server":
        for name, stage in recipe.stages.items():
            if isinstance(stage, SftStage | RlStage):
                yield f"engine.kind: a server keeps its weights, and the {stage.kind} stage {name} changes them"
    if not engine.colocate:
        return
    if learner.in_driver:
        yield "engine.colocate: the learner is in the driver's process; set learner.ranks or learner.gpus"
    elif engine.replicas != learner.ranks:
        yield f"engine.colocate: engine.replicas {engine.replicas} and learner.ranks {learner.ranks} must be equal"
    if learner.async_level:
        yield "engine.colocate: engines sleep while the learner learns; learner.async_level 1 has them sample then"


def _gold_problems(recipe: Recipe) -> Iterator[str]:
    """Rewards that are watched by an evaluation which is not there or not measured during the stage."""
    watched = [name for name, evaluation in recipe.evaluations.items() if evaluation.every is not None]
    for name, stage in recipe.stages.items():
        for index, reward in enumerate(stage.rewards if isinstance(stage, RlStage) else []):
            if reward.gold is None:
                continue
            if reward.gold not in watched:
                allowed = ", ".join(watched) or "none"
                yield (
                    f"stages.{name}.rewards.{index}.gold: {reward.gold!r} is not an evaluation with the key every; "
                    f"there are: {allowed}"
                )
            if isinstance(stage, RlStage) and not stage.algorithm.needs_reference:
                yield f"stages.{name}.algorithm.measure_kl: a reward with gold is watched over KL; set it to true"


def _length_problems(recipe: Recipe) -> Iterator[str]:
    limit = recipe.engine.max_model_len
    for key, max_tokens in _response_lengths(recipe):
        if max_tokens >= limit:
            yield f"{key}: {max_tokens} leaves no room for a prompt in engine.max_model_len = {limit}"


def _response_lengths(recipe: Recipe) -> Iterator[tuple[str, int]]:
    """(key, tokens) of every bound on a response."""
    for name, stage in recipe.stages.items():
        if isinstance(stage, RlStage | MessageCacheStage):
            yield f"stages.{name}.sampling.max_tokens", stage.sampling.max_tokens
        if isinstance(stage, RlStage) and stage.online_messages is not None:
            yield f"stages.{name}.online_messages.sampling.max_tokens", stage.online_messages.sampling.max_tokens
    for name, evaluation in recipe.evaluations.items():
        yield f"evaluations.{name}.sampling.max_tokens", evaluation.sampling.max_tokens
        if evaluation.synthesis is not None:
            yield f"evaluations.{name}.synthesis.max_tokens", evaluation.synthesis.max_tokens
