"""Estimators against hand-worked numbers and slow oracles."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl.inference.accuracy import bootstrap, majority_at_k, pass_at_k
from rl.inference.voting import answer_classes, winner


def test_pass_at_k_by_hand():
    assert pass_at_k(4, 1, 2) == pytest.approx(0.5)  # C(3,2) / C(4,2) = 3/6 miss
    assert pass_at_k(5, 2, 3) == pytest.approx(0.9)  # C(3,3) / C(5,3) = 1/10 miss
    assert pass_at_k(4, 0, 4) == 0.0
    assert pass_at_k(4, 3, 2) == 1.0


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=9), st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(right, data):
    k = data.draw(st.integers(1, len(right)))
    subsets = list(itertools.combinations(right, k))
    assert pass_at_k(len(right), sum(right), k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_majority_by_hand():
    # a a b: pairs aa, ab, ab: right with 1, 1/2, 1/2.
    assert majority_at_k([0, 0, 1], [True, True, False], 2) == pytest.approx(2 / 3)
    assert majority_at_k([0, 0, 1], [True, True, False], 3) == 1.0
    assert majority_at_k([0, 0, 1], [False, False, True], 3) == 0.0
    # A response without an answer does not vote, and two of them do not outvote one that has one.
    assert majority_at_k([None, None, 1], [False, False, True], 3) == 1.0
    assert majority_at_k([None, None], [False, False], 2) == 0.0


@settings(deadline=None)
@given(st.lists(st.sampled_from([None, 0, 1, 2]), min_size=1, max_size=7), st.data())
def test_majority_of_one_is_the_mean_and_of_all_is_the_vote(classes, data):
    right_class = data.draw(st.sampled_from([0, 1, 2]))
    right = [number == right_class for number in classes]
    n = len(classes)
    assert majority_at_k(classes, right, 1) == pytest.approx(sum(right) / n)
    votes = [classes.count(number) for number in range(3)]
    won = [number for number in range(3) if votes[number] == max(votes) and votes[number]]
    assert majority_at_k(classes, right, n) == pytest.approx((right_class in won) / len(won) if won else 0.0)


def test_majority_of_many_subsets_is_estimated_closely():
    rng = random.Random(0)
    classes = [rng.choice([0, 0, 0, 1, 1, 2]) for _ in range(14)]
    right = [number == 1 for number in classes]
    # C(14, 7) = 3432 subsets are too many to try by default; the oracle tries them all.
    exact = np.mean([majority_at_k([classes[i] for i in s], [right[i] for i in s], 7) for s in itertools.combinations(range(14), 7)])
    assert majority_at_k(classes, right, 7) == pytest.approx(exact, abs=0.05)


def test_k_beyond_the_samples_is_refused():
    for estimator in (lambda: pass_at_k(3, 1, 4), lambda: majority_at_k([0], [True], 2), lambda: bootstrap([])):
        with pytest.raises(ValueError):
            estimator()


def test_the_interval_is_that_of_the_mean():
    # 400 coin tosses, p = 0.3: standard error sqrt(.3 * .7 / 400) = 0.0229, so 0.3 +- 1.96 * 0.0229 = 0.255, 0.345.
    estimate = bootstrap([1.0] * 120 + [0.0] * 280)
    assert estimate.value == pytest.approx(0.3)
    assert estimate.low == pytest.approx(0.255, abs=0.006)
    assert estimate.high == pytest.approx(0.345, abs=0.006)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        estimate = bootstrap((rng.random(60) < 0.5).astype(float).tolist())
        covered += estimate.low <= 0.5 <= estimate.high
    assert 0.88 <= covered / 200 <= 0.99


def test_equal_answers_are_one_class_by_mathematics_and_different_ones_by_text():
    responses = [r"\boxed{\frac{1}{2}}", "the answer is 0.5", r"\boxed{1/2}", r"\boxed{2}", "<think>half"]
    assert answer_classes(responses, responses, equality="math") == [0, 0, 0, 1, None]
    assert answer_classes(responses, ["a", "b", "a", "", "b"], equality="text") == [0, 1, 0, None, 1]


def test_the_winner_is_the_first_response_of_the_largest_class():
    assert winner([2, 0, 0, 2, None]) == 0
    assert winner([None, 1, 0, 0]) == 2
    assert winner([None, None]) == 0
