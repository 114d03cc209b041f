"""Held-out measurements of a run: accuracy, win rate against the start of a stage, and what one PaCoRe round buys."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rl.gui.episodes import EpisodeCollector
from rl.inference.voting import elected_message
from rl.intervals import mean_interval, standard_error, wilson
from rl.recipe import EvaluationSection, SynthesisSection
from rl.rollout import as_sampling
from rl.scoring import ScoredTrajectory, Scorer
from rollouts.collect import Collect, TokenizedPrompt, collect, tokenized
from rollouts.engine import Engine
from rollouts.pacore import compact, synthesis_prompt
from rollouts.processing import Processing
from rollouts.trajectory import Prompt, Trajectory, prompt_id_of


@dataclass(frozen=True)
class Measurement:
    """One held-out set at one moment."""

    score: float
    """accuracy, win rate or mean reward, as the recipe says; of the synthesis where one is measured"""
    rewards: Mapping[str, float]
    """mean reward by prompt_id, to compare with at the end of the next stage"""
    details: Mapping[str, float]


@dataclass(frozen=True)
class HeldOutSet:
    """A held-out set of the recipe with its prompts and rewards."""

    section: EvaluationSection
    prompts: Sequence[Prompt]
    scorer: Scorer
    max_model_len: int
    """tokens of prompt and response together"""

    def measure(
        self, engine: Engine, tokenizer: Processing, *, seed: int, before: Measurement | None
    ) -> Measurement:
        """Samples and grades. `before` is the same set at the start of the stage, which win_rate compares with."""
        section = self.section
        sample: Collect = collect
        if section.episodes is not None:
            sample = EpisodeCollector(section.episodes, tokenizer, self.max_model_len)
        trajectories = sample(
            engine,
            [tokenized(tokenizer, prompt) for prompt in self.prompts],
            samples_per_prompt=section.synthesis.width if section.synthesis else section.samples_per_prompt,
            sampling=as_sampling(section.sampling),
            seed=seed,
        )
        scored = self.scorer.score(trajectories).scored
        if section.synthesis is not None:
            return self._synthesis(section.synthesis, scored, engine, tokenizer, seed=seed)
        rewards = mean_reward_by_prompt(scored)
        score = self._score(scored, rewards, before)
        details = {**_details(scored, section.success), **self._certainty(scored, rewards, before, score)}
        return Measurement(score, rewards, details)

    def _score(
        self, scored: Sequence[ScoredTrajectory], rewards: Mapping[str, float], before: Measurement | None
    ) -> float:
        if self.section.measure == "accuracy":
            return sum(item.reward >= self.section.success for item in scored) / len(scored)
        if self.section.measure == "mean_reward":
            return sum(rewards.values()) / len(rewards)
        return 0.5 if before is None else win_rate(rewards, before.rewards)

    def _certainty(
        self,
        scored: Sequence[ScoredTrajectory],
        rewards: Mapping[str, float],
        before: Measurement | None,
        score: float,
    ) -> dict[str, float]:
        """Standard error of the score over prompts (samples of one prompt are not independent), and its 95% interval.

        A tie of a win rate is no more certain than a win, so its interval is that of as many wins, if anything wide.
        """
        by_prompt = list(rewards.values())
        if self.section.measure == "accuracy":
            by_prompt = list(_success_by_prompt(scored, self.section.success).values())
        elif self.section.measure == "win_rate":
            by_prompt = outcomes(rewards, before.rewards) if before else []
        low, high = (score, score) if not by_prompt else mean_interval(by_prompt)
        if self.section.measure != "mean_reward" and by_prompt:
            low, high = wilson(score, len(by_prompt))
        return {"standard_error": standard_error(by_prompt), "score_low": low, "score_high": high}

    def _synthesis(
        self,
        synthesis: SynthesisSection,
        scored: Sequence[ScoredTrajectory],
        engine: Engine,
        tokenizer: Processing,
        *,
        seed: int,
    ) -> Measurement:
        """One synthesis per problem from the `width` messages that the policy has just written.

        The details compare it with one sample and with majority vote on the same messages.
        """
        messages: dict[str, list[tuple[str, float]]] = {}
        for item in scored:
            conclusion = compact(item.trajectory.completion, conclusion=synthesis.conclusion)
            messages.setdefault(item.trajectory.prompt.prompt_id, []).append((conclusion, item.reward))
        prompts = [
            self._fitting(prompt, messages[prompt.prompt_id], tokenizer, random.Random(f"{seed} {index}"))
            for index, prompt in enumerate(self.prompts)
            if prompt.prompt_id in messages
        ]
        sampling = replace(as_sampling(self.section.sampling), max_tokens=synthesis.max_tokens)
        answers = collect(engine, prompts, samples_per_prompt=1, sampling=sampling, seed=seed + 1)
        graded = self.scorer.score(answers).scored
        right = [item.reward >= self.section.success for item in graded]
        score, numbers = _share(right), _synthesis_numbers(messages, graded, self.section.success)
        low, high = wilson(score, len(right)) if right else (score, score)
        certainty = {"standard_error": standard_error(right), "score_low": low, "score_high": high}
        return Measurement(score=score, rewards={}, details=numbers | certainty)

    def _fitting(
        self,
        problem: Prompt,
        answers: Sequence[tuple[str, float]],
        tokenizer: Processing,
        rng: random.Random,
    ) -> TokenizedPrompt:
        """The synthesis prompt with as many of the shuffled messages as leave room for the response."""
        synthesis = self.section.synthesis
        assert synthesis is not None
        messages = [conclusion for conclusion, _ in answers]
        rng.shuffle(messages)
        while True:
            prompt = tokenized(tokenizer, _synthesis_of(problem, messages, synthesis))
            if not messages or len(prompt.token_ids) + synthesis.max_tokens <= self.max_model_len:
                return prompt
            messages.pop()


def _synthesis_numbers(
    messages: Mapping[str, Sequence[tuple[str, float]]], graded: Sequence[ScoredTrajectory], success: float
) -> dict[str, float]:
    """What one sample and majority vote reach on the same messages, and how often a synthesis is right without them.

    `messages` holds (conclusion, reward) of each answer by prompt_id; `graded` the syntheses.
    """
    right = {key: [reward >= success for _, reward in answers] for key, answers in messages.items()}
    emergent = [
        item.reward >= success
        for item in graded
        if not any(right[str(item.trajectory.prompt.columns["problem_id"])])
    ]
    return {
        "single_sample": _share([hit for hits in right.values() for hit in hits]),
        "majority_vote": _share([_majority_right(messages[key], hits) for key, hits in right.items()]),
        "any_right": _share([any(hits) for hits in right.values()]),
        "emergent_correctness_rate": _share(emergent),
        "problems_without_right_message": float(len(emergent)),
        "completion_tokens_mean": _mean_tokens([item.trajectory for item in graded]),
    }


def _majority_right(answers: Sequence[tuple[str, float]], hits: Sequence[bool]) -> bool:
    return hits[elected_message([conclusion for conclusion, _ in answers])]


def win_rate(after: Mapping[str, float], before: Mapping[str, float]) -> float:
    """Share of prompts on which `after` has the higher reward; a tie counts half. 0.5 where none is in both."""
    won = outcomes(after, before)
    return sum(won) / len(won) if won else 0.5


def outcomes(after: Mapping[str, float], before: Mapping[str, float]) -> list[float]:
    """1 for each prompt on which `after` has the higher reward, 0.5 for a tie, 0 for a loss."""
    return [(after[key] > before[key]) + 0.5 * (after[key] == before[key]) for key in after if key in before]


def _success_by_prompt(scored: Sequence[ScoredTrajectory], success: float) -> dict[str, float]:
    hits: dict[str, list[bool]] = {}
    for item in scored:
        hits.setdefault(item.trajectory.prompt.prompt_id, []).append(item.reward >= success)
    return {key: _share(own) for key, own in hits.items()}


def mean_reward_by_prompt(scored: Sequence[ScoredTrajectory]) -> dict[str, float]:
    """Mean over the samples of each prompt, by the identity of the problem."""
    by_prompt: dict[str, list[float]] = {}
    for item in scored:
        by_prompt.setdefault(item.trajectory.prompt.prompt_id, []).append(item.reward)
    return {key: sum(values) / len(values) for key, values in by_prompt.items()}


def _synthesis_of(problem: Prompt, messages: Sequence[str], synthesis: SynthesisSection) -> Prompt:
    content = synthesis_prompt(problem.content, messages, template=synthesis.template)
    columns = {**problem.columns, "problem_id": problem.prompt_id}
    return replace(problem, prompt_id=prompt_id_of(content), content=content, columns=columns)


def _details(scored: Sequence[ScoredTrajectory], success: float) -> dict[str, float]:
    return {
        "reward_mean": sum(item.reward for item in scored) / len(scored),
        "accuracy": _share([item.reward >= success for item in scored]),
        "completion_tokens_mean": _mean_tokens([item.trajectory for item in scored]),
    }


def _share(hits: Sequence[bool]) -> float:
    return sum(hits) / len(hits) if hits else 0.0


def _mean_tokens(trajectories: Sequence[Trajectory]) -> float:
    return sum(t.num_sampled_tokens for t in trajectories) / max(len(trajectories), 1)
