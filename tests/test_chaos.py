"""Kill -9 at random moments, short. The long one, of every stage, is `python benchmarks/chaos.py`."""

import json
import random

import pytest

from benchmarks import chaos

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1800)]

TINY = (
    *(text for text in chaos.SMALL if text.split(".")[1] in ("threads", "max_restarts", "object_store_gb", "checkpoint_every", "rollouts_per_iteration")),
    "engine.kind=hf",
    *(f"stages.{name}=null" for name in ("preference", "rlhf", "messages", "pacore")),
    *(f"evaluations.{name}=null" for name in ("screen", "requests", "synthesis")),
    "evaluations.addition.num_prompts=4",
    "stages.sft.phases.0.steps=2",
    "stages.sft.phases.1.steps=2",
    "stages.rlvr.iterations=3",
    "stages.rlvr.prompts_per_iteration=4",
)
TARGETS = ("driver", "engine", "reward", "raylet")


def test_a_run_that_is_killed_again_and_again_ends_like_one_that_is_not(tmp_path):
    chaos.straight_run(tmp_path / "straight", TINY)
    told = []
    disturbed = chaos.Chaos(tmp_path / "disturbed", TINY, TARGETS, random.Random(), told.append)
    disturbed.run(num_kills=5)
    assert disturbed.problems == [], told
    assert chaos.differences(tmp_path / "straight", tmp_path / "disturbed") == [], told
    assert sum(disturbed.kills.values()) == 5


@pytest.mark.slow
def test_every_kind_of_stage_survives(tmp_path):
    overrides = (*chaos.SMALL, "engine.kind=hf", "learner.ranks=1")
    chaos.straight_run(tmp_path / "straight", overrides)
    told = []
    targets = ("driver", "driver", "driver SIGTERM", "engine", "reward")
    disturbed = chaos.Chaos(tmp_path / "disturbed", overrides, targets, random.Random(), told.append)
    disturbed.run(num_kills=8)
    print(told, disturbed.exits)
    assert disturbed.problems == [], told
    assert chaos.differences(tmp_path / "straight", tmp_path / "disturbed") == [], told


def test_differences_between_runs_are_found(tmp_path):
    for name, reward in (("a", 1.0), ("b", 0.5)):
        folder = tmp_path / name
        (folder / "rollouts" / "rlvr").mkdir(parents=True)
        (folder / "metrics.jsonl").write_text(json.dumps({"iteration": 0, "time": reward, "reward_mean": reward}) + "\n")
        (folder / "state.json").write_text(json.dumps({"stages": {"sft": {"seconds": reward}}, "checksum": name}))
    (tmp_path / "a" / "rollouts" / "rlvr" / "iterations.jsonl").write_text("{}\n")
    assert chaos.differences(tmp_path / "a", tmp_path / "b") == [
        "metrics.jsonl: [('reward_mean', 1.0, 0.5)]",
        "rollouts/rlvr/iterations.jsonl: only in the straight run",
    ]
