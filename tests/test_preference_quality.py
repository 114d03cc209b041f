"""Accuracy, intervals and calibration of a reward model, by numbers worked out by hand."""

import math
import random

import pytest

from rl.intervals import mean_interval, wilson
from rl.reward_model.quality import PairScores, calibration, quality, read_calibration, write_calibration


def differences(*values):
    return PairScores(tuple(values), (0.0,) * len(values))


def test_accuracy_counts_ties_half():
    numbers = quality(differences(1.0, 2.0, -1.0, 0.0))
    assert numbers["accuracy"] == 2.5 / 4
    # -log sigmoid of 1, 2, -1, 0
    expected = [math.log1p(math.exp(-1)), math.log1p(math.exp(-2)), math.log1p(math.exp(1)), math.log(2)]
    assert numbers["held_out_loss"] == pytest.approx(sum(expected) / 4)


def test_score_statistics_are_over_both_sides():
    numbers = quality(PairScores((1.0, 3.0), (-1.0, 1.0)))
    assert (numbers["score_mean"], numbers["score_std"]) == (1.0, pytest.approx(math.sqrt(2)))


def test_wilson_is_the_published_interval():
    # Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662; 0 of 20 gives 0 to 0.1611
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0.0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    with pytest.raises(ValueError, match=r"share 1\.5"):
        wilson(1.5, 3)


def test_intervals_cover_the_truth_about_19_times_in_20():
    rng = random.Random(0)
    covered = [0, 0]
    for _ in range(400):
        hits = [rng.random() < 0.9 for _ in range(200)]
        low, high = wilson(sum(hits) / 200, 200)
        covered[0] += low <= 0.9 <= high
        values = [rng.gauss(1.0, 2.0) for _ in range(200)]
        low, high = mean_interval(values)
        covered[1] += low <= 1.0 <= high
    assert all(0.92 < share / 400 < 0.98 for share in covered)


def test_pairs_are_binned_by_how_sure_the_model_is():
    # sigmoid(0) = 0.5 -> first bin; sigmoid(+-log 4) = 0.8 -> bin [0.8, 0.85), one of them wrong
    first, second = calibration(differences(0.0, math.log(4) + 1e-9, -math.log(4) - 1e-9))
    assert (first.low, first.confidence, first.accuracy, first.count) == (0.5, 0.5, 0.5, 1)
    assert (second.confidence, second.accuracy, second.count) == (pytest.approx(0.8), 0.5, 2)
    assert second.low <= 0.8 < second.high
    error = quality(differences(0.0, math.log(4), -math.log(4)))["calibration_error"]
    assert error == pytest.approx((0 + 2 * 0.3) / 3)


def test_a_model_that_knows_what_it_knows_has_no_calibration_error():
    rng = random.Random(1)
    drawn = []
    for _ in range(20_000):
        size = rng.expovariate(0.5)
        right = rng.random() < 1 / (1 + math.exp(-size))
        drawn.append(size if right else -size)
    assert quality(differences(*drawn))["calibration_error"] < 0.015


def test_huge_differences_are_no_overflow(tmp_path):
    scores = differences(1e6, -1e6)
    assert quality(scores)["held_out_loss"] == pytest.approx(5e5)
    write_calibration(tmp_path, scores)
    assert read_calibration(tmp_path) == calibration(scores)
