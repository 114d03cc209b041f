"""Real Ray, real vLLM: weights arrive, log-probs agree, a killed engine comes back. Two learner ranks equal one."""

import numpy as np
import pytest
import torch
from fakes import random_batch, tiny_model
from transformers import AutoModelForCausalLM

from rl.batch import minibatches
from rl.cluster import Bundles, RayRanks, ray_cluster, start_engines
from rl.errors import RunFailed
from rl.group import InProcessRank, LearnerGroup
from rl.learner import Learner
from rl.ppo import to_ppo_batch
from rl.recipe import (
    AlgorithmSection,
    CriticSection,
    EngineSection,
    LearnerSection,
    ModelSection,
    OptimizerSection,
    RaySection,
)
from rollouts.engine import Request, Sampling
from rollouts.truncation import Truncation, cut_down

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def ray():
    with ray_cluster(RaySection(object_store_gb=0.2), num_cpus=3):
        import ray

        yield ray


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def make_pool(model_path, kind, *, on_event=lambda message: None, **changes):
    section = EngineSection(kind=kind, max_model_len=64, max_num_seqs=32, kv_cache_gb=0.05, start_timeout_s=600)
    section = section.model_copy(update={"max_restarts": 1} | changes)
    pool = start_engines(section, ModelSection(path=model_path), model_path, on_event=on_event)
    pool.wait_ready()
    return pool


def requests(count, temperature=0.8, top_p=1.0, top_k=0):
    rng = np.random.default_rng(0)
    sampling = Sampling(temperature, top_p, top_k, 12)
    return [Request(rng.integers(3, 40, size=rng.integers(2, 9)), sampling) for _ in range(count)]


def largest_gap(model, asked, generations):
    """max |engine - plain transformers forward pass| over sampled tokens, nats."""
    gaps = []
    for request, generation in zip(asked, generations):
        ids = torch.tensor([[*request.prompt_token_ids, *generation.token_ids]])
        with torch.no_grad():
            logits = model(ids).logits[0] / request.sampling.temperature
            scores = cut_down(logits, Truncation(request.sampling.top_p, request.sampling.top_k)).log_softmax(-1)
        start = len(request.prompt_token_ids)
        for i, token in enumerate(generation.token_ids):
            gaps.append(abs(float(scores[start + i - 1, int(token)]) - float(generation.logprobs[i])))
    return max(gaps)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("vllm", {}),
        ("hf", {}),
        pytest.param("vllm", {"tensor_parallel": 2, "cpus": 2}, marks=pytest.mark.slow),
    ],
)
def test_published_weights_are_the_ones_that_sample(ray, model_path, tmp_path, kind, changes):
    pool = make_pool(model_path, kind, **changes)
    old = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).eval()
    new = AutoModelForCausalLM.from_pretrained(tiny_model(tmp_path / "other", seed=7), dtype=torch.float32).eval()
    asked = requests(8)
    for version, model in enumerate((old, new)):
        weights = {name: x.detach().numpy() for name, x in model.named_parameters()}
        pool.load_weights(weights, version)
        generations = pool.generate(asked, seed=3)
        assert {int(v) for g in generations for v in g.versions} == {version}
        assert largest_gap(model, asked, generations) < 1e-4
        cut = requests(8, top_p=0.7, top_k=20)
        assert largest_gap(model, cut, pool.generate(cut, seed=4)) < 1e-4  # of what top-k and top-p leave
        again = pool.generate(asked, seed=3)
        assert [g.token_ids.tolist() for g in again] == [g.token_ids.tolist() for g in generations]
    assert largest_gap(old, asked, generations) > 1e-2  # the check notices stale weights
    for seat in pool._seats:
        ray.kill(seat.actor)


