"""A preference_model stage that is stopped and goes on leaves the same model, bit for bit, as one that ran straight."""

import resource

import pytest
import torch
from fakes import tiny_model
from run_directories import flip
from safetensors.torch import load_file
from test_preference_model import pairs, stage, train

from rl.errors import Interrupted, RunFailed
from rl.reward_model.unfinished import UnfinishedWork

VARIANTS = {
    "plain": {"epochs": 5},
    "lora with dropout": {"epochs": 5, "lora": {"rank": 2, "alpha": 4, "dropout": 0.3}},
    "ensemble": {"epochs": 2.5, "members": 2},
    "early stop": {"epochs": 5, "early_stop": {"num_pairs": 32, "evaluate_every": 5, "patience": 4}},
}


class Killed(BaseException):
    """Stands for kill -9: nothing of ours catches it."""


class Stops:
    """Asks to stop, or kills, at the n-th logged line of a process."""

    def __init__(self, how, after):
        self.how, self.left, self.asked, self.lines = how, after, False, {}

    def append(self, line):
        step, _, numbers = line
        self.lines.setdefault(step, {}).update({k: x for k, x in numbers.items() if "runtime" not in k and "per_second" not in k})
        self.left -= 1
        if self.left == 0 and self.how == "killed":
            raise Killed
        self.asked = self.asked or (self.left <= 0 and self.how == "asked")


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("models") / "policy")


def split(section):
    return {"training": pairs(128, 1), "held_out": pairs(32, 2), "validation": pairs(32, 4) if section.early_stop else ()}


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_goes_on_bit_for_bit(tmp_path, policy, variant):
    section = stage(**VARIANTS[variant])  # 40 steps, or two times 20
    straight = Stops("", 0)
    details = train(tmp_path / "straight", policy, section, **split(section), logged=straight)
    lines = {}
    for how, after in (("killed", 1), ("asked", 1), ("killed", 2), ("", 0)):
        stops = Stops(how, after)
        work = UnfinishedWork(tmp_path / "work", 10, stop_asked=lambda stops=stops: stops.asked)
        done = work.steps_done(section.members)
        lines = {step: line for step, line in lines.items() if step <= done}
        try:
            again = train(tmp_path / "again", policy, section, **split(section), logged=stops, work=work)
        except (Killed, Interrupted):
            again = None
        lines |= stops.lines
    assert again == details
    assert 0 < done < min(stops.lines)  # the last process did not begin again
    assert lines == straight.lines
    for path in (tmp_path / "straight").rglob("*.safetensors"):
        one, two = load_file(path), load_file(tmp_path / "again" / path.relative_to(tmp_path / "straight"))
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_signal_saves_and_what_is_damaged_or_half_written_is_passed_over(tmp_path, policy):
    section, told = stage(epochs=4), []  # 64 steps
    stops = Stops("asked", 3)
    work = UnfinishedWork(tmp_path / "work", 20, stop_asked=lambda: stops.asked, say=told.append)
    with pytest.raises(Interrupted, match="after step 40"):
        train(tmp_path / "rm", policy, section, logged=stops, work=work)
    assert work.steps_done(1) == 40
    flip(tmp_path / "work" / "member_0" / "checkpoint-40" / "optimizer.pt")
    (tmp_path / "work" / "member_0" / "checkpoint-60").mkdir()
    assert work.steps_done(1) == 20
    assert len(told) == 1
    assert "checkpoint-40 is damaged and passed over: optimizer.pt" in told[0]
    assert not (tmp_path / "work" / "member_0" / "checkpoint-60").exists()


def test_a_full_disk_says_so_and_leaves_the_earlier_checkpoint(tmp_path, policy):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Full(Stops):
        def append(self, line):
            super().append(line)
            if self.left == 0:  # the kernel refuses to write more into one file
                resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))

    work = UnfinishedWork(tmp_path / "work", 10)
    try:
        with pytest.raises(RunFailed, match="checkpoint-20: the checkpoint cannot be written"):
            train(tmp_path / "rm", policy, stage(epochs=2), logged=Full("", 2), work=work)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert work.steps_done(1) == 10
    assert [path.name for path in (tmp_path / "work" / "member_0").glob("checkpoint-*")] == ["checkpoint-10"]
