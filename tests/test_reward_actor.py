"""Rewards in real Ray actors keep the contract of the worker pool."""

import os

import pytest
from fakes import tiny_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rewards.worker import RewardLoadError
from rl.cluster import ray_cluster
from rl.recipe import RaySection, RewardSection
from rl.reward_pools import RewardPools

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

REWARD = """
import os, time

def odd(completions, **columns):
    if "hang" in completions:
        time.sleep(900)
    if "die" in completions:
        os._exit(3)
    if "raise" in completions:
        raise ValueError("no")
    return [float(len(c)) for c in completions]

def pid(completions, **columns):
    return [float(os.getpid()) for _ in completions]

def broken():
    raise RuntimeError("cannot load")
"""


@pytest.fixture(scope="module")
def pools():
    with RewardPools({}) as pools, ray_cluster(RaySection(object_store_gb=0.1), num_cpus=3):
        yield pools


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("reward") / "odd.py"
    path.write_text(REWARD)
    return path


def pool_of(pools, fn, **changes):
    return pools.get(RewardSection.model_validate({"fn": str(fn), "actor": {"cpus": 0.5}, "timeout_s": 10, **changes}))


def test_only_the_bad_rows_of_a_call_fail_and_the_actor_is_replaced(pools, file):
    pool = pool_of(pools, f"{file}:odd")
    completions = ["a", "hang", "bb", "die", "raise", "ccc"]
    results = pool.score(["q"] * 6, completions, {})
    assert [r.value for r in results] == [1.0, None, 2.0, None, None, 3.0]
    assert [str(r.status) for r in results] == ["ok", "timeout", "ok", "error", "error", "ok"]
    assert "ValueError: no" in results[4].message


def test_it_runs_in_another_process(pools, file):
    (result,) = pool_of(pools, f"{file}:pid").score(["q"], ["c"], {})
    assert result.value != os.getpid()


def test_a_reward_that_cannot_be_loaded_is_told(pools, file):
    with pytest.raises(RewardLoadError, match="cannot load"):
        pool_of(pools, f"{file}:broken").score(["q"], ["c"], {})


def test_an_actor_that_the_cluster_has_no_room_for_is_told(pools, file, monkeypatch):
    from rl.reward_model import actor as reward_actor

    section = RewardSection.model_validate({"fn": "x", "actor": {"cpus": 99}})
    worker = reward_actor.ActorWorker(f"{file}:pid", {}, section.actor, 1.0)
    with pytest.raises(RewardLoadError, match="has no room for it"):
        worker.wait_ready()
    worker.discard()


def test_a_reward_model_in_an_actor_scores_as_in_this_process(pools, tmp_path):
    from rewards import load_reward

    policy = tiny_model(tmp_path / "policy")
    AutoModelForSequenceClassification.from_pretrained(policy, num_labels=1).save_pretrained(tmp_path / "rm")
    AutoTokenizer.from_pretrained(policy).save_pretrained(tmp_path / "rm")
    args = {"model": str(tmp_path / "rm"), "device": "cpu"}
    pool = pool_of(pools, "preference", args=args, timeout_s=60)
    prompts, completions = ["a:", "b:", "c:"], ["one", "three", "!"]
    here = load_reward("preference", **args)(prompts=prompts, completions=completions)
    assert [r.value for r in pool.score(prompts, completions, {})] == pytest.approx(here, abs=1e-6)
