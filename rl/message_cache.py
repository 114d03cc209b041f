"""The material of PaCoRe training: many graded answers per problem, and only the problems worth training on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from rl.loop import as_sampling, iteration_seed
from rl.recipe import MessageCacheStage
from rl.scoring import ScoredTrajectory, Scorer
from rollouts.collect import collect, tokenized
from rollouts.engine import Engine
from rollouts.message_cache import CachedMessage, CachedProblem
from rollouts.pacore import compact
from rollouts.prompts import RowStream, to_prompt
from rollouts.trajectory import Prompt

# Problems that are sampled and graded together.
_CHUNK = 64


@dataclass(frozen=True)
class MessageCache:
    """What a message_cache stage made."""

    kept: Sequence[CachedProblem]
    num_problems: int
    accuracy: float
    """share of right answers over all problems, before the filter"""


def fill_message_cache(
    stage: MessageCacheStage,
    *,
    engine: Engine,
    scorer: Scorer,
    stream: RowStream,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    after_chunk: Callable[[int, int], None],
) -> MessageCache:
    """Samples answers to different problems, grades them, and keeps the problems between the two limits.

    Source: PaCoRe, arXiv 2601.05593, sec. 3: stage 1 keeps 0 < mean(message accuracy) < 9/24 for mathematics.
    """
    prompts = _different_prompts(stream, stage.num_problems)
    problems: list[CachedProblem] = []
    for start in range(0, len(prompts), _CHUNK):
        trajectories = collect(
            engine,
            [tokenized(tokenizer, prompt) for prompt in prompts[start : start + _CHUNK]],
            samples_per_prompt=stage.samples_per_prompt,
            sampling=as_sampling(stage.sampling),
            seed=iteration_seed(seed, start),
        )
        problems += _graded(stage, scorer.score(trajectories).scored)
        after_chunk(min(start + _CHUNK, len(prompts)), len(problems))
    kept = [problem for problem in problems if stage.above < problem.accuracy < stage.below]
    accuracy = sum(problem.accuracy for problem in problems) / len(problems)
    return MessageCache(kept, len(problems), accuracy)


def _different_prompts(stream: RowStream, count: int) -> list[Prompt]:
    """`count` prompts, each once; fewer where the source has no more (it is asked ten times as often)."""
    found: dict[str, Prompt] = {}
    for _ in range(10 * count):
        prompt = to_prompt(*stream.take(1)[0])
        found.setdefault(prompt.prompt_id, prompt)
        if len(found) == count:
            break
    return list(found.values())


def _graded(stage: MessageCacheStage, scored: Sequence[ScoredTrajectory]) -> list[CachedProblem]:
    by_prompt: dict[str, list[ScoredTrajectory]] = {}
    for item in scored:
        by_prompt.setdefault(item.trajectory.prompt.prompt_id, []).append(item)
    return [
        CachedProblem(
            prompt_id=prompt_id,
            content=items[0].trajectory.prompt.content,
            columns=dict(items[0].trajectory.prompt.columns),
            messages=tuple(_message(stage, item) for item in items),
        )
        for prompt_id, items in by_prompt.items()
    ]


def _message(stage: MessageCacheStage, item: ScoredTrajectory) -> CachedMessage:
    return CachedMessage(
        conclusion=compact(item.trajectory.completion, conclusion=stage.conclusion),
        reward=item.reward,
        correct=item.reward >= stage.success,
        num_tokens=item.trajectory.num_sampled_tokens,
    )
