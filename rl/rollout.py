"""What one iteration learns from: prompts, responses, rewards. Scoring goes on while the engines sample."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from rl.errors import RunFailed
from rl.recipe import RlStage, SamplingSection
from rl.scoring import ScoredTrajectory, Scorer, Scoring
from rollouts.collect import Collect, Collection, StartedPrompt, TokenizedPrompt, in_chunks, tokenized
from rollouts.engine import Engine, Sampling
from rollouts.images import ImageError
from rollouts.processing import Processing
from rollouts.prompts import RowStream, to_prompt
from rollouts.trajectory import Trajectory

# Prompts passed over for each one wanted, before the source is taken to hold no prompt that fits.
_MAX_PASSED_OVER = 100
# Trajectories that are scored together.
_CHUNK_ROWS = 128
# Prompts that are not learned from, by why.
_COUNTED = ("prompts_too_long", "prompts_unreadable", "prompts_unanswerable")


@dataclass(frozen=True)
class Gathered:
    """What an iteration learns from."""

    scoring: Scoring
    """of the prompts that nobody chose by their rewards"""
    learned_from: Sequence[ScoredTrajectory]
    metrics: dict[str, float]
    seconds: dict[str, float]
    """`rollout`, and `scoring` after the last response; the rest of scoring ran meanwhile"""
    carried: tuple[StartedPrompt, ...]
    """prompts that are started and not learned from yet, for the next iteration"""


@dataclass(frozen=True)
class Rollouts:
    """The parts that sample and score."""

    stage: RlStage
    engine: Engine
    scorer: Scorer
    stream: RowStream
    tokenizer: Processing
    seed: int
    max_model_len: int
    rewrite: Callable[[Sequence[TokenizedPrompt], int], Sequence[TokenizedPrompt]]
    """turns the prompts of an iteration into those that are answered"""
    collect: Collect | None = None
    """makes the trajectories in place of the engine's stream of responses"""
    stop_if_asked: Callable[[], None] = field(default=lambda: None)
    """called for every prompt that is complete; ends the gathering by an exception"""
    tell: Callable[[str], None] = field(default=lambda message: None)
    """told of prompts that no engine can answer"""

    def gather(self, index: int, carried: Sequence[StartedPrompt] = ()) -> Gathered:
        """Everything that iteration `index` learns from.

        Args:
            carried: prompts that the iteration before has started.
        """
        seconds = {"rollout": 0.0, "scoring": 0.0}
        stage, seed = self.stage, iteration_seed(self.seed, index)
        if stage.long_tail is None:
            scoring, passed_over = self._sampled(stage.prompts_per_iteration, seed, seconds)
            learned_from, metrics = self._with_signal(scoring.scored, seed, seconds)
            rest: tuple[StartedPrompt, ...] = ()
        else:
            scoring, passed_over, rest, metrics = self._first_done(index, carried, seed, seconds)
            learned_from = scoring.scored
        counts = {name: float(passed_over[name]) for name in _COUNTED}
        return Gathered(scoring, learned_from, {**counts, **metrics}, seconds, rest)

    def _sampled(self, num_prompts: int, seed: int, seconds: dict[str, float]) -> tuple[Scoring, Counter[str]]:
        """Responses to the next prompts of the stream with their rewards; how many prompts were passed over."""
        start = time.perf_counter()
        prompts, passed_over = self._prompts(num_prompts)
        started = [StartedPrompt(prompt) for prompt in self.rewrite(prompts, seed)]
        seconds["rollout"] += time.perf_counter() - start
        samples = self.stage.samples_per_prompt
        if self.collect is not None:
            return self._scored(self._episodes(self.collect, started, seed), seconds), passed_over
        collection = self._collection(started, seed)
        scoring = self._scored(in_chunks(collection, len(started), max(_CHUNK_ROWS // samples, 1)), seconds)
        self._tell_dropped(collection, passed_over)
        return scoring, passed_over

    def _tell_dropped(self, collection: Collection, counts: Counter[str]) -> None:
        for told in collection.dropped.values():
            self.tell(told)
        counts["prompts_unanswerable"] += len(collection.dropped)

    def _episodes(
        self, collect: Collect, started: Sequence[StartedPrompt], seed: int
    ) -> Iterator[tuple[int, list[Trajectory]]]:
        """All trajectories in one piece."""
        stage = self.stage
        prompts = [one.prompt for one in started]
        samples, sampling = stage.samples_per_prompt, as_sampling(stage.sampling)
        yield 0, collect(self.engine, prompts, samples_per_prompt=samples, sampling=sampling, seed=seed)

    def _collection(self, started: Sequence[StartedPrompt], seed: int, enough: int | None = None) -> Collection:
        return Collection(
            self.engine,
            started,
            samples_per_prompt=self.stage.samples_per_prompt,
            sampling=as_sampling(self.stage.sampling),
            seed=seed,
            enough=enough,
        )

    def _scored(self, chunks: Iterator[tuple[int, list[Trajectory]]], seconds: dict[str, float]) -> Scoring:
        start = last = time.perf_counter()

        def watched() -> Iterator[tuple[int, list[Trajectory]]]:
            nonlocal last
            for chunk in chunks:
                self.stop_if_asked()
                yield chunk
            last = time.perf_counter()

        scoring = self.scorer.score_chunks(watched(), to_learn=True)
        seconds["rollout"] += last - start
        seconds["scoring"] += time.perf_counter() - last
        return scoring

    def _first_done(
        self, index: int, carried: Sequence[StartedPrompt], seed: int, seconds: dict[str, float]
    ) -> tuple[Scoring, Counter[str], tuple[StartedPrompt, ...], dict[str, float]]:
        """The prompts that are complete first, of more than are needed: the long tail is not waited for.

        Source: partial rollouts of Kimi k1.5, https://arxiv.org/abs/2501.12599, sec. 2.6.2.
        """
        tail, wanted = self.stage.long_tail, self.stage.prompts_per_iteration
        assert tail is not None
        start = time.perf_counter()
        kept = [_without_old_tokens(one, oldest=index - tail.max_staleness) for one in carried]
        prompts, passed_over = self._prompts(max(wanted + tail.extra_prompts - len(kept), 0))
        started = [*kept, *map(StartedPrompt, self.rewrite(prompts, seed) if prompts else ())]
        seconds["rollout"] += time.perf_counter() - start
        collection = self._collection(started, seed, enough=wanted)
        scoring = self._scored(((index, own) for index, own in collection if own), seconds)
        self._tell_dropped(collection, passed_over)
        rest = collection.rest if tail.rest == "continue" else ()
        metrics = {
            "prompts_carried": float(len(rest)),
            "tokens_carried": float(sum(map(_num_tokens, rest))),
            "prompts_aborted": float(len(collection.rest) - len(rest)),
            "tokens_aborted": float(sum(map(_num_tokens, collection.rest)) - sum(map(_num_tokens, rest))),
            "tokens_too_stale": float(sum(map(_num_tokens, carried)) - sum(map(_num_tokens, kept))),
        }
        return scoring, passed_over, rest, metrics

    def _with_signal(
        self, scored: Sequence[ScoredTrajectory], seed: int, seconds: dict[str, float]
    ) -> tuple[Sequence[ScoredTrajectory], dict[str, float]]:
        """What is learned from: with refill_rounds, groups whose rewards differ, filled up by new prompts.

        All metrics of reward and length stay those of the first prompts, which nobody chose. Where no group at all has
        a signal, these are learned from as they are.

        Source: DAPO's dynamic sampling, https://arxiv.org/abs/2503.14476, sec. 3.2.
        """
        stage = self.stage
        rounds = stage.algorithm.refill_rounds
        if not rounds:
            return scored, {}
        kept = groups_that_differ(scored)
        metrics = {"signal_share": len(kept) / len(scored), "refill_rounds": 0.0}
        for number in range(1, rounds + 1):
            missing = stage.prompts_per_iteration - len({item.trajectory.prompt.prompt_id for item in kept})
            if missing <= 0:
                break
            # Between the seeds of two iterations there is room for these.
            more, _ = self._sampled(missing, seed + number, seconds)
            kept += groups_that_differ(more.scored)
            metrics["refill_rounds"] = float(number)
        return kept or scored, metrics

    def _prompts(self, wanted: int) -> tuple[list[TokenizedPrompt], Counter[str]]:
        """The next prompts, and how many were passed over: no room for a response, or an image cannot be read."""
        room = self.max_model_len - self.stage.sampling.max_tokens
        prompts: list[TokenizedPrompt] = []
        passed_over: Counter[str] = Counter()
        while len(prompts) < wanted:
            try:
                prompt = tokenized(self.tokenizer, to_prompt(*self.stream.take(1)[0]))
            except ImageError as error:
                passed_over["prompts_unreadable"] += 1
                if passed_over["prompts_unreadable"] > _MAX_PASSED_OVER * wanted:
                    raise RunFailed(f"the images of nearly all prompts cannot be read; the last one: {error}") from None
                continue
            if len(prompt.token_ids) <= room:
                prompts.append(prompt)
            else:
                passed_over["prompts_too_long"] += 1
            if passed_over["prompts_too_long"] > _MAX_PASSED_OVER * wanted:
                raise RunFailed(
                    f"{passed_over['prompts_too_long']} prompts of one iteration are longer than the {room} tokens "
                    f"that engine.max_model_len {self.max_model_len} and sampling.max_tokens "
                    f"{self.stage.sampling.max_tokens} leave"
                )
        return prompts, passed_over


def _without_old_tokens(one: StartedPrompt, *, oldest: int) -> StartedPrompt:
    """Samples with a token of a version before `oldest` begin anew."""
    finished = {sample: own for sample, own in one.finished.items() if own.versions.min(initial=oldest) >= oldest}
    begun = {sample: own for sample, own in one.begun.items() if own.versions.min(initial=oldest) >= oldest}
    return replace(one, finished=finished, begun=begun)


def _num_tokens(one: StartedPrompt) -> int:
    finished, begun = one.finished.values(), one.begun.values()
    return sum(len(own.token_ids) for own in finished) + sum(len(own.token_ids) for own in begun)


def groups_that_differ(scored: Sequence[ScoredTrajectory]) -> list[ScoredTrajectory]:
    """The trajectories of prompts whose samples do not all have the same reward."""
    rewards: dict[str, set[float]] = {}
    for item in scored:
        rewards.setdefault(item.trajectory.prompt.prompt_id, set()).add(item.reward)
    return [item for item in scored if len(rewards[item.trajectory.prompt.prompt_id]) > 1]


def as_sampling(section: SamplingSection) -> Sampling:
    """A recipe's sampling section as the engines take it."""
    return Sampling(section.temperature, section.top_p, section.top_k, section.max_tokens, tuple(section.stop))


def iteration_seed(seed: int, index: int) -> int:
    """Seed of an iteration: the state of every generator is this and nothing else."""
    return (seed * 1_000_003 + index * 10_007) % 2**31
