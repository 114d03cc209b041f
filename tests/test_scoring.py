"""Pools of reward workers live as long as something needs them."""

import os

import pytest

from rewards.worker import RewardPool
from rl.recipe import RewardSection
from rl.scoring import RewardPools

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
