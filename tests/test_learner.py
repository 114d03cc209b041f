"""The learner: log-probs against a plain forward pass, the first ratio, and equality over every way to cut a batch."""

import dataclasses
import math
import shutil

import pytest
import torch
from fakes import random_batch, tiny_model
from transformers import AutoModelForCausalLM

from rl.batch import minibatches, take_rows, tensors_of
from rl.group import InProcessRank, LearnerGroup
from rl.learner import Learner
from rl.ppo import rewards_with_kl, to_ppo_batch
from rl.recipe import AlgorithmSection, CriticSection, LearnerSection, OptimizerSection
from rl.trained_model import learning_rate

VOCABULARY = 50
NEEDS_COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
OPTIMIZER = OptimizerSection(learning_rate=1e-3)
CRITIC = CriticSection(optimizer=OptimizerSection(learning_rate=1e-3))


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def make_learner(model_path, algorithm=AlgorithmSection(), critic=CRITIC, temperature=1.0, **changes):
    learner = Learner(LearnerSection(**changes), model_path, trust_remote_code=False, device="cpu")
    learner.begin_rl(OPTIMIZER, critic, algorithm, temperature)
    return learner


def one_update(learner, batch, algorithm=AlgorithmSection(), count=1):
    ppo = to_ppo_batch(batch, learner.evaluate(batch), algorithm)
    pieces = minibatches(ppo, count=count, epochs=1, seed=0)
    critic = learner.update_critic(pieces, iteration=0, total=1) if learner.trained_critic else []
    return learner.update_policy(pieces, iteration=0, total=1), critic


def test_logprobs_equal_a_plain_forward_pass_one_row_at_a_time(model_path):
    batch = random_batch(6, 12, VOCABULARY)
    learner = make_learner(model_path, temperature=0.7)
    found = learner.evaluate(batch)
    entropies = learner.policy(batch.token_ids, batch.action_mask, 0.7, "value").entropy
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).eval()
    for b in range(6):
        length = int(batch.attention_mask[b].sum())
        with torch.no_grad():
            logits = model(batch.token_ids[b : b + 1, :length]).logits[0] / 0.7
        for t in range(12):
            if not batch.action_mask[b, t]:
                assert found.logprobs[b, t] == 0
                continue
            distribution = logits[t - 1].log_softmax(-1)
            assert found.logprobs[b, t] == pytest.approx(float(distribution[batch.token_ids[b, t]]), abs=2e-5)
            entropy = float(-(distribution.exp() * distribution).sum())
            assert float(entropies[b, t]) == pytest.approx(entropy, abs=2e-5)


def test_the_ratio_is_one_on_the_first_minibatch_and_moves_afterwards(model_path):
    learner = make_learner(model_path, AlgorithmSection(minibatches=3))
    policy, _ = one_update(learner, random_batch(9, 12, VOCABULARY), count=3)
    assert policy[0]["old_gap_sum"] / policy[0]["tokens"] < 1e-6
    assert policy[0]["clipped_tokens"] == 0
    assert policy[1]["old_gap_sum"] / policy[1]["tokens"] > 1e-5


@pytest.mark.parametrize("changes", [{"packing": True}, {"packing": True, "micro_batch_tokens": 25},
                                     {"micro_batch_tokens": 1}, {"micro_batch_tokens": 30}, {"head_chunk_tokens": 3},
                                     {"activation_checkpointing": True},
                                     pytest.param({"compile": True}, marks=[NEEDS_COMPILER, pytest.mark.slow])])
def test_every_cut_into_micro_batches_and_chunks_gives_the_same_update(model_path, changes):
    algorithm = AlgorithmSection(kl_loss_coef=0.1, kl_reward_coef=0.1, entropy_coef=0.01)
    batch = random_batch(7, 12, VOCABULARY)
    plain, cut = make_learner(model_path, algorithm), make_learner(model_path, algorithm, **changes)
    expected, found = one_update(plain, batch, algorithm), one_update(cut, batch, algorithm)
    for steps, others in zip(expected, found):
        assert others[0]["loss"] == pytest.approx(steps[0]["loss"], rel=1e-4, abs=1e-6)
        assert others[0]["grad_norm"] == pytest.approx(steps[0]["grad_norm"], rel=1e-4)


def test_padding_does_not_change_the_update(model_path):
    batch = random_batch(5, 12, VOCABULARY)
    padded = dataclasses.replace(
        batch,
        **{name: torch.nn.functional.pad(x, (0, 4)) for name, x in tensors_of(batch).items() if x.dim() == 2},
    )
    a = one_update(make_learner(model_path), batch)
    b = one_update(make_learner(model_path), padded)
    assert b[0][0]["grad_norm"] == pytest.approx(a[0][0]["grad_norm"], rel=1e-5)
    assert b[1][0]["grad_norm"] == pytest.approx(a[1][0]["grad_norm"], rel=1e-5)


