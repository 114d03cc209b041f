"""Top-k and top-p: engine and trainer leave the same tokens, and log-probs are of the distribution that is left."""

import dataclasses

import numpy as np
import pytest
import torch
from fakes import random_batch, tiny_model
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, TopKLogitsWarper, TopPLogitsWarper

from rl.batch import minibatches, take_rows
from rl.group import InProcessRank, LearnerGroup
from rl.learner import Learner
from rl.ppo import to_ppo_batch
from rl.recipe import AlgorithmSection, LearnerSection, OptimizerSection
from rl.token_sets import NO_SETS, TokenSets
from rollouts.decoding import decode
from rollouts.engine import Sampling
from rollouts.truncation import Truncation, cut_down

OPTIMIZER = OptimizerSection(learning_rate=1e-2)
VOCABULARY = 40


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def slowly(row, top_p, top_k):
    """The tokens of one distribution that are left, one by one."""
    left = sorted(range(len(row)), key=lambda token: -row[token])
    if top_k:
        left = [token for token in left if row[token] >= row[left[min(top_k, len(left)) - 1]]]
    total = sum(np.exp(row[token]) for token in left)
    chosen, mass = [], 0.0
    for token in left:
        if mass < top_p - 1e-12 or not chosen:
            chosen.append(token)
        mass += np.exp(row[token]) / total
    return set(chosen)


@given(st.integers(0, 2**31), st.sampled_from([0.05, 0.3, 0.7, 0.95, 1.0]), st.sampled_from([0, 1, 3, 12, 50]))
def test_what_is_left_is_what_counting_leaves(seed, top_p, top_k):
    logits = torch.randn(3, 12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3
    left = cut_down(logits, Truncation(top_p, top_k)) > -torch.inf
    for row, own in zip(logits.log_softmax(-1).numpy(), left):
        assert set(own.nonzero()[:, 0].tolist()) == slowly(row, top_p, top_k)


@pytest.mark.parametrize(("top_p", "top_k"), [(0.8, 0), (1.0, 7), (0.6, 9)])
def test_transformers_and_vllm_leave_the_same(top_p, top_k):
    logits = torch.randn(64, 50, generator=torch.Generator().manual_seed(1)) * 2
    expected = logits
    for warper in ([TopKLogitsWarper(top_k)] if top_k else []) + ([TopPLogitsWarper(top_p)] if top_p < 1 else []):
        expected = warper(None, expected)
    torch.testing.assert_close(cut_down(logits, Truncation(top_p, top_k)), expected)
    pytest.importorskip("vllm")
    from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p_pytorch

    k = torch.full((64,), top_k or 50)
    found = apply_top_k_top_p_pytorch(logits.clone(), k, torch.full((64,), top_p), allow_cpu_sync=True)
    torch.testing.assert_close(cut_down(logits, Truncation(top_p, top_k)), found)


def learner(model_path, truncation, algorithm, **changes):
    made = Learner(LearnerSection(**changes), model_path, trust_remote_code=False, device="cpu")
    made.begin_rl(OPTIMIZER, None, algorithm, 0.7, truncation)
    return made


def sampled_batch(model_path, sampling):
    """Responses that were really sampled, with the engine's log-probs, and a random advantage."""
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).eval()
    rng = np.random.default_rng(0)
    prompts = [rng.integers(3, VOCABULARY, size=int(n)) for n in rng.integers(2, 7, size=6)]
    torch.manual_seed(3)
    found = decode(model, prompts, sampling, end=frozenset())
    batch = random_batch(6, 6 + sampling.max_tokens, VOCABULARY)
    fields = {name: torch.zeros_like(getattr(batch, name)) for name in ("token_ids", "attention_mask", "action_mask",
                                                                        "rollout_logprobs", "rewards")}  # fmt: skip
    for row, (prompt, one) in enumerate(zip(prompts, found)):
        start, end = len(prompt), len(prompt) + len(one.token_ids)
        fields["token_ids"][row, :end] = torch.from_numpy(np.concatenate([prompt, one.token_ids]))
        fields["attention_mask"][row, :end] = True
        fields["action_mask"][row, start:end] = True
        fields["rollout_logprobs"][row, start:end] = torch.from_numpy(one.logprobs)
        fields["rewards"][row, end - 1] = float(row % 3)
    return dataclasses.replace(batch, **fields)


ALGORITHM = AlgorithmSection(advantage="reinforce_pp", measure_kl=True, entropy_coef=0.01)


