"""Local models behind the asynchronous view: vLLM in a process of its own, and any engine in batches."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import TorchEngine, picture_prompt, tiny_model, tiny_vision_model
from transformers import AutoConfig, AutoTokenizer

from rl.inference.open_sampler import LocalModel, open_local
from rollouts.batch_sampler import BatchSampler
from rollouts.engine import Sampling
from rollouts.rounds import RoundSettings, solve
from rollouts.sampler import Reply, SamplerUnusable, SamplingError

SAMPLING = Sampling(1.0, 1.0, 0, 12)

PROGRAM = """
import asyncio, json, sys
from rl.inference.open_sampler import LocalModel, open_local
from rollouts.engine import Sampling
from rollouts.rounds import RoundSettings, solve
from rollouts.sampler import Reply, SamplerUnusable, SamplingError

S = Sampling(1.0, 1.0, 0, 12)

async def main(model):
    opened = open_local(LocalModel(model, "vllm", 96, 16, 0.05, None, trust_remote_code=False))
    sampler, out = opened.sampler, {}
    one, again, other = await asyncio.gather(*(sampler.sample("1+1=", S, seed=s) for s in (1, 1, 2)))
    out["equal_seeds"], out["other_seed"] = one.text == again.text, one.text == other.text
    pieces = [piece async for piece in sampler.stream("1+1=", S, seed=1)]
    out["streamed"] = ["".join(pieces[:-1]) == one.text, isinstance(pieces[-1], Reply), len(pieces) > 3]
    out["tokens"] = [pieces[-1].completion_tokens, one.completion_tokens, one.prompt_tokens]
    good, bad = await asyncio.gather(sampler.sample("1", S, seed=1), sampler.sample("1" * 200, S, seed=1), return_exceptions=True)
    out["too_long"] = [type(good).__name__, type(bad).__name__]
    long = asyncio.create_task(sampler.sample("1+1=", Sampling(1.0, 1.0, 0, 80), seed=5))
    while not sampler._waiting:
        await asyncio.sleep(0)
    long.cancel()
    await asyncio.gather(long, return_exceptions=True)
    await sampler.sample("2", S, seed=1)
    out["cancelled"] = [long.cancelled(), len(sampler._waiting)]
    problems = [solve(f"{i}+1=", sampler, RoundSettings((6,), "{{ messages | length }}:{{ problem }}"), S, seed=i) for i in range(8)]
    rounds = await asyncio.gather(*problems)
    out["rounds"] = [[len(one.replies) for one in own] for own in rounds]
    out["room"] = sampler.room("1+1=")
    waiting = asyncio.create_task(sampler.sample("1+1=", Sampling(1.0, 1.0, 0, 80), seed=5))
    await asyncio.sleep(0)
    await sampler.close()
    out["closed"] = [type(error).__name__ for error in await asyncio.gather(waiting, sampler.sample("1", S, seed=0), return_exceptions=True)]
    print("RESULT" + json.dumps(out))

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.engine
def test_the_vllm_sampler(tmp_path):
    model = tiny_model(tmp_path / "m")
    root = Path(__file__).parent.parent
    run = subprocess.run([sys.executable, "-c", PROGRAM, model], capture_output=True, text=True, timeout=280, cwd=root)
    assert "RESULT" in run.stdout, run.stderr[-3000:]
    out = json.loads(run.stdout.rpartition("RESULT")[2])
    assert (out["equal_seeds"], out["other_seed"]) == (True, False)
    assert out["streamed"] == [True, True, True]
    assert out["tokens"] == [12, 12, 4]
    assert out["too_long"] == ["Reply", "SamplingError"]
    assert out["cancelled"] == [True, 0]
    assert out["rounds"] == [[6, 1]] * 8
    assert out["room"] == 96 - 4
    assert set(out["closed"]) == {"SamplerUnusable"}