def test_a_row_without_sampled_tokens_changes_nothing(model_path):
    batch = random_batch(4, 10, VOCABULARY)
    mask = batch.action_mask.clone()
    mask[1] = False
    emptied = dataclasses.replace(batch, action_mask=mask, rewards=batch.rewards * mask)
    without = take_rows(emptied, torch.tensor([0, 2, 3]))
    algorithm = AlgorithmSection(whiten_advantages=False)
    a = one_update(make_learner(model_path, algorithm), emptied, algorithm)
    b = one_update(make_learner(model_path, algorithm), without, algorithm)
    assert a[0][0]["grad_norm"] == pytest.approx(b[0][0]["grad_norm"], rel=1e-5)


def test_values_are_those_before_each_token_and_the_critic_starts_at_zero(model_path):
    learner = make_learner(model_path)
    batch = random_batch(4, 10, VOCABULARY)
    assert learner.evaluate(batch).values.abs().max() == 0
    torch.nn.init.normal_(learner.trained_critic.module.value_head.weight)
    found = learner.evaluate(batch)
    critic = learner.trained_critic.module
    hidden = critic.backbone(input_ids=batch.token_ids[:1]).last_hidden_state[0]
    values = critic.value_head(hidden)[:, 0]
    for t in range(1, 10):
        expected = float(values[t - 1].detach()) if batch.action_mask[0, t] else 0.0
        assert found.values[0, t] == pytest.approx(expected, abs=1e-5)
    assert found.last_values[0] == pytest.approx(float(values[-1].detach()), abs=1e-5)


def test_the_reference_stays_where_the_stage_began(model_path):
    algorithm = AlgorithmSection(kl_reward_coef=0.1)
    learner = make_learner(model_path, algorithm)
    batch = random_batch(6, 12, VOCABULARY)
    before = learner.evaluate(batch)
    torch.testing.assert_close(before.ref_logprobs, before.logprobs)
    one_update(learner, batch, algorithm)
    after = learner.evaluate(batch)
    torch.testing.assert_close(after.ref_logprobs, before.ref_logprobs)
    assert (after.logprobs - before.logprobs).abs().max() > 1e-4
    kl = torch.where(batch.action_mask, after.logprobs - after.ref_logprobs, 0.0)
    torch.testing.assert_close(rewards_with_kl(batch, after, 0.1), batch.rewards - 0.1 * kl)


def test_old_logprobs_of_the_engine_are_taken_as_they_are(model_path):
    algorithm = AlgorithmSection(old_logprobs="rollout")
    learner = make_learner(model_path, algorithm)
    batch = dataclasses.replace(random_batch(3, 8, VOCABULARY), rollout_logprobs=torch.full((3, 8), -0.5))
    assert (learner.evaluate(batch).logprobs == -0.5).all()


def test_bootstrap_gives_a_cut_response_the_critics_value(model_path):
    algorithm = AlgorithmSection(truncated="bootstrap", whiten_advantages=False)
    learner = make_learner(model_path, algorithm)
    torch.nn.init.normal_(learner.trained_critic.module.value_head.weight)
    batch = dataclasses.replace(random_batch(2, 6, VOCABULARY), truncated=torch.tensor([True, False]))
    before = learner.evaluate(batch)
    returns = to_ppo_batch(batch, before, algorithm).returns  # gamma = lambda = 1: rewards to go plus the value at the end
    assert returns[0, 5] == pytest.approx(float(batch.rewards[0].sum() + before.last_values[0]), abs=1e-5)
    last = int(batch.attention_mask[1].sum()) - 1
    assert returns[1, last] == pytest.approx(float(batch.rewards[1, last]), abs=1e-5)


def test_a_step_with_a_gradient_that_is_not_finite_is_skipped_and_counted(model_path):
    learner = make_learner(model_path)
    batch = random_batch(4, 10, VOCABULARY)
    ppo = to_ppo_batch(batch, learner.evaluate(batch), AlgorithmSection())
    broken = dataclasses.replace(ppo, advantages=torch.full_like(ppo.advantages, torch.inf))
    before = {k: v.clone() for k, v in learner.policy.state_dict().items()}
    steps = learner.update_policy(minibatches(broken, count=1, epochs=1, seed=0), iteration=0, total=1)
    assert steps[0]["skipped_steps"] == 1
    assert all(torch.equal(v, before[k]) for k, v in learner.policy.state_dict().items())


def test_state_is_restored_to_the_bit(model_path, tmp_path):
    algorithm = AlgorithmSection(kl_loss_coef=0.1)
    batch = random_batch(6, 12, VOCABULARY)
    straight = make_learner(model_path, algorithm)
    one_update(straight, batch, algorithm)
    straight.save_state(tmp_path)
    resumed = make_learner(model_path, algorithm)
    resumed.load_state(tmp_path)
    for learner in (straight, resumed):
        one_update(learner, batch, algorithm)
    for a, b in ((straight.policy, resumed.policy), (straight.trained_critic.module, resumed.trained_critic.module)):
        for (name, x), y in zip(a.state_dict().items(), b.state_dict().values()):
            assert torch.equal(x, y), name