def test_a_killed_engine_is_replaced_with_the_current_weights_until_the_budget_is_spent(ray, model_path):
    told = []
    pool = make_pool(model_path, "vllm", on_event=told.append)
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).eval()
    weights = {name: x.detach().numpy() * 1.5 for name, x in model.named_parameters()}
    pool.load_weights(weights, 4)
    asked = requests(4)
    before = pool.generate(asked, seed=1)
    ray.kill(pool._seats[0].actor)
    after = pool.generate(asked, seed=1)
    assert [g.token_ids.tolist() for g in after] == [g.token_ids.tolist() for g in before]
    assert {int(v) for g in after for v in g.versions} == {4}
    assert pool.restarts == 1
    assert len(told) == 1
    ray.kill(pool._seats[0].actor)
    with pytest.raises(RunFailed, match="max_restarts is used up"):
        pool.generate(asked, seed=1)


@pytest.mark.slow
def test_an_engine_and_a_rank_share_a_bundle_and_use_it_in_turn(ray, model_path):
    engine = EngineSection(kind="hf", max_model_len=64, max_num_seqs=32, replicas=2, cpus=0.5, colocate=True)
    learner = LearnerSection(ranks=2, cpus=0.5)
    bundles = Bundles(engine, learner)
    pool = start_engines(engine, ModelSection(path=model_path), model_path, on_event=print, bundles=bundles)
    group = LearnerGroup(RayRanks(learner, ModelSection(path=model_path), model_path, bundles))
    table = ray.util.placement_group_table(bundles._group)
    assert table["bundles"] == {0: {"CPU": 1.0}, 1: {"CPU": 1.0}}
    group.begin_rl(OptimizerSection(learning_rate=1e-3), None, AlgorithmSection(advantage="grpo"), 0.8)
    for version in range(2):
        pool.load_weights(group.weights(), version)
        generations = pool.generate(requests(8), seed=version)
        assert {int(v) for g in generations for v in g.versions} == {version}
        pool.sleep()
    for seat in pool._seats:
        ray.kill(seat.actor)
    ray.util.remove_placement_group(bundles._group)


def test_two_ranks_learn_what_one_rank_learns(ray, model_path, tmp_path):
    algorithm = AlgorithmSection(minibatches=2, kl_loss_coef=0.1, kl_reward_coef=0.05)
    optimizer = OptimizerSection(learning_rate=1e-3)
    critic = CriticSection(optimizer=optimizer, minibatches=2)
    alone = LearnerGroup(InProcessRank(Learner(LearnerSection(), model_path, trust_remote_code=False, device="cpu")))
    shared = LearnerGroup(RayRanks(LearnerSection(ranks=2), ModelSection(path=model_path), model_path))
    curves = []
    for group in (alone, shared):
        group.begin_rl(optimizer, critic, algorithm, 1.0)
        curves.append([_iteration(group, algorithm, step) for step in range(20)])
    for one, two in zip(*curves):
        assert two == pytest.approx(one, rel=2e-3, abs=2e-4)
    assert curves[0][0] != pytest.approx(curves[0][-1], rel=1e-2)
    single, double = alone.weights(), shared.weights()
    assert set(single) == set(double)
    _check_state_moves_between_rank_counts(alone, shared, algorithm, tmp_path)


def _iteration(group, algorithm, step):
    batch = random_batch(7, 10, 50, seed=step % 3)
    ppo = to_ppo_batch(batch, group.evaluate(batch), algorithm)
    pieces = minibatches(ppo, count=2, epochs=1, seed=step)
    critic = group.update_critic(pieces, iteration=step, total=20)
    policy = group.update_policy(pieces, iteration=step, total=20)
    return [s["loss"] for s in critic + policy] + [s["grad_norm"] for s in critic + policy]


def _check_state_moves_between_rank_counts(alone, shared, algorithm, folder):
    """What one rank saved, two ranks continue from."""
    alone.save_state(folder)
    shared.load_state(folder)
    for name, x in alone.weights().items():
        assert np.array_equal(x, shared.weights()[name]), name
    assert _iteration(shared, algorithm, 3) == pytest.approx(_iteration(alone, algorithm, 3), rel=2e-3, abs=2e-4)
