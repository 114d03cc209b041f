"""What is saved of a stage while it runs: when, where it continues, and what a failure or a signal leaves."""

import pytest
import torch
from run_directories import quickstart
from safetensors.torch import load_file, save_file

from rl.checkpoint import StageState, saved_iterations
from rl.errors import Interrupted, RunFailed
from rl.interrupt import InterruptRequest
from rl.progress import StageProgress
from rl.recipe import SavingSection
from rl.run_directory import open_run_directory


class Learner:
    """Stands in for the learner group: counts iterations in a tensor."""

    def __init__(self):
        self.x = torch.zeros(1)

    def save_state(self, folder):
        save_file({"x": self.x}, folder / "policy.safetensors")

    def load_state(self, folder):
        self.x = load_file(folder / "policy.safetensors")["x"]


class Silent:
    def iteration(self, index, metrics): ...

    def message(self, text): ...


@pytest.fixture
def run(tmp_path):
    with open_run_directory(tmp_path / "run", quickstart()) as run:
        yield run


def start(run, **saving):
    learner = Learner()
    settings = SavingSection(**{"checkpoint_every": 100, **saving})
    progress = StageProgress("rlvr", run, learner, settings, display=Silent(), interrupt=InterruptRequest())
    return progress, learner, progress.resume()


def train(progress, learner, first, last):
    for index in range(first, last):
        progress.before_learning()
        learner.x = learner.x + 1
        progress.after(index, {"loss": 0.0}, StageState(index + 1, {}), last=False)


def saved(run):
    return saved_iterations(run.checkpoints("rlvr"))


def test_the_stage_continues_from_its_newest_checkpoint_and_forgets_what_came_after(run):
    progress, learner, state = start(run, checkpoint_every=3)
    assert state == StageState(0, {})
    train(progress, learner, 0, 5)
    assert saved(run) == [3]
    _, learner, state = start(run)
    assert (state.iteration, float(learner.x)) == (3, 3.0)
    assert [row["iteration"] for row in run.metrics("rlvr")] == [0, 1, 2]


def test_a_crash_before_learning_saves_the_iterations_that_are_done(run):
    progress, learner, _ = start(run)
    with pytest.raises(ZeroDivisionError), progress.saved_when_failing():
        train(progress, learner, 0, 2)
        raise ZeroDivisionError
    assert saved(run) == [2]


def test_a_crash_while_learning_saves_nothing(run):
    # the weights are between two iterations then
    progress, learner, _ = start(run)
    with pytest.raises(RunFailed), progress.saved_when_failing():
        train(progress, learner, 0, 2)
        progress.before_learning()
        raise RunFailed
    assert saved(run) == []


@pytest.mark.parametrize("moment", ["before learning", "after the iteration"])
def test_a_signal_stops_the_stage_with_its_state_saved(run, moment):
    progress, learner, _ = start(run)
    train(progress, learner, 0, 2)
    progress._interrupt.requested = True
    with pytest.raises(Interrupted, match="stopped after iteration"):
        if moment == "before learning":
            progress.before_learning()
        else:
            progress.after(2, {"loss": 0.0}, StageState(3, {}), last=False)
    assert saved(run) == [2 if moment == "before learning" else 3]


def test_a_signal_in_the_last_iteration_saves_it_too(run):
    progress, learner, _ = start(run)
    progress._interrupt.requested = True
    with pytest.raises(Interrupted):
        progress.after(0, {"loss": 0.0}, StageState(1, {}), last=True)
    assert saved(run) == [1]


def test_a_roll_back_restores_the_weights_and_changes_the_seeds(run):
    progress, learner, _ = start(run)
    progress.save_start()
    assert saved(run) == [0]
    train(progress, learner, 0, 2)
    assert progress.roll_back() == StageState(0, {}, rollbacks=1)
    assert float(learner.x) == 0
    assert run.metrics("rlvr") == []
    train(progress, learner, 0, 1)
    progress.save()
    _, _, state = start(run)
    assert state.rollbacks == 1
    progress.roll_back()
    assert progress.roll_back().rollbacks == 3
