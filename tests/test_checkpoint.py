"""Checkpoints: the last N are kept, a damaged one is passed over, a full disk leaves the earlier one."""

import resource

import pytest
import torch
from safetensors.torch import save_file

from rl.checkpoint import StageState, load_checkpoint, save_checkpoint, saved_iterations
from rl.errors import RunFailed
from rl.pipeline import _files_told_plainly
from rl.sharding import load_sharded, save_sharded

STATE = "shard-00001-model-00001-of-00001.safetensors"


class FourKilobytes:
    """Stands in for the learner group: one tensor of state."""

    def __init__(self):
        self.x = torch.zeros(1024)

    def save_state(self, folder):
        save_sharded({"policy": {"x": self.x}}, folder)

    def load_state(self, folder):
        load_sharded({"policy": {"x": self.x}}, folder)


@pytest.fixture
def saved(tmp_path):
    """Checkpoints of iterations 1 to 3, whose tensor holds the number of the iteration."""
    learner = FourKilobytes()
    for iteration in (1, 2, 3):
        learner.x = torch.full((1024,), float(iteration))
        save_checkpoint(tmp_path, learner, StageState(iteration, {"positions": [iteration]}), keep=2)
    return tmp_path


def loaded(folder):
    learner, told = FourKilobytes(), []
    return load_checkpoint(folder, learner, on_damage=told.append), learner, told


def test_the_last_ones_are_kept_and_the_newest_is_loaded(saved):
    assert saved_iterations(saved) == [2, 3]
    state, learner, told = loaded(saved)
    assert state == StageState(3, {"positions": [3]})
    assert learner.x[0] == 3
    assert told == []


@pytest.mark.parametrize("name", [STATE, "stage.json", "manifest.json"])
def test_a_damaged_checkpoint_is_named_and_passed_over(saved, name):
    path = saved / "3" / name
    path.write_bytes(path.read_bytes()[:-2])
    state, learner, told = loaded(saved)
    assert state.iteration == 2
    assert learner.x[0] == 2
    assert len(told) == 1
    assert str(saved / "3") in told[0]
    assert name in told[0]
    assert saved_iterations(saved) == [2]
    assert (saved / "3.damaged").is_dir()


def test_without_any_good_checkpoint_the_stage_starts_anew(saved):
    for iteration in (2, 3):
        (saved / str(iteration) / STATE).write_bytes(b"")
    state, _, told = loaded(saved)
    assert state is None
    assert len(told) == 2


def test_a_full_disk_says_so_and_leaves_the_earlier_checkpoints(saved):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, hard))  # the kernel refuses to write more into one file
    try:
        with pytest.raises(RunFailed, match="iteration 4 cannot be written.*that of iteration 3 is usable still"):
            save_checkpoint(saved, FourKilobytes(), StageState(4, {}), keep=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(path.name for path in saved.iterdir()) == ["2", "3"]
    assert loaded(saved)[0].iteration == 3


def test_a_model_that_finds_no_room_ends_the_run_with_a_message(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, hard))
    try:
        with pytest.raises(RunFailed, match="cannot be written: File too large"), _files_told_plainly(tmp_path):
            save_file({"x": torch.zeros(1024)}, tmp_path / "model.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