@pytest.mark.parametrize(("top_p", "top_k"), [(0.6, 0), (1.0, 5), (0.8, 12)])
def test_on_policy_the_ratio_is_one_to_engine_old_and_reference(model_path, top_p, top_k):
    batch = sampled_batch(model_path, Sampling(0.7, top_p, top_k, 8))
    made = learner(model_path, Truncation(top_p, top_k), ALGORITHM)
    before = made.evaluate(batch)
    mask = batch.action_mask
    torch.testing.assert_close(before.logprobs[mask], batch.rollout_logprobs[mask], atol=2e-5, rtol=0)
    torch.testing.assert_close(before.ref_logprobs, before.logprobs)
    metrics = before.token_sets.metrics()
    assert metrics["truncation/outside_share"] == 0
    assert metrics["truncation/tokens_left"] < VOCABULARY
    whole = learner(model_path, Truncation(), ALGORITHM).evaluate(batch)
    assert (whole.logprobs - batch.rollout_logprobs)[mask].abs().max() > 0.1  # the check notices the truncation
    steps = made.update_policy(minibatches(to_ppo_batch(batch, before, ALGORITHM), count=1, epochs=2, seed=0),
                               iteration=0, total=1)  # fmt: skip
    assert steps[0]["old_gap_max"] < 1e-5
    assert steps[1]["old_gap_max"] > 1e-3


def test_the_gradient_is_that_of_the_policy_over_the_tokens_that_are_left(model_path):
    # the oracle: log-probs by hand over the kept tokens of each position, differentiated with the loss by hand
    truncation = Truncation(0.7, 9)
    batch = sampled_batch(model_path, Sampling(0.7, 0.7, 9, 5))
    algorithm = AlgorithmSection(advantage="reinforce_pp")
    made = learner(model_path, truncation, algorithm)
    ppo = to_ppo_batch(batch, made.evaluate(batch), algorithm)
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    loss = torch.zeros(())
    for row, t in batch.action_mask.nonzero().tolist():
        logits = model(batch.token_ids[row : row + 1, :t]).logits[0, -1] / 0.7
        left = (cut_down(logits.detach()[None], truncation)[0] > -torch.inf).nonzero()[:, 0]
        chosen = logits[batch.token_ids[row, t]] - logits[left].logsumexp(0)
        loss = loss - (chosen - chosen.detach()).exp() * ppo.advantages[row, t]  # the ratio is 1, nothing is clipped
    (loss / batch.action_mask.sum()).backward()
    expected = torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).norm()
    (step,) = made.update_policy(minibatches(ppo, count=1, epochs=1, seed=0), iteration=0, total=1)
    assert step["grad_norm"] == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("changes", [{"micro_batch_tokens": 20}, {"packing": True}, {"head_chunk_tokens": 3}])
def test_sets_follow_their_tokens_through_every_cut(model_path, changes):
    batch, truncation = sampled_batch(model_path, Sampling(0.7, 0.8, 0, 6)), Truncation(0.8, 0)
    results = []
    for own in ({}, changes):
        group = LearnerGroup(InProcessRank(learner(model_path, truncation, ALGORITHM, **own)))
        ppo = to_ppo_batch(batch, group.evaluate(batch), ALGORITHM)
        ppo = take_rows(ppo, torch.tensor([4, 1, 5, 0]))
        results.append(group.update_policy(minibatches(ppo, count=2, epochs=1, seed=2), iteration=0, total=1))
    for step, other in zip(*results):
        assert other["grad_norm"] == pytest.approx(step["grad_norm"], rel=1e-4)
    assert results[1][0]["old_gap_max"] < 1e-5


def test_a_token_that_is_left_out_is_in_its_set_all_the_same_and_counted():
    kept = torch.tensor([[True, True, False], [False, True, False], [True, False, True]])
    mask = torch.tensor([[False, True, True], [False, False, True]])
    sets = TokenSets.of([(kept[:2], torch.tensor([0, 2])), (kept[2:], torch.tensor([2]))], mask)
    sizes, ids = sets.flat(mask)
    assert (sizes.tolist(), ids.tolist()) == ([2, 2, 2], [0, 1, 1, 2, 0, 2])
    assert sets.metrics() == pytest.approx({"truncation/tokens_left": 2.0, "truncation/outside_share": 1 / 3})
    without_first = mask & torch.tensor([[False], [True]])  # a row that is not learned from
    sizes, ids = sets.flat(without_first)
    assert (sizes.tolist(), ids.tolist()) == ([2], [0, 2])
    assert NO_SETS.flat(mask) is None
