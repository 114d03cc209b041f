"""The whole loss of a batch against its formula written out token by token, and that no cut of a batch changes it."""

import dataclasses
import math

import pytest
import torch
from fakes import random_batch, tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st

from rl.batch import take_rows, whole_minibatch
from rl.learner import Learner
from rl.models import load_language_model
from rl.ppo import to_ppo_batch
from rl.recipe import AlgorithmSection, CriticSection, LearnerSection, OptimizerSection

OPTIMIZER = OptimizerSection(learning_rate=1e-3, max_grad_norm=1e9)
TEMPERATURE = 0.8
SETTINGS = {
    "entropy": {"entropy_coef": 0.1},
    "k2": {"kl_loss_coef": 0.3, "kl_loss_estimator": "k2", "loss_average": "response"},
    "k3": {"kl_loss_coef": 0.3, "kl_loss_estimator": "k3", "clip_ratio": 0.05, "clip_ratio_high": 0.1},
    "all": {"entropy_coef": 0.1, "kl_loss_coef": 0.3, "importance_cap": 1.1, "dual_clip": 1.5, "loss_average": "response"},
}


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def make(path, algorithm, *, critic=False, **section):
    learner = Learner(LearnerSection(**section), path, trust_remote_code=False, device="cpu")
    learner.begin_rl(OPTIMIZER, CriticSection(optimizer=OPTIMIZER) if critic else None, algorithm, TEMPERATURE)
    return learner


def shaken(batch, learner, algorithm, seed):
    """A batch of the update whose old, reference and engine's log-probs differ from the policy's."""
    g = torch.Generator().manual_seed(seed)
    noise = lambda: torch.where(batch.action_mask, torch.randn(batch.rewards.shape, generator=g) * 0.3, 0.0)  # noqa: E731
    ppo = to_ppo_batch(batch, learner.evaluate(batch), algorithm)
    return dataclasses.replace(ppo, old_logprobs=ppo.old_logprobs + noise(), ref_logprobs=ppo.old_logprobs + noise(),
                               rollout_logprobs=ppo.old_logprobs + noise(), old_values=noise(), returns=noise())  # fmt: skip


def slow_loss(path, ppo, algorithm):
    """The formula of docs and docstrings, one token at a time."""
    model, total = load_language_model(path).double(), 0.0
    rows = [b for b in range(len(ppo.token_ids)) if ppo.action_mask[b].any()]
    for b in rows:
        with torch.no_grad():
            logits = model(ppo.token_ids[b : b + 1]).logits[0] / TEMPERATURE
        tokens = [t for t in range(ppo.token_ids.shape[1]) if ppo.action_mask[b, t]]
        share = 1 / (len(tokens) * len(rows)) if algorithm.loss_average == "response" else 1 / int(ppo.action_mask.sum())
        for t in tokens:
            p = logits[t - 1].softmax(-1)
            logp = math.log(p[ppo.token_ids[b, t]])
            old, reference, engine, a = (float(x[b, t]) for x in (ppo.old_logprobs, ppo.ref_logprobs, ppo.rollout_logprobs,
                                                                  ppo.advantages))  # fmt: skip
            ratio, low = math.exp(logp - old), 1 - algorithm.clip_ratio
            inside = min(max(ratio, low), 1 + (algorithm.clip_ratio_high or algorithm.clip_ratio))
            gain = min(ratio * a, inside * a)
            if algorithm.dual_clip is not None and a < 0:
                gain = max(gain, algorithm.dual_clip * a)
            if algorithm.importance_cap is not None:
                gain *= min(math.exp(old - engine), algorithm.importance_cap)
            gain += algorithm.entropy_coef * float(-(p * p.log()).sum())
            d = logp - reference
            kl = d * d / 2 if algorithm.kl_loss_estimator == "k2" else math.exp(-d) - 1 + d
            total -= share * (gain - algorithm.kl_loss_coef * kl)
    return total


@pytest.mark.parametrize("name", SETTINGS)
def test_the_loss_of_a_batch_is_its_formula(model_path, name):
    algorithm = AlgorithmSection(advantage="grpo", whiten_advantages=False, **SETTINGS[name])
    learner = make(model_path, algorithm, micro_batch_tokens=20)
    ppo = shaken(random_batch(6, 12, 50, seed=4), learner, algorithm, seed=1)
    (step,) = learner.update_policy([whole_minibatch(ppo)], iteration=0, total=1)
    assert step["loss"] == pytest.approx(slow_loss(model_path, ppo, algorithm), rel=1e-4, abs=1e-5)


def losses_and_gradients(learner, piece):
    for trained in (learner.trained_policy, learner.trained_critic):
        trained.optimizer.step = lambda: None
    losses = [learner.update_policy([piece], iteration=0, total=1)[0]["loss"],
              learner.update_critic([piece], iteration=0, total=1)[0]["loss"]]
    modules = (learner.policy, learner.trained_critic.module)
    return losses, [p.grad.clone() for module in modules for p in module.parameters()]


@settings(max_examples=12, deadline=None)
@given(st.integers(2, 7), st.integers(4, 16), st.integers(0, 999), st.integers(1, 60), st.booleans(), st.data())
def test_no_cut_of_a_batch_changes_its_losses_or_gradients(model_path, rows, width, seed, budget, packed, data):
    algorithm = AlgorithmSection(gae_lambda=0.9, kl_loss_coef=0.1, entropy_coef=0.01, importance_cap=1.2,
                                 loss_average=data.draw(st.sampled_from(["token", "response"])))  # fmt: skip
    plain = make(model_path, algorithm, critic=True)
    ppo = shaken(random_batch(rows, width, 50, seed=seed), plain, algorithm, seed)
    whole = whole_minibatch(ppo)
    expected_losses, expected = losses_and_gradients(plain, whole)
    rank_of = torch.tensor(data.draw(st.lists(st.integers(0, 2), min_size=rows, max_size=rows)))
    losses, gradients = [0.0, 0.0], [torch.zeros_like(x) for x in expected]
    for rank in rank_of.unique():  # each rank has its share of the rows, and cuts it again
        learner = make(model_path, algorithm, critic=True, micro_batch_tokens=budget, packing=packed, head_chunk_tokens=5)
        share = dataclasses.replace(whole, batch=take_rows(ppo, (rank_of == rank).nonzero()[:, 0]))
        own_losses, own = losses_and_gradients(learner, share)
        losses = [a + b for a, b in zip(losses, own_losses)]
        gradients = [a + b for a, b in zip(gradients, own)]
    assert losses == pytest.approx(expected_losses, rel=1e-4, abs=1e-6)
    for found, wanted in zip(gradients, expected):
        scale = wanted.abs().max().clamp(min=1e-3)
        torch.testing.assert_close(found / scale, wanted / scale, atol=1e-4, rtol=1e-3)
