"""Steps that are not finite: kept with their cause, counted in a row, and the end that the recipe asks for."""

import dataclasses
import json

import pytest
import torch
from fakes import random_batch
from safetensors.torch import load_file

from rl.batch import Minibatch, PPOBatch
from rl.errors import RunFailed
from rl.non_finite import RollBack, StepWatch
from rl.recipe import NonFiniteSection

GOOD = {"loss": 1.0, "grad_norm": 1.0, "skipped_steps": 0.0}
BAD = {"loss": 1.0, "grad_norm": 0.0, "skipped_steps": 1.0}


@pytest.fixture
def watch(tmp_path):
    told = []
    watch = StepWatch(NonFiniteSection(max_in_a_row=2), tmp_path / "bad", told.append)
    watch.told = told
    return watch


def pieces(count, **changes):
    batch = dataclasses.replace(PPOBatch.of_tokens(random_batch(3, 5, 20)), **changes)
    return [Minibatch(batch, 7, 3)] * count


def test_the_batch_of_a_skipped_step_is_kept_with_its_cause(watch, tmp_path):
    advantages = torch.zeros(3, 5)
    advantages[1, 2] = float("nan")
    watch("policy", 4, pieces(2, advantages=advantages), [GOOD, BAD])
    kept = load_file(tmp_path / "bad" / "4-policy-1.safetensors")
    assert torch.isnan(kept["advantages"][1, 2])
    assert kept["token_ids"].shape == (3, 5)
    told = json.loads((tmp_path / "bad" / "4-policy-1.json").read_text())
    assert told["cause"] == "1 of 15 values of advantages are not finite"
    assert len(watch.told) == 1
    assert "iteration 5" in watch.told[0]
    assert len(list((tmp_path / "bad").iterdir())) == 2


@pytest.mark.parametrize("sums, expected", [
    (BAD | {"loss": float("inf")}, "the batch is finite, the loss is inf"),
    (BAD, "batch and loss are finite, the gradient is not"),
])
def test_the_cause_is_the_first_thing_that_is_not_finite(watch, tmp_path, sums, expected):
    watch("critic", 0, pieces(1), [sums])
    assert json.loads((tmp_path / "bad" / "0-critic-0.json").read_text())["cause"] == expected


def test_only_steps_of_one_model_in_a_row_stop_the_run(watch):
    watch("policy", 0, pieces(3), [BAD, BAD, GOOD])
    watch("critic", 0, pieces(2), [BAD, BAD])
    watch("policy", 1, pieces(2), [BAD, BAD])
    with pytest.raises(RunFailed, match="policy: 3 steps in a row"):
        watch("policy", 2, pieces(1), [BAD])


def test_roll_back_is_asked_for_where_the_recipe_says_so(tmp_path):
    watch = StepWatch(NonFiniteSection(max_in_a_row=0, then="roll_back"), tmp_path, lambda text: None)
    with pytest.raises(RollBack):
        watch("policy", 0, pieces(1), [BAD])
    watch("policy", 0, pieces(1), [GOOD])