@pytest.fixture(scope="module")
def engine_and_tokenizer(tmp_path_factory):
    folder = tiny_model(tmp_path_factory.mktemp("model") / "m")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return TorchEngine(AutoConfig.from_pretrained(folder), tokenizer), tokenizer


class Watched:
    """An engine that remembers the size of each batch, and fails where it is told to."""

    def __init__(self, engine):
        self.engine, self.sizes, self.broken = engine, [], False

    def generate(self, requests, *, seed):
        self.sizes.append(len(requests))
        if self.broken:
            raise RuntimeError("out of memory")
        return self.engine.generate(requests, seed=seed)


def test_requests_that_come_together_are_one_batch_and_those_that_wait_the_next(engine_and_tokenizer):
    engine, tokenizer = engine_and_tokenizer
    watched = Watched(engine)

    async def go():
        sampler = BatchSampler(watched, tokenizer, max_model_len=64)
        first = [asyncio.create_task(sampler.sample("1+1=", SAMPLING, seed=i)) for i in range(3)]
        while not watched.sizes:
            await asyncio.sleep(0.001)
        second = [asyncio.create_task(sampler.sample("2", SAMPLING, seed=i)) for i in range(2)]
        replies = await asyncio.gather(*first, *second)
        pieces = [piece async for piece in sampler.stream("1", SAMPLING, seed=0)]
        await sampler.close()
        return replies, pieces

    replies, pieces = asyncio.run(go())
    assert watched.sizes == [3, 2, 1]
    assert [reply.prompt_tokens for reply in replies] == [4, 4, 4, 1, 1]
    assert all(1 <= reply.completion_tokens <= 12 for reply in replies)
    assert isinstance(pieces[-1], Reply)
    assert "".join(pieces[:-1]) == pieces[-1].text


def test_a_model_with_eyes_sees_the_images_of_every_round(tmp_path):
    path = tiny_vision_model(tmp_path / "model")
    opened = open_local(LocalModel(path, "hf", 512, 4, None, None, trust_remote_code=False))
    seen = []
    generate = opened.sampler._engine.generate

    def watched(requests, *, seed):
        seen.extend(len(request.images.files) for request in requests)
        return generate(requests, seed=seed)

    opened.sampler._engine.generate = watched

    async def go():
        problem = opened.prompt(picture_prompt("red", "blue").content)
        rounds = await solve(problem, opened.sampler, RoundSettings((2,), "{{ messages | length }}: {{ problem }}"), SAMPLING, seed=0)
        await opened.sampler.close()
        return rounds

    rounds = asyncio.run(go())
    assert seen == [2, 2, 2]
    text_alone = len(rounds[0].prompts[0][0]["content"][-1]["text"])
    assert rounds[0].replies[0].prompt_tokens > text_alone + 2 * 4  # the images are tokens of the prompt


def test_a_model_without_eyes_takes_no_images(tmp_path):
    tiny_model(tmp_path / "model")
    opened = open_local(LocalModel(str(tmp_path / "model"), "hf", None, 4, None, None, trust_remote_code=False))
    with pytest.raises(ValueError, match="takes no images"):
        opened.prompt(picture_prompt("red").content)


def test_a_broken_engine_is_told_to_every_request_and_a_long_prompt_to_its_own(engine_and_tokenizer):
    engine, tokenizer = engine_and_tokenizer
    watched = Watched(engine)
    watched.broken = True

    async def go():
        sampler = BatchSampler(watched, tokenizer, max_model_len=8)
        texts = ["1", "2", "1" * 9]
        return await asyncio.gather(*(sampler.sample(text, SAMPLING, seed=0) for text in texts), return_exceptions=True)

    first, second, too_long = asyncio.run(go())
    assert isinstance(first, SamplerUnusable) and isinstance(second, SamplerUnusable)
    assert "out of memory" in str(first)
    assert type(too_long) is SamplingError
    assert "9 tokens" in str(too_long)
