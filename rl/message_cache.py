"""The material of PaCoRe training: many graded answers per problem, and only the problems worth training on.

A stage samples problems chunk by chunk. Every chunk is on disk before the next is sampled, so an interrupted stage
goes on after its last whole chunk, and no more than one chunk is in memory.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rl.recipe import MessageCacheStage
from rl.rollout import as_sampling, iteration_seed
from rl.scoring import ScoredTrajectory, Scorer
from rollouts.collect import collect, tokenized
from rollouts.engine import Engine
from rollouts.message_cache import CachedMessage, CachedProblem, CacheFile, from_json, ready_answers, to_json
from rollouts.pacore import compact
from rollouts.processing import Processing
from rollouts.prompts import RowStream, row_id, to_prompt
from rollouts.trajectory import FinishReason, Prompt, Trajectory

# Rows looked at for each problem that is wanted, before the source is taken to have no other.
_ROWS_PER_PROBLEM = 10


@dataclass(frozen=True)
class FilterCounts:
    """How many problems a filter saw and kept, in all and by domain."""

    seen: int
    kept: int
    seen_by_domain: dict[str, int] = field(default_factory=dict)
    kept_by_domain: dict[str, int] = field(default_factory=dict)
    repeated: int = 0
    """rows that were passed over because their problem had come before"""
    accuracy: float = 0.0
    """mean over the problems seen of what the filter looks at"""


@dataclass(frozen=True)
class Graded:
    """A problem of a cache and the accuracy that the filter looks at."""

    problem: CachedProblem
    accuracy: float
    """share of right answers; of right syntheses where the stage samples those"""


class GradedFile:
    """All problems that a stage has graded, in whole chunks."""

    def __init__(self, path: Path) -> None:
        """Opens the file, and drops what was written of a chunk that was not finished."""
        self.path = path
        self.chunks_done = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        whole = 0
        with path.open("rb") as file:
            for line in file:
                if line.startswith(b'{"end_of_chunk"') and line.endswith(b"\n"):
                    whole, self.chunks_done = file.tell(), self.chunks_done + 1
        with path.open("r+b") as file:
            file.truncate(whole)

    def add_chunk(self, graded: Sequence[Graded]) -> None:
        """Writes a chunk and its end."""
        lines = [f'{{"accuracy": {one.accuracy!r}, "problem": {to_json(one.problem).rstrip()}}}\n' for one in graded]
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(lines) + json.dumps({"end_of_chunk": self.chunks_done}) + "\n")
        self.chunks_done += 1

    def __iter__(self) -> Iterator[Graded]:
        with self.path.open(encoding="utf-8") as file:
            for line in file:
                row: dict[str, Any] = json.loads(line)
                if "problem" in row:
                    yield Graded(from_json(row["problem"]), row["accuracy"])


@dataclass(frozen=True)
class MessageCacheFiller:
    """The parts that a message_cache stage works with."""

    stage: MessageCacheStage
    engine: Engine
    scorer: Scorer
    stream: RowStream
    tokenizer: Processing
    seed: int
    max_model_len: int
    synthesized: CacheFile | None
    """the earlier cache whose syntheses are sampled; None: answers to the problems themselves"""

    def fill(self, graded: GradedFile, after_chunk: Callable[[int], None]) -> int:
        """Samples and grades what the file lacks; the number of rows that repeated a problem.

        Args:
            after_chunk: called with the number of problems drawn so far; may raise to stop.
        """
        drawn, size = 0, self.stage.problems_at_once
        distinct = _DistinctPrompts(self.stream, self._wanted())
        for index, prompts in enumerate(_chunks(distinct, size)):
            drawn += len(prompts)
            if index < graded.chunks_done:
                continue
            graded.add_chunk(self._graded(prompts, iteration_seed(self.seed, index * size)))
            after_chunk(drawn)
        return distinct.repeated

    def _wanted(self) -> int:
        count = self.stage.num_problems
        return count if self.synthesized is None else min(count, len(self.synthesized))

    def _graded(self, prompts: Sequence[tuple[str, Prompt]], seed: int) -> list[Graded]:
        ids = {prompt.prompt_id: problem_id for problem_id, prompt in prompts}
        trajectories = self._trajectories([prompt for _, prompt in prompts], seed)
        by_prompt: dict[str, list[ScoredTrajectory]] = {}
        for item in self.scorer.score(trajectories).scored if trajectories else ():
            by_prompt.setdefault(item.trajectory.prompt.prompt_id, []).append(item)
        return [self._as_graded(ids[prompt_id], items) for prompt_id, items in by_prompt.items()]

    def _trajectories(self, prompts: Sequence[Prompt], seed: int) -> list[Trajectory]:
        if self.stage.grade_responses:
            return [ready for prompt in prompts for ready in _ready(prompt)]
        room = self.max_model_len - self.stage.sampling.max_tokens
        asked = [tokenized(self.tokenizer, prompt) for prompt in prompts]
        fitting = [prompt for prompt in asked if len(prompt.token_ids) <= room]
        if not fitting:
            return []
        return collect(
            self.engine,
            fitting,
            samples_per_prompt=self.stage.samples_per_prompt,
            sampling=as_sampling(self.stage.sampling),
            seed=seed,
        )

    def _as_graded(self, problem_id: str, items: Sequence[ScoredTrajectory]) -> Graded:
        messages = tuple(_message(self.stage, item) for item in items)
        if self.synthesized is not None:
            share = sum(message.correct for message in messages) / len(messages)
            return Graded(self.synthesized.by_id(problem_id), share)
        prompt = items[0].trajectory.prompt
        columns = {name: value for name, value in prompt.columns.items() if name != "responses"}
        problem = CachedProblem(problem_id, prompt.content, columns, messages)
        return Graded(problem, problem.accuracy)


class _DistinctPrompts:
    """(id of the problem, prompt), each problem once; fewer than wanted where the source has no more."""

    def __init__(self, stream: RowStream, wanted: int) -> None:
        self.repeated = 0
        self._stream = stream
        self._wanted = wanted

    def __iter__(self) -> Iterator[tuple[str, Prompt]]:
        seen: set[str] = set()
        for _ in range(_ROWS_PER_PROBLEM * self._wanted):
            source, row = self._stream.take(1)[0]
            problem_id = row_id(row, source.label)
            if problem_id in seen:
                self.repeated += 1
                continue
            seen.add(problem_id)
            yield problem_id, to_prompt(source, row)
            if len(seen) == self._wanted:
                return


def _chunks(prompts: _DistinctPrompts, size: int) -> Iterator[list[tuple[str, Prompt]]]:
    chunk: list[tuple[str, Prompt]] = []
    for prompt in prompts:
        chunk.append(prompt)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def passes(stage: MessageCacheStage, one: Graded) -> bool:
    """Whether the filter keeps a problem.

    Source: PaCoRe, arXiv 2601.05593, sec. 3: stage 1 keeps 0 < mean(message accuracy) < 9/24 for mathematics and
    < 15/24 for code; stage 2 keeps 0 < synthesis accuracy < 1.
    """
    return stage.above < one.accuracy < stage.below_by_domain.get(domain_of(stage, one.problem), stage.below)


def domain_of(stage: MessageCacheStage, problem: CachedProblem) -> str:
    """The value of the stage's domain column; "" where it has none."""
    return "" if stage.domain_column is None else str(problem.columns.get(stage.domain_column, ""))


