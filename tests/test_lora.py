"""Adapters: merged weights are the function that was trained, the base is shared and rests, and a stage learns."""

import copy

import pytest
import torch
from fakes import random_batch, tiny_model
from transformers import AutoModelForCausalLM

from rl.batch import PPOBatch, minibatches, whole_minibatch
from rl.learner import Learner
from rl.ppo import to_ppo_batch
from rl.recipe import AlgorithmSection, CriticSection, LearnerSection, OptimizerSection

OPTIMIZER = OptimizerSection(learning_rate=1e-2)
ALGORITHM = AlgorithmSection(kl_loss_coef=0.01)
SECTION = {"rank": 4, "alpha": 8}


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def make(model_path, **changes):
    return Learner(LearnerSection(lora=SECTION | changes), model_path, trust_remote_code=False, device="cpu")


def updated(model_path, **changes):
    learner = make(model_path, **changes)
    learner.begin_rl(OPTIMIZER, CriticSection(optimizer=OPTIMIZER), ALGORITHM, 1.0)
    batch = random_batch(6, 12, 50)
    ppo = to_ppo_batch(batch, learner.evaluate(batch), ALGORITHM)
    pieces = minibatches(ppo, count=2, epochs=1, seed=0)
    learner.update_critic(pieces, iteration=0, total=1)
    learner.update_policy(pieces, iteration=0, total=1)
    return learner, batch


def test_the_saved_model_is_plain_and_scores_as_the_policy_does(model_path, tmp_path):
    learner, batch = updated(model_path)
    learner.save_model(tmp_path)
    plain = Learner(LearnerSection(), str(tmp_path), trust_remote_code=False, device="cpu")
    plain.begin_rl(OPTIMIZER, None, AlgorithmSection(advantage="grpo"), 1.0)
    torch.testing.assert_close(plain.evaluate(batch).logprobs, learner.evaluate(batch).logprobs, atol=1e-5, rtol=1e-5)
    start = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).state_dict()
    changed = {name for name, x in learner.weights().items() if not torch.equal(torch.tensor(x), start[name])}
    assert changed == {name for name in start if "_proj" in name}


def test_only_adapters_and_the_value_head_learn_and_the_base_exists_once(model_path):
    learner, batch = updated(model_path)
    critic = learner.trained_critic.module
    base = {id(p) for p in learner.policy.parameters() if not p.requires_grad}
    assert {id(p) for p in critic.backbone.parameters() if not p.requires_grad} <= base
    assert {id(p) for n, p in learner.reference.named_parameters() if "lora_" not in n} <= base
    assert {n for n, p in critic.named_parameters() if p.requires_grad and "lora_" not in n} == {"value_head.weight"}
    assert all("lora_" in n for n, p in learner.policy.named_parameters() if p.requires_grad)
    found = learner.evaluate(batch)
    assert (found.logprobs - found.ref_logprobs).abs().max() > 1e-4  # the reference did not move with the policy


def test_state_is_restored_to_the_bit_and_a_stage_begins_alike_after_a_restart(model_path, tmp_path):
    learner, batch = updated(model_path)
    learner.save_state(tmp_path)
    resumed = make(model_path)
    resumed.begin_rl(OPTIMIZER, CriticSection(optimizer=OPTIMIZER), ALGORITHM, 1.0)
    resumed.load_state(tmp_path)
    for a, b in zip(learner.policy.state_dict().values(), resumed.policy.state_dict().values()):
        assert torch.equal(a, b)
    learner.save_model(tmp_path / "model")
    again = make(model_path)
    again.load_model(tmp_path / "model")
    for one in (learner, again):
        one.begin_sft(OPTIMIZER)
        one.update_sft(whole_minibatch(PPOBatch.of_tokens(batch)), step=0, total=2)
    for name, x in learner.weights().items():
        torch.testing.assert_close(torch.tensor(again.weights()[name]), torch.tensor(x), atol=1e-5, rtol=1e-4)


def test_supervised_learning_through_adapters_lowers_the_loss(model_path):
    learner = make(model_path, rank=8)
    learner.begin_sft(OPTIMIZER)
    piece = whole_minibatch(PPOBatch.of_tokens(random_batch(8, 12, 50)))
    losses = [learner.update_sft(copy.copy(piece), step=step, total=60)["loss"] for step in range(60)]
    assert losses[-1] < losses[0] - 0.5
