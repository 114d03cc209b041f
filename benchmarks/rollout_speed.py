"""Sampled tokens per second of the engine pool against bare `vllm.LLM.generate` on the same engine.

    python benchmarks/rollout_speed.py [--hidden 512] [--rounds 7]

Both run in turn in one process and on one model: the bare call inside the engine's actor, the pool through Ray from the
driver, with results streaming back. Prompts, sampling, seed and so the tokens are the same. Prints the ratio of the
median times; `cpu` is the processor time of the engine's process, which does not see what else the machine does.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rl.cluster import ray_cluster
from rl.create_model import create_model
from rl.engine_pool import EnginePool, PoolSettings
from rl.recipe import CreateModel, RaySection
from rollouts.engine import Request, Sampling
from rollouts.vllm_engine import CPU_ENVIRONMENT, ENVIRONMENT, VllmEngine, VllmSettings

CHARACTERS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+-*=?:.,()\\{}\n "


def make_model(folder: Path, hidden: int, layers: int) -> str:
    """A Qwen3 with random weights, which seldom ends a response by itself."""
    create_model(
        CreateModel.model_validate(
            {
                "tokenizer": {"characters": CHARACTERS},
                "hidden_size": hidden,
                "num_layers": layers,
                "num_heads": hidden // 64,
                "num_kv_heads": max(hidden // 128, 1),
                "head_dim": 64,
                "intermediate_size": 3 * hidden,
                "max_position_embeddings": 2048,
            }
        ),
        folder,
        seed=0,
    )
    return str(folder)


class ComparedEngine(VllmEngine):
    """The pool's engine, which can also answer the bare way."""

    def bare(self, requests: Sequence[Request], seed: int) -> tuple[int, float, float]:
        """(sampled tokens, seconds, processor seconds) of `LLM.generate`."""
        import torch
        from vllm import SamplingParams, TokensPrompt

        prompts = [TokensPrompt(prompt_token_ids=one.prompt_token_ids.tolist()) for one in requests]
        parameters = [SamplingParams(temperature=1.0, max_tokens=one.sampling.max_tokens, logprobs=0) for one in requests]
        torch.manual_seed(seed)
        start, cpu = time.perf_counter(), time.process_time()
        outputs = self._llm.generate(prompts, parameters, use_tqdm=False)
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
        return sum(len(output.outputs[0].token_ids) for output in outputs), seconds, cpu_seconds

    def cpu_seconds(self) -> float:
        """Processor time of this process."""
        return time.process_time()


def requests(count: int, samples: int, max_tokens: int, seed: int) -> list[Request]:
    """`count` prompts of 20 to 60 tokens, `samples` requests for each; lengths from a tail of a factor 10."""
    rng = np.random.default_rng(seed)
    found: list[Request] = []
    for _ in range(count):
        prompt = rng.integers(3, 60, size=int(rng.integers(20, 60)))
        for _ in range(samples):
            tokens = int(max_tokens / 10 * 10 ** rng.random())
            found.append(Request(prompt, Sampling(1.0, 1.0, 0, tokens)))
    return found


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ray_cluster(RaySection(object_store_gb=0.3), num_cpus=2):
        import ray

        path = make_model(Path(folder) / "model", options.hidden, options.layers)
        settings = VllmSettings(path, "float32", 512, 256, 0.5, 0.9, on_gpu=False, trust_remote_code=False)
        actor: Any = ray.remote(num_cpus=1, runtime_env={"env_vars": ENVIRONMENT | CPU_ENVIRONMENT})(ComparedEngine)
        handles: list[Any] = []

        def make_actor(index: int) -> Any:
            handles.append(actor.remote(settings))
            return handles[-1]

        pool = EnginePool(make_actor, PoolSettings(1, 256, "load", 0, 300, 300))
        pool.wait_ready()
        _compare(pool, handles[0], options)


def _compare(pool: EnginePool, engine: Any, options: argparse.Namespace) -> None:
    import ray

    bare_s, pool_s, bare_cpu, pool_cpu = [], [], [], []
    first_s: list[float] = []
    for number in range(options.rounds + 1):
        asked = requests(options.prompts, options.samples, options.max_tokens, seed=number)
        tokens, seconds, cpu = ray.get(engine.bare.remote(asked, number))
        before, start = ray.get(engine.cpu_seconds.remote()), time.perf_counter()
        streamed, first = 0, 0.0
        for _, generation in pool.stream(asked, seed=number):
            first = first or time.perf_counter() - start
            streamed += len(generation.token_ids)
        streamed_s = time.perf_counter() - start
        assert streamed == tokens, "the same seed gives the same tokens"
        if number:  # the first round warms up
            bare_s.append(seconds)
            pool_s.append(streamed_s)
            bare_cpu.append(cpu)
            pool_cpu.append(ray.get(engine.cpu_seconds.remote()) - before)
            first_s.append(first / streamed_s)
            print(f"{tokens} tokens: bare {seconds:.2f} s, pool {streamed_s:.2f} s")
    wall = statistics.median(bare_s) / statistics.median(pool_s)
    pairs = statistics.median([bare / ours for bare, ours in zip(bare_s, pool_s)])
    cpu = statistics.median(bare_cpu) / statistics.median(pool_cpu)
    print(f"tokens/s of the pool over bare LLM.generate: {wall:.3f} (median of pairs {pairs:.3f}, cpu {cpu:.3f})")
    print(f"first finished response after {statistics.median(first_s):.0%} of the time")


if __name__ == "__main__":
    main()
