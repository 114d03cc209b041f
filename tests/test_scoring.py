"""Scoring in a run: pools of workers, and what becomes of rows whose reward fails."""

import dataclasses
import json
import os
from pathlib import Path

import pytest
from fakes import trajectory

from rewards.worker import RewardPool
from rl.errors import RunFailed
from rl.recipe import RewardSection
from rl.reward_pools import RewardPools
from rl.scoring import Failure, Scorer

FUNCTIONS = Path(__file__).parent / "data" / "reward_functions.py"

PID = """
import os

def pid(completions, **columns):
    return [float(os.getpid()) for _ in completions]
"""


def pid_of(pool: RewardPool) -> int:
    (result,) = pool.score(["q"], ["c"], {})
    return int(result.value)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_equal_rewards_share_a_pool_and_a_pool_that_nothing_needs_ends(tmp_path):
    (tmp_path / "pid.py").write_text(PID)
    spec = f"{tmp_path}/pid.py:pid"
    shared, other = RewardSection(fn=spec), RewardSection(fn=spec, timeout_s=3.0)
    not_trained_yet = RewardSection(fn="preference", from_stage="preference")
    with RewardPools({}) as pools:
        assert pools.get(shared) is pools.get(RewardSection(fn=spec, weight=2.0))
        kept, ended = pools.get(shared), pools.get(other)
        first, second = pid_of(kept), pid_of(ended)
        assert first != second
        pools.keep([RewardSection(fn=spec, name="again"), not_trained_yet])
        assert (is_running(first), is_running(second)) == (True, False)
        assert pid_of(kept) == first
        with pytest.raises(RuntimeError, match="closed"):
            ended.score(["q"], ["c"], {})
        assert pid_of(pools.get(other)) not in (first, second)


def responses(*completions: str):
    return [dataclasses.replace(trajectory([1], [2]), completion=completion) for completion in completions]


def scored_with(completions, kept: list[Failure] | None = None, **options):
    section = RewardSection.model_validate(
        {"fn": f"{FUNCTIONS}:obey", "timeout_s": 60.0, "max_failure_rate": 1.0, **options}
    )
    with RewardPools({}) as pools:
        return Scorer([section], pools, keep_failure=(kept if kept is not None else []).append).score(
            responses(*completions)
        )


def test_a_row_whose_reward_failed_is_dropped_counted_and_kept_with_its_text():
    kept: list[Failure] = []
    scoring = scored_with(["1", "raise", "3", "nan", "none"], kept)
    assert [(item.trajectory.completion, item.reward) for item in scoring.scored] == [("1", 1.0), ("3", 3.0)]
    assert scoring.metrics["reward_dropped"] == 3.0  # two failed, to one the reward does not apply
    assert scoring.metrics["reward/obey"] == 2.0
    assert [(failure.status, failure.completion) for failure in kept] == [("error", "raise"), ("invalid", "nan")]
    assert kept[0].message.startswith("ValueError: a bad row")


def test_zero_counts_a_failed_row_as_zero_because_the_recipe_says_so():
    scoring = scored_with(["1", "raise"], on_error="zero", weight=2.0)
    assert [item.reward for item in scoring.scored] == [2.0, 0.0]


def test_abort_stops_the_run_at_the_first_failure():
    with pytest.raises(
        RunFailed, match=r"'obey' failed on 1 of 2 rows \(1 error\); ValueError: a bad row.*on_error is abort"
    ):
        scored_with(["1", "raise"], on_error="abort")


def test_more_failures_than_the_rate_allows_stop_the_run_and_as_many_do_not():
    assert len(scored_with(["1", "2", "3", "raise"], max_failure_rate=0.25).scored) == 3
    with pytest.raises(RunFailed, match=r"2 of 4 rows \(1 error, 1 timeout\).*max_failure_rate is 0.25"):
        scored_with(["1", "2", "hang", "raise"], max_failure_rate=0.25, timeout_s=3.0)


def test_values_outside_the_range_of_the_recipe_are_failures():
    with pytest.raises(RunFailed, match="1 invalid.*outside the range"):
        scored_with(["1", "50"], range=[0, 10], max_failure_rate=0.0)


def test_partial_rewards_are_weighted_and_scaled_like_their_reward():
    section = {"fn": f"{FUNCTIONS}:on_the_way"}
    rows = [dataclasses.replace(trajectory([1], [2, 3]), completion=text) for text in ("0", "1")]
    values = [dataclasses.replace(trajectory([1], [2, 3]), completion=text) for text in ("-4.0", "4.0")]
    with RewardPools({}) as pools:
        twice = [RewardSection(**section, weight=2.0), RewardSection(**section, name="again", weight=-1.0)]
        assert [item.partial for item in Scorer(twice, pools).score(rows).scored] == [((0, 0.5),), ((1, 0.5),)]
        scale = RewardSection(**section, weight=3.0, normalise={})
        scorer = Scorer([scale], pools)
        scorer.load_state({"on_the_way": {"count": 10**9, "mean": 1.0, "sum_of_squares": 4.0 * 10**9}})
        found = scorer.score(values, to_learn=True).scored
    # the running deviation is 2 and the mean 1: each value of 1 becomes 0, its parts 3 * -4 / 2 and 3 * 4 / 2
    assert [item.reward for item in found] == pytest.approx([0.0, 0.0], abs=1e-6)
    assert [[pytest.approx(-6.0)], [pytest.approx(6.0)]] == [[reward for _, reward in item.partial] for item in found]


def test_what_a_reward_logs_is_a_metric_of_the_iteration():
    with RewardPools({}) as pools:
        scoring = Scorer([RewardSection(fn=f"{FUNCTIONS}:logs")], pools).score(responses("abc", "z"))
    assert (scoring.metrics["reward/logs/half"], scoring.metrics["reward/logs/length"]) == (0.5, 2.0)


def test_a_normalised_reward_is_learned_from_on_its_running_scale_and_shown_as_it_is():
    # 0, 4: mean 2, std 2. Then 0, 4, 8, 8: mean 5, variance (25 + 1 + 9 + 9) / 4 = 11
    section = RewardSection.model_validate({"fn": f"{FUNCTIONS}:obey", "weight": 2.0, "normalise": {"clip": 0.95}})
    with RewardPools({}) as pools:
        scorer = Scorer([section], pools)
        first = scorer.score(responses("0", "4"), to_learn=True)
        assert [item.reward for item in first.scored] == [2.0 * -0.95, 2.0 * 0.95]  # -1 and 1, clipped
        assert [item.reward for item in scorer.score(responses("7")).scored] == [14.0]  # not learned from
        state = scorer.state()
        second = scorer.score(responses("8", "8"), to_learn=True)
        again = Scorer([section], pools)
        again.load_state(json.loads(json.dumps(state)))
        assert again.score(responses("8", "8"), to_learn=True).metrics == second.metrics
    assert second.scored[0].reward == pytest.approx(2.0 * 3 / 11**0.5)
    assert second.scored[0].terms == {"obey": 8.0}
    assert second.metrics["reward/obey"] == 8.0
    assert second.metrics["reward/obey/running_mean"] == 5.0
    assert second.metrics["reward/obey/running_std"] == pytest.approx(11**0.5)
