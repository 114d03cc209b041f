"""Throughput of image rollouts against bare vLLM on the same prompts: the engine's whole way, images decoded included.

    python benchmarks/image_rollouts.py

A tiny model of random weights (that of recipes/gui_tiny.yaml) answers screens of tiny_screen. One process, one vLLM:
bare is `LLM.generate` with the same token ids, images and sampling parameters, decoded before the clock starts; ours is
`VllmEngine.generate` on the requests of `rollouts.collect`. Both answer the same prompts, with every cache of vLLM empty;
rounds alternate in who comes first, and their prompts are new. CPU time and wall time; the ratio of each pair, and their
median. Exit code 1 where the median of either is below 0.9.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rollouts.vllm_engine import CPU_ENVIRONMENT, ENVIRONMENT

BAR = 0.9


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    os.environ.update(ENVIRONMENT | CPU_ENVIRONMENT)  # before vllm is imported
    ratios = {"cpu": [], "wall": []}  # type: dict[str, list[float]]
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(folder, arguments)
        bench.pair(seed=0)  # warm-up
        for seed in range(1, arguments.rounds + 1):
            bare, ours = bench.pair(seed)
            for clock in ratios:
                ratios[clock].append(bare[clock] / ours[clock])
            print(f"round {seed}: bare {bare}, ours {ours}")
    medians = {clock: statistics.median(values) for clock, values in ratios.items()}
    print(f"speed of ours / bare, median of {arguments.rounds}: " + ", ".join(f"{k} {v:.3f}" for k, v in medians.items()))
    return int(min(medians.values()) < BAR)


class Bench:
    """One engine, called in both ways."""

    def __init__(self, folder: str, arguments: argparse.Namespace) -> None:
        from rl.create_model import create_model
        from rl.recipe.file import read_recipe
        from rollouts.engine import Sampling
        from rollouts.processing import load_processing
        from rollouts.vllm_engine import VllmEngine, VllmSettings

        recipe = read_recipe(Path(__file__).parent.parent / "recipes" / "gui_tiny.yaml")
        assert recipe.model.create is not None
        path = Path(folder) / "model"
        create_model(recipe.model.create, path, seed=0)
        self.arguments = arguments
        self.processing = load_processing(str(path))
        self.sampling = Sampling(1.0, 1.0, 0, arguments.tokens)
        settings = VllmSettings(
            model=str(path),
            dtype="float32",
            max_model_len=128,
            max_num_seqs=256,
            kv_cache_gb=0.25,
            gpu_memory_utilization=0.9,
            on_gpu=False,
            trust_remote_code=False,
        )
        self.engine = VllmEngine(settings)

    def pair(self, seed: int) -> tuple[dict[str, float], dict[str, float]]:
        """Seconds of bare vLLM and of ours on the same prompts."""
        requests = self.requests(seed)
        if seed % 2:
            return self.bare(requests), self.ours(requests, seed)
        ours = self.ours(requests, seed)
        return self.bare(requests), ours

    def empty_caches(self) -> None:
        """vLLM knows no prompt and no image."""
        llm = self.engine._llm
        llm.reset_mm_cache()
        llm.llm_engine.reset_encoder_cache()
        assert llm.reset_prefix_cache()

    def requests(self, seed: int) -> list[Any]:
        """Requests for new screens, the samples of a prompt side by side."""
        from rollouts.collect import tokenized
        from rollouts.engine import Request
        from rollouts.prompts import MixedSource, task_rows, to_prompt
        from rollouts.tasks import load_task

        source = MixedSource(task_rows(load_task("tiny_screen"), "problem", seed), 1.0, "screens")
        prompts = [tokenized(self.processing, to_prompt(source, source.rows.row(i))) for i in range(self.arguments.prompts)]
        return [Request(p.token_ids, self.sampling, p.images) for p in prompts for _ in range(self.arguments.samples)]

    def ours(self, requests: list[Any], seed: int) -> dict[str, float]:
        """`VllmEngine.generate`."""
        self.empty_caches()
        return timed(lambda: self.engine.generate(requests, seed=seed))

    def bare(self, requests: list[Any]) -> dict[str, float]:
        """`LLM.generate`; every sample has its decoded image and the sampling parameters that ours has."""
        from rollouts.images import open_image
        from rollouts.vllm_engine import sampling_parameters

        self.empty_caches()
        decoded: dict[int, list[Any]] = {}
        for request in requests:
            if id(request.images) not in decoded:
                decoded[id(request.images)] = [open_image(data) for data in request.images.files]
        prompts = [
            {
                "prompt_token_ids": request.images.unexpanded_ids.tolist(),
                "multi_modal_data": {"image": decoded[id(request.images)]},
            }
            for request in requests
        ]
        bias = self.engine._never_sampled
        parameters = [sampling_parameters(request.sampling, logprobs=0, logit_bias=bias) for request in requests]
        return timed(lambda: self.engine._llm.generate(prompts, parameters, use_tqdm=False))


def timed(work: Any) -> dict[str, float]:
    """Seconds of CPU and wall time."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return {"cpu": round(time.process_time() - cpu, 3), "wall": round(time.perf_counter() - wall, 3)}


if __name__ == "__main__":
    sys.exit(main())
