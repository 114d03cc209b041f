"""Answers to many problems at the same time: rounds or votes on one sampler, graded, each written as it is done."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rewards.result import RewardResult
from rewards.worker import RewardPool
from rl.inference.result_file import AnswerRecord, EvaluationSettings, FailureRecord, ResultWriter, RoundRecord
from rl.inference.voting import answer_classes, winner
from rollouts.chat_parts import without_bulk
from rollouts.engine import Sampling
from rollouts.rounds import FinishedRound, RoundSettings, plain_round, solve
from rollouts.sampler import Sampler, SamplerUnusable, SamplingError
from rollouts.trajectory import Prompt


@dataclass(frozen=True)
class Grader:
    """Rewards in their killable workers: the one that decides what is right, and others of the final answer."""

    pool: RewardPool
    further: Mapping[str, RewardPool] = field(default_factory=dict)

    async def grade_further(self, prompt: Prompt, answer: str) -> dict[str, float | None]:
        """The other rewards of an answer, by name."""
        graded = await asyncio.gather(*(self._score(pool, prompt, [answer]) for pool in self.further.values()))
        return {name: results[0].value for name, results in zip(self.further, graded)}

    async def grade(self, prompt: Prompt, responses: Sequence[str]) -> list[RewardResult]:
        """One result per response to the problem."""
        return await self._score(self.pool, prompt, responses)

    async def _score(self, pool: RewardPool, prompt: Prompt, responses: Sequence[str]) -> list[RewardResult]:
        chat = not isinstance(prompt.content, str)
        completions: list[object] = [
            [{"role": "assistant", "content": response}] if chat else response for response in responses
        ]
        columns = {name: [value] * len(responses) for name, value in prompt.columns.items()}
        return await asyncio.to_thread(pool.score, [prompt.content] * len(responses), completions, columns)


@dataclass(frozen=True)
class Progress:
    """How far an evaluation is."""

    done: int
    total: int
    failed: int
    right: int
    graded: int
    completion_tokens: int


def round_settings(settings: EvaluationSettings) -> RoundSettings:
    """The rounds that an evaluation's settings describe."""
    return RoundSettings(
        widths=settings.widths if settings.mode == "pacore" else (),
        template=settings.template,
        conclusion=settings.conclusion,
        shuffle=settings.shuffle,
        overflow=settings.overflow,
    )


def sampling_of(settings: EvaluationSettings) -> Sampling:
    """How an evaluation's settings draw tokens."""
    return Sampling(settings.temperature, settings.top_p, settings.top_k, settings.max_tokens, settings.stop)


async def answer_problems(
    prompts: Sequence[Prompt],
    *,
    num_samples: int,
    sampler: Sampler,
    grader: Grader,
    settings: EvaluationSettings,
    writer: ResultWriter,
    on_progress: Callable[[Progress], None],
    max_in_flight: int,
) -> Progress:
    """Answers every problem `num_samples` times, without those that the file has already.

    Args:
        prompts: problems, by their row of the data.
        max_in_flight: answers that are under way at the same time; each may have many requests.

    Raises:
        SamplerUnusable: no request can succeed; what was answered is in the file.
    """
    wanted = [(row, sample) for sample in range(num_samples) for row in range(len(prompts))]
    left = iter([key for key in wanted if key not in writer.done])
    total = len(wanted) - len(writer.done.intersection(wanted))
    counts = _Counts(total)

    async def work() -> None:
        record: AnswerRecord | FailureRecord
        for row, sample in left:
            try:
                record = await _answer(row, prompts[row], sample, sampler, grader, settings)
            except SamplerUnusable:
                raise
            except SamplingError as error:
                record = FailureRecord(row, sample, str(error))
            writer.add(record)
            counts.add(record, settings.success)
            on_progress(counts.progress())

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(max_in_flight, total)):
                tasks.create_task(work())
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    return counts.progress()


class _Counts:
    def __init__(self, total: int) -> None:
        self._total = total
        self._done = self._failed = self._right = self._graded = self._tokens = 0

    def add(self, record: AnswerRecord | FailureRecord, success: float) -> None:
        self._done += 1
        if isinstance(record, FailureRecord):
            self._failed += 1
            return
        self._tokens += record.completion_tokens
        if record.reward is not None:
            self._graded += 1
            self._right += record.reward >= success

    def progress(self) -> Progress:
        return Progress(self._done, self._total, self._failed, self._right, self._graded, self._tokens)


async def _answer(
    row: int, prompt: Prompt, sample: int, sampler: Sampler, grader: Grader, settings: EvaluationSettings
) -> AnswerRecord:
    start = time.monotonic()
    rounds = await _rounds(prompt, sample, sampler, settings)
    graded = await grader.grade(prompt, [reply.text for one in rounds for reply in one.replies])
    results = iter(graded)
    by_round = [[next(results) for _ in one.replies] for one in rounds]
    elected = 0
    if settings.mode == "majority":
        texts, messages = [reply.text for reply in rounds[0].replies], rounds[0].messages
        elected = winner(await asyncio.to_thread(answer_classes, texts, messages, equality=settings.vote))
    verdict, answer = by_round[-1][elected], rounds[-1].replies[elected].text
    return AnswerRecord(
        row=row,
        prompt_id=prompt.prompt_id,
        sample=sample,
        rounds=[_record(prompt, one, verdicts) for one, verdicts in zip(rounds, by_round)],
        answer=answer,
        reward=verdict.value,
        reward_status=str(verdict.status),
        further_rewards=await grader.grade_further(prompt, answer),
        seconds=time.monotonic() - start,
    )


async def _rounds(
    prompt: Prompt, sample: int, sampler: Sampler, settings: EvaluationSettings
) -> Sequence[FinishedRound]:
    seed = answer_seed(settings.seed, prompt.prompt_id, sample)
    rounds, sampling = round_settings(settings), sampling_of(settings)
    if settings.mode == "majority":
        return [await plain_round(prompt.content, settings.widths[0], sampler, rounds, sampling, seed=seed)]
    return await solve(prompt.content, sampler, rounds, sampling, seed=seed)


def answer_seed(seed: int, prompt_id: str, sample: int) -> int:
    """Seed of one answer: the same whatever else is evaluated with it, or was interrupted before it."""
    return random.Random(f"{seed}:{prompt_id}:{sample}").getrandbits(31)


def _record(prompt: Prompt, one: FinishedRound, verdicts: Sequence[RewardResult]) -> RoundRecord:
    all_equal = all(content == one.prompts[0] for content in one.prompts)
    prompts = one.prompts[:1] if all_equal else one.prompts
    return RoundRecord(
        prompts=[] if list(prompts) == [prompt.content] else [without_bulk(content) for content in prompts],
        responses=[reply.text for reply in one.replies],
        messages=list(one.messages),
        prompt_tokens=[reply.prompt_tokens for reply in one.replies],
        completion_tokens=[reply.completion_tokens for reply in one.replies],
        finish_reasons=[str(reply.finish_reason) for reply in one.replies],
        rewards=[verdict.value for verdict in verdicts],
        seconds=one.seconds,
        shown=one.shown[:1] if all_equal else one.shown,
        attempts=[reply.attempts for reply in one.replies],
    )