def count(stage: MessageCacheStage, graded: GradedFile, *, repeated: int) -> FilterCounts:
    """What the filter makes of all that was graded."""
    seen: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    total = 0.0
    for one in graded:
        domain = domain_of(stage, one.problem)
        seen[domain] += 1
        kept[domain] += passes(stage, one)
        total += one.accuracy
    num_seen = sum(seen.values())
    return FilterCounts(num_seen, sum(kept.values()), dict(seen), dict(kept), repeated, total / max(num_seen, 1))


def told(stage: MessageCacheStage, counts: FilterCounts) -> str:
    """The counts before and after the filter, for people."""
    what = "syntheses" if stage.samples_syntheses else "answers"
    limits = f"{stage.above:g} < share of right {what} < {stage.below:g}"
    lines = [f"kept {counts.kept} of {counts.seen} problems: {limits}"]
    if counts.repeated > (_ROWS_PER_PROBLEM - 1) * stage.num_problems:  # the source was given up
        lines.append(f"num_problems asks for {stage.num_problems}, the source has no more that are different")
    elif counts.repeated:
        lines.append(f"{counts.repeated} rows repeated a problem and were passed over")
    for domain in sorted(counts.seen_by_domain) if stage.domain_column is not None else ():
        below = stage.below_by_domain.get(domain, stage.below)
        before, after = counts.seen_by_domain[domain], counts.kept_by_domain[domain]
        lines.append(f"{stage.domain_column} {domain or '(none)'}: kept {after} of {before}, below {below:g}")
    return "; ".join(lines)


def _message(stage: MessageCacheStage, item: ScoredTrajectory) -> CachedMessage:
    return CachedMessage(
        conclusion=compact(item.trajectory.completion, conclusion=stage.conclusion),
        reward=item.reward,
        correct=item.reward >= stage.success,
        num_tokens=item.trajectory.num_sampled_tokens,
    )


def _ready(prompt: Prompt) -> list[Trajectory]:
    """The answers that a row brings along, as trajectories without tokens."""
    return [
        Trajectory(
            prompt=prompt,
            token_ids=np.zeros(0, np.int64),
            action_mask=np.zeros(0, np.bool_),
            rollout_logprobs=np.zeros(0, np.float32),
            completion=response,
            finish_reason=FinishReason.STOP,
            policy_versions=np.zeros(0, np.int32),
        )
        for response in ready_answers(dict(prompt.columns), prompt.origin)
    ]
