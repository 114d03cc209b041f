"""A server as engine: token ids go there, token ids and log-probs come back, trouble is tried again or told."""

import json
import threading

import numpy as np
import pytest
from scripted_endpoint import ScriptedEndpoint

from rl.cli import main
from rl.recipe import Recipe
from rollouts.endpoint import EndpointSettings
from rollouts.engine import Request, Sampling
from rollouts.sampler import SamplerUnusable, SamplingError
from rollouts.server_engine import ServerEngine
from rollouts.trajectory import FinishReason

SAMPLING = Sampling(0.7, 0.9, 20, 5, ("END",))


def echo(body, number):
    """As many tokens as are allowed, each one more than the last of the prompt."""
    ids = [body["prompt"][-1] + 1 + step for step in range(body["max_tokens"])]
    logprobs = {"token_logprobs": [-0.5] * len(ids)}
    return 200, {"choices": [{"text": str(ids), "token_ids": ids, "logprobs": logprobs, "finish_reason": "length"}]}


def engine(endpoint, **changes):
    return ServerEngine(EndpointSettings(endpoint.url, "m", first_pause_s=0.01, **changes))


def requests(count):
    return [Request(np.array([7, 10 * index]), SAMPLING) for index in range(count)]


def test_tokens_go_there_and_come_back_with_their_logprobs():
    with ScriptedEndpoint(echo) as endpoint:
        found = engine(endpoint).generate(requests(20), seed=100)
    assert [g.token_ids.tolist() for g in found] == [[10 * i + 1 + step for step in range(5)] for i in range(20)]
    assert found[3].logprobs.tolist() == [-0.5] * 5
    assert found[3].finish_reason is FinishReason.LENGTH
    body = next(body for body in endpoint.requests if body["prompt"] == [7, 30])
    body.pop("path")
    assert body == {
        "model": "m", "prompt": [7, 30], "max_tokens": 5, "temperature": 0.7, "top_p": 0.9, "top_k": 20,
        "stop": ["END"], "seed": 103, "logprobs": 0, "return_token_ids": True,
    }  # fmt: skip


def test_what_fails_for_a_moment_is_asked_again():
    with ScriptedEndpoint(lambda body, number: (503, {}) if number < 3 else echo(body, number)) as endpoint:
        assert len(engine(endpoint).generate(requests(4), seed=0)) == 4
        assert len(endpoint.requests) == 7


def test_what_fails_for_good_ends_the_stream_and_is_told():
    def refuse_one(body, number):
        return (400, {"error": "too long"}) if body["prompt"][-1] == 20 else echo(body, number)

    with ScriptedEndpoint(refuse_one) as endpoint, pytest.raises(SamplingError, match="too long"):
        engine(endpoint).generate(requests(4), seed=0)
    plain = 200, {"choices": [{"text": "hm", "finish_reason": "stop"}]}
    with ScriptedEndpoint(lambda body, number: plain) as endpoint, pytest.raises(SamplingError, match="no token ids"):
        engine(endpoint).generate(requests(1), seed=0)


def test_a_stream_that_is_not_wanted_any_more_ends():
    closed = threading.Event()

    def only_one(body, number):
        assert number == 0 or closed.wait(60)
        return echo(body, number)

    with ScriptedEndpoint(only_one) as endpoint:
        stream = engine(endpoint, concurrency=1).stream(requests(50), seed=0)
        next(stream)
        stream.close()
        closed.set()
        assert len(endpoint.requests) <= 2


def test_a_server_that_is_not_there_is_told_before_anything_is_sampled():
    with pytest.raises(SamplerUnusable, match="no server answers"):
        ServerEngine(EndpointSettings("http://127.0.0.1:9/v1", "m")).wait_ready()


def recipe(**changes):
    rows = {"kind": "message_cache", "prompts": {"source": {"task": "addition"}}, "num_problems": 2,
            "samples_per_prompt": 2, "sampling": {"max_tokens": 4}, "rewards": [{"fn": "math"}]}  # fmt: skip
    engine = {"kind": "server", "max_model_len": 64, "server": {"url": "http://127.0.0.1:9/v1", "model": "m"}}
    return {"name": "r", "model": {"path": "org/m"}, "engine": engine, "stages": {"messages": rows}} | changes


def test_only_pipelines_that_change_no_weights_take_a_server():
    Recipe.model_validate(recipe())
    sft = {"kind": "sft", "phases": [{"steps": 1, "sources": [{"source": {"task": "addition"}}]}],
           "batch_size": 1, "max_length": 64, "optimizer": {"learning_rate": 1e-3}}  # fmt: skip
    with pytest.raises(ValueError, match="a server keeps its weights, and the sft stage sft changes them"):
        Recipe.model_validate(recipe(stages={"sft": sft}))
    with pytest.raises(ValueError, match="kind server needs a section server"):
        Recipe.model_validate(recipe(engine={"kind": "server", "max_model_len": 64}))


def test_the_key_comes_from_the_environment(tmp_path, capsys):
    made = recipe()
    made["engine"]["server"]["api_key_env"] = "NO_SUCH_KEY"
    made["model"] = {"create": {"tokenizer": {"characters": "0123456789"}, "hidden_size": 32, "num_layers": 1,
                     "num_heads": 1, "num_kv_heads": 1, "head_dim": 32, "intermediate_size": 32}}  # fmt: skip
    (tmp_path / "r.yaml").write_text(json.dumps(made))
    assert main(["run", str(tmp_path / "r.yaml"), "--run-dir", str(tmp_path / "run")]) == 2
    assert "no variable NO_SUCH_KEY" in capsys.readouterr().err
