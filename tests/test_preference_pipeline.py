"""A preference_model stage in a real pipeline: from a file of messages to a served model, interrupted on the way."""

import json
import os
import signal

import pytest
from rich.console import Console

from rewards import load_reward
from rl.display import PlainDisplay
from rl.errors import Interrupted, UserError
from rl.pipeline import run_pipeline
from rl.recipe import Recipe
from rl.run_directory import RunDirectory

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]


class InterruptingDisplay(PlainDisplay):
    """Sends Ctrl-C after the second logged line."""

    lines = 0

    def iteration(self, index, metrics):
        self.lines += 1
        if self.lines == 2:
            os.kill(os.getpid(), signal.SIGINT)


class Remembering(PlainDisplay):
    """Knows the first step that was logged."""

    first = None

    def iteration(self, index, metrics):
        self.first = self.first or index + 1


class Killed(BaseException):
    """Nothing catches it, as nothing catches kill -9."""


def make_recipe(path, **later):
    tokenizer = {"characters": "abcdefghijklmnopqrstuvwxyz0123456789 :"}
    create = {"tokenizer": tokenizer, "hidden_size": 32, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1,
              "head_dim": 32, "intermediate_size": 64}  # fmt: skip
    stage = {"kind": "preference_model", "pairs": {"dataset": str(path)}, "num_pairs": 600, "num_held_out": 50,
             "batch_size": 8, "learning_rate": 3e-3, "max_length": 32,
             "early_stop": {"num_pairs": 30, "evaluate_every": 20}}  # fmt: skip
    engine = {"kind": "hf", "max_model_len": 64}
    return Recipe.model_validate(
        {"name": "rm", "model": {"create": create}, "engine": engine, "stages": {"preference": stage, **later}}
    )


def write_pairs(path, broken=False):
    rows = [{"prompt": f"q{n}: ", "chosen": "a" * (n % 5 + 3), "rejected": "b" * (n % 4 + 3)} for n in range(700)]
    if broken:
        rows[600] = {"prompt": "q: ", "chosen": "a", "rejected": ["b"]}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_an_interrupted_stage_goes_on_and_leaves_a_model_that_scores(tmp_path):
    write_pairs(tmp_path / "pairs.jsonl")
    recipe, run_dir = make_recipe(tmp_path / "pairs.jsonl"), tmp_path / "run"
    with pytest.raises(Interrupted, match="stopped after step 20; run the same command"):
        run_pipeline(recipe, run_dir, InterruptingDisplay(Console(quiet=True)))
    assert not (run_dir / "checkpoints" / "preference" / "final").exists()
    assert (run_dir / "checkpoints" / "preference" / "unfinished").exists()
    going_on = Remembering(Console(quiet=True))
    run_pipeline(recipe, run_dir, going_on)
    assert going_on.first > 20
    assert not (run_dir / "checkpoints" / "preference" / "unfinished").exists()
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    steps = [line["iteration"] for line in lines if "loss" in line]
    assert steps == sorted(set(steps))
    (record,) = json.loads((run_dir / "state.json").read_text())["stages"].values()
    assert record["details"]["accuracy"] > 0.95
    assert record["details"]["held_out_pairs"] == 50
    reward = load_reward("preference", model=str(run_dir / "checkpoints" / "preference" / "final"), device="cpu")
    better, worse = reward(prompts=["q1: ", "q1: "], completions=["aaaa", "bbbb"])
    assert better > worse


def test_a_row_in_the_middle_that_is_no_pair_is_the_users_mistake(tmp_path):
    write_pairs(tmp_path / "pairs.jsonl", broken=True)
    with pytest.raises(UserError, match=r"stages\.preference\.pairs: pairs: column 'rejected' is"):
        run_pipeline(make_recipe(tmp_path / "pairs.jsonl"), tmp_path / "run", PlainDisplay(Console(quiet=True)))


def test_a_later_stage_finds_the_model_of_a_stage_that_was_killed_before_its_record(tmp_path, monkeypatch):
    write_pairs(tmp_path / "pairs.jsonl")
    cache = {
        "kind": "message_cache",
        "prompts": {"source": {"dataset": str(tmp_path / "pairs.jsonl")}},
        "num_problems": 2,
        "samples_per_prompt": 2,
        "sampling": {"max_tokens": 4},
        "rewards": [{"fn": "preference", "from_stage": "preference", "args": {"device": "cpu"}}],
        "above": -1,
        "below": 2,
    }
    recipe, run_dir = make_recipe(tmp_path / "pairs.jsonl", messages=cache), tmp_path / "run"
    record = RunDirectory.add_record

    def killed(run, name, *rest, **options):
        raise Killed

    monkeypatch.setattr(RunDirectory, "add_record", killed)
    with pytest.raises(Killed):
        run_pipeline(recipe, run_dir, PlainDisplay(Console(quiet=True)))
    assert (run_dir / "checkpoints" / "preference" / "outcome.json").exists()
    monkeypatch.setattr(RunDirectory, "add_record", record)
    run_pipeline(recipe, run_dir, PlainDisplay(Console(quiet=True)))
    assert list(json.loads((run_dir / "state.json").read_text())["stages"]) == ["preference", "messages"]
