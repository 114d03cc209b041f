"""A warning when the proxy rises while gold falls, and none for noise."""

import random

from rl.over_optimisation import WatchPoint, first_finding, over_optimised, watch_points


def points(proxies, golds, error=0.03):
    return [WatchPoint(n + 1, 0.5 * n, p, g, error) for n, (p, g) in enumerate(zip(proxies, golds))]


def test_a_rising_proxy_over_a_falling_gold_is_named_with_both_moments():
    found = over_optimised(points([0, 1, 1.5, 1.8, 2.0], [0.5, 0.8, 0.7, 0.5, 0.3]), "preference", "requests")
    assert found is not None
    assert (found.best.iteration, found.now.iteration) == (2, 5)
    assert "'preference' rose from 1.000 to 2.000" in str(found)
    assert "'requests' fell from 0.800 to 0.300" in str(found)


def test_a_gold_that_rises_with_the_proxy_is_no_finding():
    assert over_optimised(points([0, 1, 1.5, 1.8], [0.5, 0.6, 0.7, 0.8]), "r", "g") is None


def test_a_gold_that_falls_with_the_proxy_is_another_problem():
    assert over_optimised(points([2, 1, 0.5, 0.2], [0.8, 0.6, 0.4, 0.2]), "r", "g") is None


def test_one_low_measurement_is_not_enough():
    # 3 * sqrt(2) * 0.03 = 0.127 is clearly: 0.8 -> 0.6 is, 0.8 -> 0.75 is not
    assert over_optimised(points([0, 1, 1.5, 1.8], [0.5, 0.8, 0.75, 0.6]), "r", "g") is None
    assert over_optimised(points([0, 1, 1.5, 1.8], [0.5, 0.8, 0.67, 0.6]), "r", "g") is not None


def test_a_stage_that_recovered_was_over_optimised_once():
    golds = [0.5, 0.8, 0.5, 0.4, 0.8, 0.85]
    found = first_finding(points([0, 1, 2, 3, 4, 5], golds), "r", "g")
    assert found is not None
    assert found.now.iteration == 4
    assert over_optimised(points([0, 1, 2, 3, 4, 5], golds), "r", "g") is None


def test_noise_around_a_flat_gold_rarely_warns():
    rng = random.Random(0)
    alarms = 0
    for _ in range(500):
        golds = [rng.gauss(0.7, 0.03) for _ in range(20)]
        alarms += first_finding(points(range(20), golds), "r", "g") is not None
    assert alarms / 500 < 0.03


def test_only_iterations_with_all_numbers_are_points():
    full = {"iteration": 3, "kl_ref_per_response": 2.0, "reward/r": 1.0, "held_out/g": 0.5, "held_out_error/g": 0.1}
    rows = [{"iteration": 0, "reward/r": 1.0}, full, {**full, "held_out/g": float("nan")}]
    assert watch_points(rows, "r", "g") == [WatchPoint(4, 2.0, 1.0, 0.5, 0.1)]
