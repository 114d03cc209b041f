"""Held-out measurements: accuracy, win rate against the start of a stage, and what one PaCoRe round buys."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from rl.loop import as_sampling
from rl.recipe import EvaluationSection, SynthesisSection
from rl.scoring import ScoredTrajectory, Scorer
from rollouts.collect import collect
from rollouts.engine import Engine
from rollouts.pacore import compact, majority, synthesis_prompt
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

    def measure(
        self, engine: Engine, tokenizer: PreTrainedTokenizerBase, *, seed: int, before: Measurement | None
    ) -> Measurement:
        """Samples and grades. `before` is the same set at the start of the stage, which win_rate compares with."""
        section = self.section
        trajectories = collect(
            engine,
            tokenizer,
            self.prompts,
            samples_per_prompt=section.synthesis.width if section.synthesis else section.samples_per_prompt,
            sampling=as_sampling(section.sampling),
            seed=seed,
        )
        scored = self.scorer.score(trajectories).scored
        if section.synthesis is not None:
            return self._synthesis(section.synthesis, scored, engine, tokenizer, seed=seed)
        rewards = mean_reward_by_prompt(scored)
        return Measurement(self._score(scored, rewards, before), rewards, _details(scored, section.success))

    def _score(
        self, scored: Sequence[ScoredTrajectory], rewards: Mapping[str, float], before: Measurement | None
    ) -> float:
        if self.section.measure == "accuracy":
            return sum(item.reward >= self.section.success for item in scored) / len(scored)
        if self.section.measure == "mean_reward":
            return sum(rewards.values()) / len(rewards)
        return 0.5 if before is None else win_rate(rewards, before.rewards)

    def _synthesis(
        self,
        synthesis: SynthesisSection,
        scored: Sequence[ScoredTrajectory],
        engine: Engine,
        tokenizer: PreTrainedTokenizerBase,
        *,
        seed: int,
    ) -> Measurement:
        """One synthesis per problem from its `width` answers; also one sample and majority vote on the same answers."""
        by_prompt: dict[str, list[ScoredTrajectory]] = {}
        for item in scored:
            by_prompt.setdefault(item.trajectory.prompt.prompt_id, []).append(item)
        rng = random.Random(seed)
        prompts = [_synthesis_of(items, synthesis, rng) for items in by_prompt.values()]
        sampling = replace(as_sampling(self.section.sampling), max_tokens=synthesis.max_tokens)
        answers = collect(engine, tokenizer, prompts, samples_per_prompt=1, sampling=sampling, seed=seed + 1)
        graded = self.scorer.score(answers).scored
        success = self.section.success
        details = {
            "single_sample": sum(item.reward >= success for item in scored) / len(scored),
            "majority_vote": _majority_accuracy(list(by_prompt.values()), synthesis, success),
            "any_right": _share([any(i.reward >= success for i in items) for items in by_prompt.values()]),
            "completion_tokens_mean": _mean_tokens([item.trajectory for item in graded]),
            **_emergent(by_prompt, graded, success),
        }
        accuracy = _share([item.reward >= success for item in graded])
        return Measurement(accuracy, mean_reward_by_prompt(graded), details)


def win_rate(after: Mapping[str, float], before: Mapping[str, float]) -> float:
    """Share of prompts on which `after` has the higher reward; a tie counts half. 0.5 where none is in both."""
    both = [(after[key], before[key]) for key in after if key in before]
    return sum((a > b) + 0.5 * (a == b) for a, b in both) / len(both) if both else 0.5


def mean_reward_by_prompt(scored: Sequence[ScoredTrajectory]) -> dict[str, float]:
    """Mean over the samples of each prompt, by the identity of the problem."""
    by_prompt: dict[str, list[float]] = {}
    for item in scored:
        by_prompt.setdefault(item.trajectory.prompt.prompt_id, []).append(item.reward)
    return {key: sum(values) / len(values) for key, values in by_prompt.items()}


def _synthesis_of(items: Sequence[ScoredTrajectory], synthesis: SynthesisSection, rng: random.Random) -> Prompt:
    problem = items[0].trajectory.prompt
    messages = [compact(item.trajectory.completion, conclusion=synthesis.conclusion) for item in items]
    rng.shuffle(messages)
    content = synthesis_prompt(problem.content, messages, template=synthesis.template)
    columns = {**problem.columns, "problem_id": problem.prompt_id}
    return replace(problem, prompt_id=prompt_id_of(content), content=content, columns=columns)


def _majority_accuracy(
    groups: Sequence[Sequence[ScoredTrajectory]], synthesis: SynthesisSection, success: float
) -> float:
    """Accuracy of the most frequent conclusion of each problem."""
    hits: list[bool] = []
    for items in groups:
        conclusions = [compact(item.trajectory.completion, conclusion=synthesis.conclusion) for item in items]
        winner = conclusions.index(majority(conclusions))
        hits.append(items[winner].reward >= success)
    return _share(hits)


def _emergent(
    by_prompt: Mapping[str, Sequence[ScoredTrajectory]], graded: Sequence[ScoredTrajectory], success: float
) -> dict[str, float]:
    """Right although every message is wrong."""
    hits = [
        item.reward >= success
        for item in graded
        if all(m.reward < success for m in by_prompt[str(item.trajectory.prompt.columns["problem_id"])])
    ]
    return {"emergent_correctness_rate": _share(hits), "problems_without_right_message": float(len(hits))}


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
