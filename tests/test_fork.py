"""A run that begins with what another one has done."""

import json
import shutil

import pytest
from run_directories import flip, half_done, quickstart

from rl.durable import damage, json_lines
from rl.errors import UserError
from rl.fork import ForkPoint, fork, parse_fork_point
from rl.run_directory import RunDirectory, open_run_directory

ALL = ["sft", "rlvr", "preference", "rlhf", "messages"]


@pytest.fixture
def source(tmp_path):
    return half_done(tmp_path / "source")


def forked(source, text, tmp_path, *overrides):
    fork(parse_fork_point(f"{source.path}{text}"), tmp_path / "new", quickstart(*overrides))
    return RunDirectory(tmp_path / "new")


def iterations(run, stage):
    return [row["iteration"] for row in run.metrics(stage)]


def test_without_a_stage_everything_is_taken_over_and_the_newest_checkpoint(source, tmp_path):
    run = forked(source, "", tmp_path)
    assert list(run.records()) == ALL
    assert [path.name for path in run.checkpoints("pacore").iterdir()] == ["6"]
    assert damage(run.checkpoints("pacore") / "6") is None
    assert damage(run.stage_model("rlhf")) is None
    assert iterations(run, "pacore") == list(range(6))
    assert [row["iteration"] for row in json_lines(run.path / "rollouts/pacore/iterations.jsonl")] == list(range(6))
    assert run.message_cache("messages").read_bytes() == source.message_cache("messages").read_bytes()
    assert run.measurements("rlhf").exists()


def test_a_stage_begins_anew_with_other_settings(source, tmp_path):
    run = forked(source, ":rlvr", tmp_path, "stages.rlvr.policy.learning_rate=1")
    assert list(run.records()) == ["sft"]
    assert not run.checkpoints("pacore").exists()
    assert iterations(run, "rlvr") == []
    assert iterations(run, "sft") == [0, 1]
    told = json.loads((run.path / "fork.json").read_text())
    assert told["stages"] == ["sft"]
    assert any("learning_rate: 0.001 -> 1.0" in line for line in told["changes"])


def test_a_checkpoint_inside_a_stage(source, tmp_path):
    run = forked(source, ":pacore:4", tmp_path, "stages.pacore.policy.learning_rate=1")
    assert [path.name for path in run.checkpoints("pacore").iterdir()] == ["4"]
    assert iterations(run, "pacore") == list(range(4))


def test_the_source_stays_as_it_is_and_the_fork_goes_on_by_itself(source, tmp_path):
    before = {path: path.read_bytes() for path in source.path.rglob("*") if path.is_file()}
    run = forked(source, "", tmp_path)
    with open_run_directory(run.path, quickstart()) as opened:
        assert opened.notes == ()
        opened.append_metrics("pacore", 6, {"loss": 0.0})
        opened.forget_after("pacore", 0)
        opened.drop_record("sft")
    assert {path: path.read_bytes() for path in source.path.rglob("*") if path.is_file()} == before


def test_a_fork_outlives_its_source(source, tmp_path):
    run = forked(source, "", tmp_path)
    shutil.rmtree(source.path)
    assert damage(run.stage_model("rlhf")) is None
    assert damage(run.checkpoints("pacore") / "6") is None
    assert run.message_cache("messages").read_text()


def test_the_same_command_again_continues_the_fork(source, tmp_path):
    run = forked(source, ":rlvr", tmp_path)
    run.append_metrics("rlvr", 0, {"loss": 0.0})
    run = forked(source, ":rlvr", tmp_path)
    assert iterations(run, "rlvr") == [0]


MISTAKES = {
    ":nostage": "the recipe has no stage 'nostage'",
    ":pacore:5": "there is no checkpoint of that iteration; there are those of 4, 6",
    ":pacore:x": "the iteration 'x' is not a whole number",
    ":rlvr:1": "there are none",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_points_that_do_not_exist(source, tmp_path, text):
    with pytest.raises(UserError, match=MISTAKES[text]):
        forked(source, text, tmp_path)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("overrides, told", [
    (["stages.pacore.algorithm.kl_loss_coef=0.1"], "the checkpoint has no reference"),
    (["stages.pacore.prompts=[{source: {task: addition}, rewards: [math]}]"], "positions in 3 sources, the recipe has 1"),
    (["stages.pacore.critic=null", "stages.pacore.algorithm.advantage=grpo", "stages.pacore.iterations=2"], "only 2 iter"),
    (["stages.pacore.iterations=3"], "has only 3 iterations"),
    (["model.create.hidden_size=32"], "weights there are of another model"),
])
def test_recipes_that_a_checkpoint_does_not_fit(source, tmp_path, overrides, told):
    with pytest.raises(UserError, match=told):
        forked(source, ":pacore:4", tmp_path, *overrides)


def test_a_damaged_checkpoint_is_refused(source, tmp_path):
    flip(source.checkpoints("pacore") / "4" / "critic.safetensors")
    with pytest.raises(UserError, match="critic.safetensors: its content has changed"):
        forked(source, ":pacore:4", tmp_path)


def test_a_directory_that_is_taken(source, tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="exists already"):
        forked(source, "", tmp_path)


def test_paths_with_colons(tmp_path):
    half_done(tmp_path / "a:b")
    assert parse_fork_point(f"{tmp_path}/a:b") == ForkPoint(tmp_path / "a:b")
    assert parse_fork_point(f"{tmp_path}/a:b:rlvr:3") == ForkPoint(tmp_path / "a:b", "rlvr", 3)
    with pytest.raises(UserError, match="there is no run directory"):
        parse_fork_point(f"{tmp_path}/nowhere:rlvr")
