"""Kill -9, short. The long one, of every stage and all kinds of processes, is `python benchmarks/chaos.py`."""

import json
import random
import time
from pathlib import Path

import pytest

from benchmarks import chaos

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1800)]

GATE = Path(__file__).parent / "data" / "gate.py"
TINY = (
    *(text for text in chaos.SMALL if text.split(".")[1] in ("threads", "max_restarts", "object_store_gb", "checkpoint_every", "rollouts_per_iteration")),
    "engine.kind=hf",
    *(f"stages.{name}=null" for name in ("preference", "rlhf", "messages", "pacore")),
    *(f"evaluations.{name}=null" for name in ("screen", "requests", "synthesis")),
    "evaluations.addition.num_prompts=4",
    "evaluations.addition.rewards=[{fn: math, timeout_s: 600}]",
    "stages.sft.phases.0.steps=2",
    "stages.sft.phases.1.steps=2",
    "stages.rlvr.iterations=4",
    "stages.rlvr.prompts_per_iteration=4",
    "stages.rlvr.prompts=[{source: {task: addition}}]",
)


def test_a_run_that_is_killed_again_and_again_ends_like_one_that_is_not(tmp_path):
    """The kills of the plan come while rewards are computed, where the run waits for them: on any machine each of them
    comes. Those at random moments come as the machine has it.
    """
    gate = tmp_path / "gate"
    rewards = f"[{{fn: math, timeout_s: 600}}, {{fn: '{GATE}:gate', args: {{folder: {gate}}}, timeout_s: 1800}}]"
    overrides = (*TINY, f"stages.rlvr.rewards={rewards}")
    chaos.straight_run(tmp_path / "straight", overrides)
    told: list[str] = []
    disturbed = chaos.Chaos(tmp_path / "disturbed", overrides, ["driver", "engine"], random.Random(), told.append)
    gate.mkdir()
    plan = ["driver", "engine", "driver SIGTERM", "reward", "raylet"]
    while plan:
        driver = disturbed.start()
        while plan and waits(gate, driver):
            name = plan.pop(0)
            disturbed.kill_all(name)
            for note in gate.glob("*.waiting"):
                note.unlink()
            if name.startswith("driver"):
                assert driver.wait(600) == (130 if name == "driver SIGTERM" else -9), told
        if not plan:
            (gate / "open").touch()
        assert disturbed.ended(driver) != (0 if plan else 2), told
    disturbed.run(num_kills=disturbed.num_kills + 1)
    assert disturbed.problems == [], told
    assert chaos.differences(tmp_path / "straight", tmp_path / "disturbed") == [], told


def waits(gate: Path, driver) -> bool:
    """Once a reward is held up: True; False where the driver has ended."""
    while driver.poll() is None:
        if any(gate.glob("*.waiting")):
            return True
        time.sleep(0.02)
    return False


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
