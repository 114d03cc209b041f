"""From trajectories to scored trajectories: calls rewards, applies weights and the failure policy.

A failed reward is never a silent 0: it is counted by reward and status, its text is kept, and what becomes of
the trajectory is what the recipe says.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from rewards.result import PartialRewards, RewardResult
from rewards.scale import RunningScale, Scale
from rewards.worker import RewardLoadError
from rl.errors import RunFailed
from rl.recipe import RewardSection
from rl.reward_pools import RewardPools
from rollouts.trajectory import Trajectory


@dataclass(frozen=True)
class ScoredTrajectory:
    """A trajectory with its reward."""

    trajectory: Trajectory
    reward: float
    """weighted sum of the rewards that apply, normalised where the recipe says so and they are learned from"""
    terms: Mapping[str, float]
    """unweighted value by reward label, of those that apply"""
    partial: PartialRewards = ()
    """the parts of `reward` that were earned on the way; the rest belongs to the last sampled token"""


@dataclass(frozen=True)
class Failure:
    """One reward that had no value for one trajectory."""

    reward: str
    status: str
    message: str
    prompt_id: str
    completion: str


@dataclass(frozen=True)
class Scoring:
    """What became of one iteration's trajectories."""

    scored: Sequence[ScoredTrajectory]
    """in the order of the trajectories, without those that were dropped"""
    num_dropped: int
    failures: Sequence[Failure]
    metrics: Mapping[str, float]
    """mean of each term and of what reward functions logged, and failures by reward and status"""