def test_the_saved_model_is_a_plain_transformers_model(model_path, tmp_path):
    learner = make_learner(model_path)
    one_update(learner, random_batch(6, 12, VOCABULARY))
    learner.save_model(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    for name, x in learner.policy.language_model.state_dict().items():
        assert torch.equal(x, loaded.state_dict()[name]), name
    assert set(learner.weights()) == set(dict(loaded.named_parameters()))


def test_group_of_one_rank_keeps_the_order_of_rows(model_path):
    learner = make_learner(model_path)
    batch = random_batch(6, 12, VOCABULARY)
    torch.testing.assert_close(LearnerGroup(InProcessRank(learner)).evaluate(batch).logprobs,
                               learner.evaluate(batch).logprobs)


@pytest.mark.parametrize(("schedule", "expected"), [
    ("constant", [0.5, 1, 1, 1, 1, 1]), ("linear", [0.5, 1, 1, 0.8, 0.6, 0.4])])
def test_learning_rate_warms_up_then_follows_its_schedule(schedule, expected):
    # linear: after 2 warm-up steps, from 1 to .2 over 4 steps
    section = OptimizerSection(learning_rate=1.0, warmup=2, schedule=schedule, final_share=0.2)
    assert [learning_rate(section, step, 6) for step in range(6)] == pytest.approx(expected)


def test_cosine_schedule_is_halfway_down_in_the_middle():
    section = OptimizerSection(learning_rate=1.0, schedule="cosine", final_share=0.2)
    assert learning_rate(section, 5, 10) == pytest.approx(0.6)


def test_a_reset_reference_is_the_policy_as_it_is(model_path):
    algorithm = AlgorithmSection(measure_kl=True)
    learner = make_learner(model_path, algorithm)
    batch = random_batch(4, 10, VOCABULARY)
    one_update(learner, batch, algorithm)
    moved = learner.evaluate(batch)
    assert not torch.allclose(moved.logprobs, moved.ref_logprobs, atol=1e-4)
    learner.reset_reference()
    reset = learner.evaluate(batch)
    torch.testing.assert_close(reset.logprobs, reset.ref_logprobs, atol=1e-6, rtol=0)
    assert torch.equal(reset.logprobs, moved.logprobs)


def test_the_average_follows_the_weights_and_becomes_the_policy_when_saved(model_path, tmp_path):
    learner = Learner(LearnerSection(), model_path, trust_remote_code=False, device="cpu")
    learner.begin_rl(OptimizerSection(learning_rate=1e-2, ema_decay=0.75), CRITIC, AlgorithmSection(), 1.0)
    name = "model.layers.0.mlp.up_proj.weight"
    start = learner.weights()[name].copy()
    one_update(learner, random_batch(6, 12, VOCABULARY))
    moved = learner.weights()[name].copy()
    learner.save_state(tmp_path)
    learner.save_model(tmp_path / "model")
    torch.testing.assert_close(torch.tensor(learner.weights()[name]), torch.tensor(0.75 * start + 0.25 * moved))
    learner.load_state(tmp_path)  # the checkpoint holds both
    torch.testing.assert_close(torch.tensor(learner.weights()[name]), torch.tensor(moved))
    average = dict(learner.average.named_parameters())["language_model." + name]
    torch.testing.assert_close(average, torch.tensor(0.75 * start + 0.25 * moved))


def test_the_adapted_kl_coefficient_is_part_of_the_state(model_path, tmp_path):
    algorithm = AlgorithmSection(kl_loss_coef=0.1, kl_target=1.0)
    learner = make_learner(model_path, algorithm)
    assert learner.current_kl_coef() == 0.1
    learner.set_kl_coef(0.3)
    learner.save_state(tmp_path)
    resumed = make_learner(model_path, algorithm)
    resumed.load_state(tmp_path)
    assert resumed.current_kl_coef() == 0.3


def test_the_adapted_coefficient_weighs_the_kl_in_the_loss(model_path):
    algorithm = AlgorithmSection(kl_loss_coef=0.1, kl_target=1.0)
    batch = random_batch(6, 12, VOCABULARY)
    losses = []
    for coef in (0.1, 0.2, 0.3):
        learner = make_learner(model_path, algorithm)
        ppo = to_ppo_batch(batch, learner.evaluate(batch), algorithm)
        shifted = dataclasses.replace(ppo, ref_logprobs=ppo.ref_logprobs - 0.5 * batch.action_mask)
        learner.set_kl_coef(coef)
        losses.append(learner.update_policy(minibatches(shifted, count=1, epochs=1, seed=0), iteration=0, total=1)[0]["loss"])
    assert losses[2] - losses[1] == pytest.approx(losses[1] - losses[0], rel=1e-3)
    assert losses[1] - losses[0] == pytest.approx(0.1 * (math.exp(-0.5) - 1 + 0.5), rel=1e-3)  # k3 of d = .5
