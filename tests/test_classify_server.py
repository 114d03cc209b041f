"""A reward model behind vLLM's /classify: a local HTTP server that speaks the contract, and vLLM's own schema."""

import asyncio
import contextlib
import os
import signal
import sys

import pytest
from fakes import tiny_model
from test_reward_remote import Server
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rewards import load_reward
from rewards.http import RemoteRewardError
from rewards.sequence_scorer import SequenceScorer

PROMPTS = ["a:", "b:", "c:", "d:"]
COMPLETIONS = ["one", "three of them", "!", "0"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    policy = tiny_model(folder / "policy")
    AutoModelForSequenceClassification.from_pretrained(policy, num_labels=1).save_pretrained(folder / "rm")
    AutoTokenizer.from_pretrained(policy).save_pretrained(folder / "rm")
    return str(folder / "rm")


def classify(model):
    """The answer of a server that has the model: fields as vLLM's ClassificationResponse has them."""
    scorer = SequenceScorer(model, device="cpu", batch_tokens=1000)

    def answer(body, number):
        assert body["use_activation"] is False
        scores = scorer.score(body["input"])
        data = [{"index": i, "label": "LABEL_0", "probs": [s], "num_classes": 1} for i, s in enumerate(scores)]
        return 200, {"id": "classify-1", "object": "list", "created": 0, "model": body["model"], "data": data[::-1],
                     "usage": {"prompt_tokens": sum(map(len, body["input"])), "total_tokens": 0}}  # fmt: skip

    return answer


def reward_at(server, model, **options):
    return load_reward("preference", model=model, url=server.url.removesuffix("/score"), served_name="rm", **options)


def test_scores_are_those_of_the_model_here(model):
    here = load_reward("preference", model=model, device="cpu")(prompts=PROMPTS, completions=COMPLETIONS)
    with Server(classify(model)) as server:
        there = reward_at(server, model, batch_tokens=20)(prompts=PROMPTS, completions=COMPLETIONS)
    assert there == pytest.approx(here, abs=1e-6)
    assert {path for path, _, _ in server.requests} == {"/classify"}
    assert {body["model"] for _, _, body in server.requests} == {"rm"}
    assert len(server.requests) > 1  # 20 tokens a request


def test_it_works_inside_an_event_loop(model):
    async def inside():
        return reward_at(server, model)(prompts=PROMPTS, completions=COMPLETIONS)

    with Server(classify(model)) as server:
        assert len(asyncio.run(inside())) == 4


@pytest.mark.parametrize(
    "data",
    [
        [{"index": 0, "probs": [0.5]}],
        [{"index": i, "probs": [0.4, 0.6]} for i in range(4)],
        [{"index": 0, "probs": [0.5]}] * 4,
        [{"index": i, "probs": ["high"]} for i in range(4)],
        None,
    ],
    ids=["too few", "two classes", "one row four times", "text", "no data"],
)
def test_an_answer_without_one_score_per_row_is_an_error(model, data):
    with Server(lambda body, number: (200, {"data": data})) as server:
        with pytest.raises(RemoteRewardError, match="expected one score for each of 4 rows"):
            reward_at(server, model)(prompts=PROMPTS, completions=COMPLETIONS)


def test_a_refusal_is_told_with_the_servers_words(model):
    with Server(lambda body, number: (400, {"error": {"message": "input is too long"}})) as server:
        with pytest.raises(RemoteRewardError, match="status 400: .*input is too long"):
            reward_at(server, model)(prompts=PROMPTS, completions=COMPLETIONS)


def test_what_is_sent_is_a_request_of_the_installed_vllm(model):
    protocol = pytest.importorskip("vllm.entrypoints.pooling.classify.protocol")
    with Server(classify(model)) as server:
        reward_at(server, model)(prompts=PROMPTS, completions=COMPLETIONS)
    (_, _, body) = server.requests[0]
    request = protocol.ClassificationCompletionRequest.model_validate(body)
    assert request.to_pooling_params().use_activation is False
    assert request.input == body["input"]
    assert not request.add_special_tokens
    assert not request.model_extra


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_real_vllm_server_gives_the_same_scores(model, tmp_path):
    import socket
    import subprocess
    import time
    import urllib.request

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # not `vllm serve`: the command asks for a package of the name vllm, and the CPU build has another
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model, "--runner", "pooling", "--served-model-name", "rm", "--dtype", "float32",
               "--max-model-len", "64", "--port", str(port), "--host", "127.0.0.1"]  # fmt: skip
    log = tmp_path / "server.log"
    server = subprocess.Popen(command, stdout=log.open("w"), stderr=subprocess.STDOUT, start_new_session=True,
                              env={**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1"})  # fmt: skip
    try:
        end = time.monotonic() + 500
        while True:
            assert server.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < end, log.read_text()[-3000:]
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                break
            except OSError:
                time.sleep(1)
        here = load_reward("preference", model=model, device="cpu")(prompts=PROMPTS, completions=COMPLETIONS)
        reward = load_reward("preference", model=model, url=f"http://127.0.0.1:{port}", served_name="rm")
        assert reward(prompts=PROMPTS, completions=COMPLETIONS) == pytest.approx(here, abs=1e-4)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()
