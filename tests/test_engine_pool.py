"""Real engines in real actors that are killed, stopped, or refuse: each request is answered once, by current weights."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import tiny_model
from fragile_engines import FragileHf, FragileVllm
from transformers import AutoModelForCausalLM

from rl.cluster import ray_cluster
from rl.engine_pool import EnginePool, PoolSettings
from rl.errors import RunFailed
from rl.recipe import RaySection
from rollouts.engine import Request, Sampling
from rollouts.vllm_engine import CPU_ENVIRONMENT, ENVIRONMENT, VllmSettings

pytestmark = pytest.mark.engine
IMPORTS = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent)])}


@pytest.fixture(scope="module")
def ray():
    with ray_cluster(RaySection(object_store_gb=0.2), num_cpus=4):
        import ray

        yield ray


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def make_pool(ray, kind, model_path, faults, *, replicas, told, deal="load", max_restarts=8, answer_timeout_s=300.0):
    if kind == "vllm":
        environment = {"env_vars": ENVIRONMENT | CPU_ENVIRONMENT | IMPORTS}
        settings = VllmSettings(model_path, "float32", 256, 8, 0.05, 0.9, on_gpu=False, trust_remote_code=False)
        actor = ray.remote(num_cpus=1, runtime_env=environment)(FragileVllm)
        make = lambda index: actor.remote(settings, faults)  # noqa: E731
    else:
        actor = ray.remote(num_cpus=1, runtime_env={"env_vars": IMPORTS})(FragileHf)
        make = lambda index: actor.remote(model_path, faults)  # noqa: E731
    pool = EnginePool(
        make, PoolSettings(replicas, 8, deal, max_restarts, 300.0, answer_timeout_s), on_event=told.append
    )
    pool.wait_ready()
    return pool


def requests(count, max_tokens=40):
    rng = np.random.default_rng(0)
    return [Request(rng.integers(3, 40, size=rng.integers(2, 9)), Sampling(0.8, 1.0, 0, max_tokens)) for _ in range(count)]


def check(model, asked, found, version):
    """Each request once, with log-probs of these weights."""
    assert sorted(found) == list(range(len(asked)))
    for index, generation in found.items():
        ids = torch.tensor([[*asked[index].prompt_token_ids, *generation.token_ids]])
        with torch.no_grad():
            scores = (model(ids).logits[0] / 0.8).log_softmax(-1)
        start = len(asked[index].prompt_token_ids)
        own = scores[torch.arange(start - 1, ids.shape[1] - 1), ids[0, start:]]
        np.testing.assert_allclose(generation.logprobs, own.numpy(), atol=1e-4)
        assert set(generation.versions.tolist()) == {version}


def model_and_weights(model_path, factor):
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(factor)
    return model, {name: x.detach().numpy() for name, x in model.named_parameters()}


def kill_after(ray, pool, asked, seed, count, victims):
    """Streams, and kills engines when `count` responses are in."""
    found = {}
    for index, generation in pool.stream(asked, seed=seed):
        assert index not in found
        found[index] = generation
        if len(found) == count:
            for victim in victims:
                ray.kill(pool._seats[victim].actor)
    return found


def test_engines_that_die_lose_nothing_and_come_back_with_the_current_weights(ray, model_path, tmp_path):
    told = []
    pool = make_pool(ray, "vllm", model_path, tmp_path, replicas=2, told=told)
    asked = requests(48)
    model, weights = model_and_weights(model_path, 1.3)
    pool.load_weights(weights, 4)
    check(model, asked, kill_after(ray, pool, asked, 1, 5, [0]), 4)
    assert pool.restarts == 1
    assert pool.dealt_again > 0
    (tmp_path / "die before an update").touch()
    (tmp_path / "die in an update").touch()
    model, weights = model_and_weights(model_path, 0.7)
    pool.load_weights(weights, 5)
    assert pool.restarts == 3
    check(model, asked, kill_after(ray, pool, asked, 2, 7, [0, 1]), 5)
    assert pool.restarts == 5
    assert len(told) == 5
    for seat in pool._seats:
        ray.kill(seat.actor)


def test_an_engine_that_hangs_is_killed_and_one_that_refuses_is_asked_again(ray, model_path, tmp_path):
    told = []
    pool = make_pool(ray, "hf", model_path, tmp_path, replicas=2, told=told, answer_timeout_s=6.0)
    asked = requests(12, max_tokens=6)
    model, weights = model_and_weights(model_path, 1.0)
    pool.load_weights(weights, 2)
    (tmp_path / "hang").touch()
    (tmp_path / "refuse one").touch()
    check(model, asked, dict(pool.stream(asked, seed=1)), 2)
    assert not list(tmp_path.iterdir())
    assert pool.restarts >= 1
    assert any("has not answered for 6 s" in message for message in told)
    assert pool.refusals == 1
    for seat in pool._seats:
        ray.kill(seat.actor)


def test_one_engine_that_is_killed_gives_the_same_tokens_again(ray, model_path, tmp_path):
    pool = make_pool(ray, "hf", model_path, tmp_path, replicas=1, told=[], max_restarts=1)
    asked = requests(12, max_tokens=6)
    _, weights = model_and_weights(model_path, 1.0)
    pool.load_weights(weights, 2)
    before = pool.generate(asked, seed=1)
    after = kill_after(ray, pool, asked, 1, 5, [0])
    assert [after[index].token_ids.tolist() for index in range(12)] == [g.token_ids.tolist() for g in before]
    ray.kill(pool._seats[0].actor)
    pool.load_weights(weights, 3)  # what was learned can still be saved
    with pytest.raises(RunFailed, match="max_restarts is used up"):
        pool.generate(asked, seed=1)


def check_given_back(ray, actor, model, asked):
    """Two of four requests are given back, and go on as another engine would take them: with the tokens they have."""
    progress = ray.get(actor.advance.remote(list(enumerate(asked)), seed=1))
    given = dict(ray.get(actor.give_back.remote([1, 2, 77])))
    done = dict(progress.finished)
    assert set(given) == {1, 2} - set(done)
    asked = [replace(request, begun=given.get(i, request.begun)) for i, request in enumerate(asked)]
    new = [(i, asked[i]) for i in given]
    while len(done) < len(asked):
        progress = ray.get(actor.advance.remote(new, seed=None))
        done, new = {**done, **dict(progress.finished)}, []
    for index, begun in given.items():
        assert done[index].token_ids[: len(begun.token_ids)].tolist() == begun.token_ids.tolist()
    check(model, asked, done, 2)


def test_a_response_that_is_paused_goes_on_under_new_weights(ray, model_path, tmp_path):
    pool = make_pool(ray, "vllm", model_path, tmp_path, replicas=1, told=[])
    asked = requests(16, max_tokens=200)
    first, weights = model_and_weights(model_path, 1.3)
    pool.load_weights(weights, 1)
    stream = pool.stream(asked, seed=1)
    found = dict([next(stream)])
    paused = pool.pause()
    assert set(found) | set(paused.finished) | set(paused.begun) == set(range(16))
    assert len(found) + len(paused.finished) + len(paused.begun) == 16
    assert any(len(begun.token_ids) for begun in paused.begun.values())
    second, weights = model_and_weights(model_path, 0.7)
    pool.load_weights(weights, 2)
    rest = sorted(paused.begun)
    again = [Request(asked[i].prompt_token_ids, asked[i].sampling, begun=paused.begun[i]) for i in rest]
    for number, generation in pool.stream(again, seed=2):
        begun = paused.begun[rest[number]]
        size = len(begun.token_ids)
        assert generation.token_ids[:size].tolist() == begun.token_ids.tolist()
        assert generation.versions.tolist() == [1] * size + [2] * (len(generation.token_ids) - size)
        assert len(generation.token_ids) <= 200
        ids = torch.tensor([[*again[number].prompt_token_ids, *generation.token_ids]])
        with torch.no_grad():
            scores = [(model(ids).logits[0] / 0.8).log_softmax(-1) for model in (first, second)]
        for place in range(len(generation.token_ids)):
            t = len(again[number].prompt_token_ids) + place
            own = scores[0 if place < size else 1][t - 1, ids[0, t]]
            assert abs(float(own) - generation.logprobs[place]) < 1e-4
    check_given_back(ray, pool._seats[0].actor, second, asked[:4])
    for seat in pool._seats:
        ray.kill(seat.actor)
