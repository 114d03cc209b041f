"""Estimators over several samples per problem, and how sure one can be of them. Pure functions."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

_SUBSETS = 400
_RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A mean over problems with its 95% bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def pass_at_k(num_samples: int, num_right: int, k: int) -> float:
    """Probability that at least one of k samples drawn without replacement is right: 1 - C(n-c, k) / C(n, k).

    Unbiased for the chance of k fresh samples, unlike 1 - (1 - c/n)^k.

    Raises:
        ValueError: k is not between 1 and num_samples.

    Source: Chen et al. 2021, https://arxiv.org/abs/2107.03374, eq. 1.
    """
    if not 1 <= k <= num_samples:
        raise ValueError(f"k is {k}; from 1 to the {num_samples} samples is allowed")
    return 1.0 - math.comb(num_samples - num_right, k) / math.comb(num_samples, k)


def majority_at_k(classes: Sequence[int | None], right: Sequence[bool], k: int, *, seed: int = 0) -> float:
    """Chance that a vote among k of the samples elects a right answer.

    The mean over all subsets of k, or over 400 random ones where there are more. Of classes that tie each is as
    likely to win. Samples of class None have no answer and do not vote; a vote without votes is lost.

    Args:
        classes: equal numbers for equal answers; see `voting.answer_classes`.
        right: whether each sample is right; a class that holds both counts with its share of right ones.

    Raises:
        ValueError: k is not between 1 and the number of samples.
    """
    n = len(classes)
    if not 1 <= k <= n:
        raise ValueError(f"k is {k}; from 1 to the {n} samples is allowed")
    if math.comb(n, k) <= _SUBSETS:
        subsets: list[Sequence[int]] = list(itertools.combinations(range(n), k))
    else:
        rng = np.random.default_rng(seed)
        subsets = [rng.choice(n, k, replace=False).tolist() for _ in range(_SUBSETS)]
    return sum(_vote(classes, right, subset) for subset in subsets) / len(subsets)


def _vote(classes: Sequence[int | None], right: Sequence[bool], subset: Sequence[int]) -> float:
    counts = Counter(classes[index] for index in subset if classes[index] is not None)
    if not counts:
        return 0.0
    most = max(counts.values())
    winners = [number for number, count in counts.items() if count == most]
    return sum(_share_right(classes, right, subset, number) for number in winners) / len(winners)


def _share_right(
    classes: Sequence[int | None], right: Sequence[bool], subset: Sequence[int], number: int | None
) -> float:
    members = [right[index] for index in subset if classes[index] == number]
    return sum(members) / len(members)


def bootstrap(values: Sequence[float], *, seed: int = 0) -> Estimate:
    """Mean and its 95% percentile interval from 2,000 resamples of the problems.

    Args:
        values: one number per problem, already averaged over its samples. Problems are what is drawn anew: samples
            of one problem are not independent of each other.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("an estimate needs at least one problem")
    numbers = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    means = np.concatenate(
        [
            numbers[rng.integers(len(numbers), size=(100, len(numbers)))].mean(axis=1)
            for _ in range(_RESAMPLES // 100)  # in parts, so that many problems need little memory
        ]
    )
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(float(numbers.mean()), float(low), float(high))


def over_problems(problems: Sequence[object], measure: Callable[[int], float]) -> Estimate:
    """Bootstrap of a measure of each problem, by its position."""
    return bootstrap([measure(index) for index in range(len(problems))])
