"""A request that no engine can answer: the others are delivered, it is named and counted, and the recipe decides."""

import dataclasses

import numpy as np
import pytest
from fakes import SteppingEngine, tiny_model
from fragile_engines import Poisoned, PoisonedVllm
from test_engine_pool import IMPORTS
from test_loop import make_loop

from rl.cluster import ray_cluster
from rl.engine_pool import EnginePool, PoolSettings
from rl.recipe import RaySection
from rollouts.collect import TokenizedPrompt, collect
from rollouts.engine import GivenUp, Request, RequestRefused, Sampling
from rollouts.trajectory import Prompt
from rollouts.vllm_engine import CPU_ENVIRONMENT, ENVIRONMENT, VllmSettings


class Unable(SteppingEngine):
    """Gives up the requests with these indices."""

    def __init__(self, config, tokenizer, given_up):
        super().__init__(config, tokenizer)
        self.given_up = given_up

    def stream(self, requests, *, seed):
        for index, generation in super().stream(requests, seed=seed):
            yield index, self.given_up.get(index, generation)

    def fault_metrics(self):
        return {}


def unable(loop, given_up):
    engine = Unable(loop.engine.model.config, loop.tokenizer, given_up)
    engine.load_weights(loop.learner.weights(), 0)
    return dataclasses.replace(loop, engine=engine)


@pytest.mark.parametrize("changes", [{}, {"long_tail": {"extra_prompts": 2}, "algorithm": {"importance_cap": 2.0}}])
def test_its_prompt_is_dropped_where_the_recipe_allows_it(tmp_path, changes):
    loop, pools = make_loop(tmp_path, iterations=1, sampling={"max_tokens": 8}, samples_per_prompt=2, **changes)
    told, iterations = [], []
    both = dict.fromkeys((2, 3), GivenUp("it breaks engines", 4, allowed=True))  # the samples of one prompt
    loop = dataclasses.replace(unable(loop, both), tell=told.append)
    with pools:
        loop.run(0, iterations.append)
    (iteration,) = iterations
    assert iteration.metrics["prompts_unanswerable"] == 1
    assert len(told) == 1
    assert "cannot be answered: it breaks engines. The prompt: '" in told[0]
    assert len(iteration.scored) == 2 * (8 if changes else 7)


def test_the_run_ends_with_its_prompt_where_it_does_not(tmp_path):
    loop, pools = make_loop(tmp_path, iterations=1, sampling={"max_tokens": 4})
    with pools, pytest.raises(RequestRefused, match=r"breaks engines.* The prompt: '.+'"):
        unable(loop, {3: GivenUp("it breaks engines", 4)}).run(0, print)


def test_nothing_is_learned_from_no_prompt_at_all(tmp_path):
    loop, pools = make_loop(tmp_path, iterations=1, sampling={"max_tokens": 4})
    nobody = {index: GivenUp("no", allowed=True) for index in range(1000)}
    with pools, pytest.raises(RequestRefused, match="cannot be answered: no."):
        unable(loop, nobody).run(0, print)


POISON = 39  # an engine that has a prompt with this token breaks


def check_pool(make, count):
    told = []
    pool = EnginePool(make, PoolSettings(2, 8, "load", 2, 300.0, 300.0, max_failed_requests=1), on_event=told.append)
    pool.wait_ready()
    sampling = Sampling(1.0, 1.0, 0, 3)
    asked = [Request(np.array([5, index, 7]), sampling) for index in range(count)]
    asked[count // 2] = Request(np.array([5, POISON, 7]), sampling)
    found = dict(pool.stream(asked, seed=0))
    assert sorted(found) == list(range(count))
    given_up = found.pop(count // 2)
    assert isinstance(given_up, GivenUp)
    assert given_up.allowed
    assert "the last time alone" in given_up.reason
    assert all(len(generation.token_ids) for generation in found.values())
    assert pool.fault_metrics()["requests_given_up"] == 1
    assert pool.fault_metrics()["engine_restarts"] == given_up.breaks == len(told)
    assert pool._restarts_left == 2  # none of these restarts counts
    return pool


@pytest.mark.engine
@pytest.mark.slow
def test_a_request_at_which_engines_raise_is_found_among_others():
    with ray_cluster(RaySection(object_store_gb=0.1), num_cpus=2):
        import ray

        actor = ray.remote(num_cpus=1, runtime_env={"env_vars": IMPORTS})(Poisoned)
        check_pool(lambda index: actor.remote(POISON), 8)


@pytest.mark.engine
@pytest.mark.slow
def test_a_request_at_which_vllm_raises_is_found_among_others(tmp_path):
    settings = VllmSettings(
        tiny_model(tmp_path / "model"), "float32", 64, 8, 0.05, 0.9, on_gpu=False, trust_remote_code=False
    )
    with ray_cluster(RaySection(object_store_gb=0.1), num_cpus=2):
        import ray

        environment = {"env_vars": ENVIRONMENT | CPU_ENVIRONMENT | IMPORTS}
        actor = ray.remote(num_cpus=1, runtime_env=environment)(PoisonedVllm)
        pool = check_pool(lambda index: actor.remote(settings, POISON), 20)
        sampling, prompt = Sampling(1.0, 1.0, 0, 3), Prompt("x", "a poisoned prompt", {}, "task")
        with pytest.raises(RequestRefused, match="'a poisoned prompt'"):
            asked = [TokenizedPrompt(prompt, np.array([POISON, 5]))]
            collect(pool, asked, samples_per_prompt=1, sampling=sampling, seed=0)
