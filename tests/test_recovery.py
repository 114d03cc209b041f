"""What an earlier process left: whole things stay, damaged ones are named, and only what needs it is done again."""

import pytest
from run_directories import flip, half_done, quickstart

from rl.durable import DAMAGED
from rl.errors import UserError
from rl.recovery import recover
from rl.run_directory import open_run_directory

ALL = ["sft", "rlvr", "preference", "rlhf", "messages"]


@pytest.fixture
def recipe():
    return quickstart()


@pytest.fixture
def run(tmp_path, recipe):
    return half_done(tmp_path / "run")


def recovered(run, recipe):
    told = []
    recover(run, recipe, told.append)
    return "\n".join(told)


def files(run):
    return {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


def test_a_run_that_is_whole_is_left_as_it_is(run, recipe):
    before = files(run)
    assert recovered(run, recipe) == ""
    assert files(run) == before
    assert list(run.records()) == ALL


def test_the_policy_that_goes_on_is_checked_and_its_stage_done_again(run, recipe):
    flip(run.stage_model("rlhf") / "model.safetensors")
    told = recovered(run, recipe)
    assert "checkpoints/rlhf/final is damaged" in told
    assert "model.safetensors: its content has changed" in told
    assert "rlhf is done again" in told
    assert list(run.records()) == ["sft", "rlvr", "preference", "messages"]
    assert not run.stage_model("rlhf").exists()


def test_a_model_that_nothing_reads_any_more_is_of_no_matter(run, recipe):
    flip(run.stage_model("rlvr") / "model.safetensors")
    flip(run.stage_model("preference") / "model.safetensors")  # only rlhf reads it, which is done
    assert recovered(run, recipe) == ""
    assert list(run.records()) == ALL


def test_where_two_policies_in_a_row_are_damaged_both_stages_are_done_again(run, recipe):
    for name in ("rlvr", "rlhf"):
        flip(run.stage_model(name) / "model.safetensors")
    recovered(run, recipe)
    assert list(run.records()) == ["sft", "preference", "messages"]


def test_a_damaged_message_cache_is_made_again(run, recipe):
    flip(run.message_cache("messages"))
    assert "messages.jsonl is damaged" in recovered(run, recipe)
    assert list(run.records()) == ["sft", "rlvr", "preference", "rlhf"]
    assert not run.message_cache("messages").exists()


def test_a_damaged_measurement_is_measured_again(run, recipe):
    flip(run.measurements("rlhf"))
    assert "rlhf.json is damaged" in recovered(run, recipe)
    assert list(run.records()) == ALL
    assert not run.measurements("rlhf").exists()


@pytest.mark.parametrize("how", ["cut", "flipped"])
def test_a_damaged_state_gives_way_to_the_one_before(run, recipe, how):
    if how == "cut":
        run.state.write_bytes(run.state.read_bytes()[:-30])
    else:
        run.state.write_text(run.state.read_text().replace('"seconds": 1.0', '"seconds": 1.5', 1))
    assert "state.json is damaged" in recovered(run, recipe)
    assert list(run.records()) == ALL[:-1]
    assert (run.path / f"state.json{DAMAGED}").exists()
    recovered(run, recipe)
    assert list(run.records()) == ALL[:-1]


def test_without_any_good_state_the_run_starts_from_the_checkpoints_that_there_are(run, recipe):
    for path in (run.state, run.previous_state):
        path.write_text("{}")
    recovered(run, recipe)
    assert run.records() == {}


def test_damaged_lines_of_logs_are_named(run, recipe):
    path = run.path / "rollouts/pacore/iterations.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], "{half\n", *lines[2:]]))
    assert f"{path}: damaged lines left out (kept in iterations.jsonl.damaged): 2" in recovered(run, recipe)


def test_what_a_killed_process_had_begun_is_cleared_away(run, recipe):
    (run.checkpoints("pacore") / ".7.writing").mkdir()
    (run.checkpoints("pacore") / ".7.writing" / "policy.safetensors").write_text("half")
    (run.path / ".state.json.writing").write_text("{")
    told = recovered(run, recipe)
    assert ".7.writing: an earlier process ended before this was whole" in told
    assert not list(run.path.rglob(".*.writing"))


def test_a_finished_run_checks_its_result(run, recipe):
    from run_directories import model

    model(run.final, "final")
    assert recovered(run, recipe) == ""
    flip(run.final / "config.json")
    assert "exported again" in recovered(run, recipe)
    assert not run.final.exists()


def test_the_second_process_in_a_run_directory_is_refused(tmp_path, recipe):
    with open_run_directory(tmp_path / "run", recipe):
        with pytest.raises(UserError, match="another process runs in this run directory"):
            with open_run_directory(tmp_path / "run", recipe):
                pass
    with open_run_directory(tmp_path / "run", recipe):
        pass