class Scorer:
    """The rewards of one stage or held-out set."""

    def __init__(
        self,
        sections: Sequence[RewardSection],
        pools: RewardPools,
        *,
        keep_failure: Callable[[Failure], None] = lambda failure: None,
        on_span: Callable[[str, float, float], None] = lambda reward, began, ended: None,
    ) -> None:
        """`on_span`: told of each stretch in which a reward was computed, in seconds since the epoch."""
        self._sections = {section.label: section for section in sections}
        self._pools = {section.label: pools.get(section) for section in sections}
        self._keep_failure = keep_failure
        self._on_span = on_span
        self._scales = {label: RunningScale() for label, section in self._sections.items() if section.normalise}

    def state(self) -> dict[str, dict[str, float]]:
        """The running scales, by label of their reward."""
        return {label: asdict(scale) for label, scale in self._scales.items()}

    def load_state(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Continues with the scales of `state`; those that it lacks begin anew."""
        self._scales = {label: RunningScale(**state.get(label, {})) for label in self._scales}

    def score(self, trajectories: Sequence[Trajectory], *, to_learn: bool = False) -> Scoring:
        """Scores all trajectories with all rewards that apply, the rewards side by side.

        Args:
            to_learn: rewards are normalised as the recipe says, by scales that first take these trajectories in.

        Raises:
            RunFailed: a reward failed on a larger share of its rows than max_failure_rate,
                or failed at all where on_error is abort, or could not be loaded.
        """
        return self.score_chunks([(0, trajectories)], to_learn=to_learn)

    def score_chunks(
        self, chunks: Iterable[tuple[int, Sequence[Trajectory]]], *, to_learn: bool = False
    ) -> Scoring:
        """The same for trajectories that come chunk by chunk: each is scored while the next is waited for.

        Args:
            chunks: (place, trajectories). What comes out is in the order of the places, whichever came first.
        """
        arrived: list[tuple[int, Sequence[Trajectory], dict[str, Future[dict[int, RewardResult]]]]] = []
        with contextlib.ExitStack() as stack:
            threads = {label: stack.enter_context(ThreadPoolExecutor(1)) for label in self._pools}
            for place, chunk in chunks:
                futures = {label: threads[label].submit(self._results, label, chunk) for label in self._pools}
                arrived.append((place, chunk, futures))
        trajectories: list[Trajectory] = []
        results: dict[str, dict[int, RewardResult]] = {label: {} for label in self._pools}
        for _, chunk, futures in sorted(arrived, key=lambda one: one[0]):
            try:
                for label, future in futures.items():
                    own = future.result().items()
                    results[label].update({len(trajectories) + index: result for index, result in own})
            except RewardLoadError as error:
                raise RunFailed(str(error)) from error
            trajectories += chunk
        failures = [failure for label in results for failure in _failures(label, results[label], trajectories)]
        for failure in failures:
            self._keep_failure(failure)
        for label, section in self._sections.items():
            _enforce(section, results[label])
        return self._combined(trajectories, results, failures, self._new_scales(results) if to_learn else {})

    def _new_scales(self, results: Mapping[str, Mapping[int, RewardResult]]) -> dict[str, Scale]:
        """The scales after these results too."""
        return {
            label: scale.update([result.value for result in results[label].values() if result.value is not None])
            for label, scale in self._scales.items()
        }

    def _results(self, label: str, trajectories: Sequence[Trajectory]) -> dict[int, RewardResult]:
        """Result by index of the trajectory, for those that the reward applies to."""
        applicable = [
            index
            for index, trajectory in enumerate(trajectories)
            if not trajectory.prompt.reward_names or label in trajectory.prompt.reward_names
        ]
        if not applicable:
            return {}
        rows = [trajectories[index] for index in applicable]
        began = time.time()
        results = self._pools[label].score(
            [row.prompt.content for row in rows],
            [as_completion(row) for row in rows],
            _columns(rows),
            completion_ids=[row.token_ids[row.action_mask].tolist() for row in rows],
        )
        self._on_span(label, began, time.time())
        return dict(zip(applicable, results))

    def _combined(
        self,
        trajectories: Sequence[Trajectory],
        results: Mapping[str, Mapping[int, RewardResult]],
        failures: Sequence[Failure],
        scales: Mapping[str, Scale],
    ) -> Scoring:
        scored: list[ScoredTrajectory] = []
        moved: list[dict[str, float]] = []
        for index, trajectory in enumerate(trajectories):
            own = {label: by_index[index] for label, by_index in results.items() if index in by_index}
            terms = self._terms(own)
            if terms is not None:
                parts = self._parts(terms, scales)
                moved.append(parts)
                partial = self._partial(own, scales)
                scored.append(ScoredTrajectory(trajectory, sum(parts.values()), terms, partial))
        if not scored:
            raise RunFailed("no trajectory of this iteration has a reward: every reward failed or did not apply")
        dropped = len(trajectories) - len(scored)
        metrics = {**_metrics(scored, dropped, results, failures), **_term_shares(moved)}
        for label, scale in scales.items():
            metrics |= {f"reward/{label}/running_mean": scale.mean, f"reward/{label}/running_std": scale.std}
        return Scoring(scored, dropped, failures, metrics)

    def _parts(self, terms: Mapping[str, float], scales: Mapping[str, Scale]) -> dict[str, float]:
        """What each term adds to the reward."""
        parts: dict[str, float] = {}
        for label, value in terms.items():
            section = self._sections[label]
            if label in scales and section.normalise is not None:
                bound = section.normalise.clip or math.inf
                value = max(-bound, min(bound, scales[label](value)))
            parts[label] = section.weight * value
        return parts

    def _partial(self, own: Mapping[str, RewardResult], scales: Mapping[str, Scale]) -> PartialRewards:
        """Partial rewards of all terms, weighted and scaled like these; what a mean or a bound changes comes last."""
        scaled: dict[int, float] = {}
        for label, result in own.items():
            factor = self._sections[label].weight / (scales[label].std if label in scales else 1.0)
            for index, reward in result.partial:
                scaled[index] = scaled.get(index, 0.0) + factor * reward
        return tuple(sorted(scaled.items()))

    def _terms(self, own: Mapping[str, RewardResult]) -> dict[str, float] | None:
        """Value by label, or None where the trajectory is dropped: a reward failed, or none applies."""
        terms: dict[str, float] = {}
        for label, result in own.items():
            if result.failed:
                if self._sections[label].on_error == "drop":
                    return None
                terms[label] = 0.0
            elif result.value is not None:
                terms[label] = result.value
        return terms or None


def as_completion(trajectory: Trajectory) -> object:
    """Text for a text prompt, the assistant's turn for a conversation: TRL's two forms."""
    if trajectory.turns:
        return [{"role": "assistant", "content": turn} for turn in trajectory.turns]
    if isinstance(trajectory.prompt.content, str):
        return trajectory.completion
    return [{"role": "assistant", "content": trajectory.completion}]


def _columns(rows: Sequence[Trajectory]) -> dict[str, list[object]]:
    """Dataset columns aligned with the rows, None where a row of another source lacks the column; and finish_reason."""
    names = {name for row in rows for name in row.prompt.columns}
    reasons: list[object] = [str(row.finish_reason) for row in rows]
    return {"finish_reason": reasons} | {name: [row.prompt.columns.get(name) for row in rows] for name in sorted(names)}


def _failures(
    label: str, results: Mapping[int, RewardResult], trajectories: Sequence[Trajectory]
) -> list[Failure]:
    return [
        Failure(label, str(result.status), result.message, trajectories[i].prompt.prompt_id, trajectories[i].completion)
        for i, result in results.items()
        if result.failed
    ]


def _enforce(section: RewardSection, results: Mapping[int, RewardResult]) -> None:
    failed = [result for result in results.values() if result.failed]
    if not failed:
        return
    counts = Counter(str(result.status) for result in failed)
    told = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    summary = f"reward {section.label!r} failed on {len(failed)} of {len(results)} rows ({told}); {failed[0].message}"
    if section.on_error == "abort":
        raise RunFailed(f"{summary}. on_error is abort")
    if len(failed) > section.max_failure_rate * len(results):
        raise RunFailed(f"{summary}. max_failure_rate is {section.max_failure_rate:g}")


def _term_shares(moved: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """How much of what moves the reward comes from each term: its part of the sum of absolute values."""
    sizes: Counter[str] = Counter()
    for parts in moved:
        sizes.update({label: abs(part) for label, part in parts.items()})
    total = sum(sizes.values())
    return {f"reward_share/{label}": size / total for label, size in sizes.items()} if total > 0 else {}


def _metrics(
    scored: Sequence[ScoredTrajectory],
    dropped: int,
    results: Mapping[str, Mapping[int, RewardResult]],
    failures: Sequence[Failure],
) -> dict[str, float]:
    metrics: dict[str, float] = {"reward_dropped": float(dropped)}
    for label, by_index in results.items():
        terms = [item.terms[label] for item in scored if label in item.terms]
        if terms:
            metrics[f"reward/{label}"] = sum(terms) / len(terms)
        logged: dict[str, list[float]] = {}
        for result in by_index.values():
            for name, value in result.metrics.items():
                logged.setdefault(name, []).append(value)
        metrics |= {f"reward/{label}/{name}": sum(values) / len(values) for name, values in logged.items()}
    for (label, status), count in Counter((failure.reward, failure.status) for failure in failures).items():
        metrics[f"reward_failures/{label}/{status}"] = float(count)
    return metrics

