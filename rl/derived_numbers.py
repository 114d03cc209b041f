"""The numbers that a recipe implies: shown, never configured."""

from __future__ import annotations

from collections.abc import Iterator

from rl.recipe import MessageCacheStage, Recipe, RlStage, SftStage, Stage, rewards_of


def derived_numbers(recipe: Recipe) -> list[tuple[str, str, str]]:
    """(stage, quantity, value) of what the recipe implies; printed by `stepladder validate`, never configured."""
    engine, learner = recipe.engine, recipe.learner
    gpus = engine.replicas * engine.gpus + learner.ranks * learner.gpus
    gpus += sum(reward.workers * reward.actor.gpus for reward in rewards_of(recipe) if reward.actor)
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
        algorithm = stage.algorithm
        once = "strictly on-policy, " if algorithm.minibatches * algorithm.epochs == 1 else ""
        yield "policy mini-batches", once + _minibatches(algorithm.minibatches, algorithm.epochs, per_iteration)
        if stage.critic is not None:
            yield "critic mini-batches", _minibatches(stage.critic.minibatches, stage.critic.epochs, per_iteration)
    elif isinstance(stage, MessageCacheStage):
        answers = stage.num_problems * stage.samples_per_prompt
        yield "answers", f"{stage.num_problems:,} problems x {stage.samples_per_prompt} = {answers:,}"
        yield "sampled tokens at most", f"{answers * stage.sampling.max_tokens:,}"
    else:
        yield "pairs", f"{stage.num_pairs:,} for training, {stage.num_held_out:,} held out"


def _minibatches(count: int, epochs: int, trajectories: int) -> str:
    return f"{count * epochs} per iteration, {trajectories // count:,} trajectories each"
