"""PaCoRe inference on many problems at the same time: each goes on as soon as its own round is done.

Everything waits on one sampler and nothing else, so rounds of different problems share the engine.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from rollouts.engine import Sampling
from rollouts.pacore import (
    SYNTHESIS_TEMPLATE,
    Overflow,
    RoundPrompt,
    Shuffle,
    compact,
    fitting_messages,
    round_prompts,
    round_rng,
    synthesis_prompt,
)
from rollouts.sampler import Reply, Sampler
from rollouts.trajectory import PromptContent


@dataclass(frozen=True)
class RoundSettings:
    """What the rounds look like."""

    widths: tuple[int, ...]
    """trajectories of the rounds before the last, which has one; () is one plain chain"""
    template: str = SYNTHESIS_TEMPLATE
    conclusion: str | None = None
    """see `compact`"""
    shuffle: Shuffle = "round"
    overflow: Overflow = "drop"
    """what becomes of messages that leave no room for the response, where the sampler knows its context"""


@dataclass(frozen=True)
class FinishedRound:
    """One round of one problem."""

    prompts: tuple[PromptContent, ...]
    """what each trajectory saw"""
    shown: tuple[tuple[int, ...], ...]
    """of each prompt, the positions of the messages in it among those of the round before; see `RoundPrompt`"""
    replies: tuple[Reply, ...]
    messages: tuple[str, ...]
    """conclusions of the replies"""
    seconds: float
    """from its first request to its last response"""


async def solve(
    problem: PromptContent, sampler: Sampler, settings: RoundSettings, sampling: Sampling, *, seed: int
) -> list[FinishedRound]:
    """All rounds of one problem; the answer is `rounds[-1].messages[0]`.

    Args:
        seed: fixes the shuffles and the seed of every request.

    Raises:
        SamplingError: a request of some round has no response; the other requests of the round are ended.
    """
    rounds: list[FinishedRound] = []
    for width in (*settings.widths, 1):
        rounds.append(await _round(problem, rounds, width, sampler, settings, sampling, seed))
    return rounds


async def plain_round(
    problem: PromptContent, width: int, sampler: Sampler, settings: RoundSettings, sampling: Sampling, *, seed: int
) -> FinishedRound:
    """`width` chains that see the problem alone: what a first round is, and what a vote is taken over."""
    return await _round(problem, (), width, sampler, settings, sampling, seed)


async def solve_streaming(
    problem: PromptContent, sampler: Sampler, settings: RoundSettings, sampling: Sampling, *, seed: int
) -> AsyncIterator[FinishedRound | str]:
    """The same; yields each round when it is done, and before the last round its text piece by piece."""
    rounds: list[FinishedRound] = []
    for width in settings.widths:
        rounds.append(await _round(problem, rounds, width, sampler, settings, sampling, seed))
        yield rounds[-1]
    start = time.monotonic()
    (prompt,) = _prompts(problem, rounds, 1, sampler, settings, sampling, seed)
    async for piece in sampler.stream(prompt.content, sampling, seed=_request_seed(seed, len(rounds), 0)):
        if isinstance(piece, Reply):
            yield _finished([prompt], (piece,), settings, start)
        else:
            yield piece


async def _round(
    problem: PromptContent,
    rounds: Sequence[FinishedRound],
    width: int,
    sampler: Sampler,
    settings: RoundSettings,
    sampling: Sampling,
    seed: int,
) -> FinishedRound:
    start = time.monotonic()
    prompts = _prompts(problem, rounds, width, sampler, settings, sampling, seed)
    try:
        async with asyncio.TaskGroup() as tasks:
            requests = [
                tasks.create_task(
                    sampler.sample(prompt.content, sampling, seed=_request_seed(seed, len(rounds), index))
                )
                for index, prompt in enumerate(prompts)
            ]
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None  # the first to fail; the others were ended because of it
    return _finished(prompts, tuple(request.result() for request in requests), settings, start)


def _finished(
    prompts: Sequence[RoundPrompt], replies: tuple[Reply, ...], settings: RoundSettings, start: float
) -> FinishedRound:
    messages = tuple(compact(reply.text, conclusion=settings.conclusion) for reply in replies)
    return FinishedRound(
        prompts=tuple(prompt.content for prompt in prompts),
        shown=tuple(prompt.shown for prompt in prompts),
        replies=replies,
        messages=messages,
        seconds=time.monotonic() - start,
    )


def _prompts(
    problem: PromptContent,
    rounds: Sequence[FinishedRound],
    width: int,
    sampler: Sampler,
    settings: RoundSettings,
    sampling: Sampling,
    seed: int,
) -> list[RoundPrompt]:
    def fits(messages: list[str]) -> bool:
        room = sampler.room(synthesis_prompt(problem, messages, template=settings.template))
        return room is None or room >= sampling.max_tokens

    return round_prompts(
        problem,
        rounds[-1].messages if rounds else (),
        width,
        round_rng(seed, len(rounds)),
        template=settings.template,
        shuffle=settings.shuffle,
        fit=lambda messages: fitting_messages(messages, fits, overflow=settings.overflow),
    )


def _request_seed(seed: int, round_index: int, index: int) -> int:
    return random.Random(f"{seed}:request:{round_index}:{index}").getrandbits(31)
