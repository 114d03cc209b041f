"""What it costs to publish weights to a running vLLM engine, against a plain copy of the same bytes in memory.

    python benchmarks/rollout_publish.py [--hidden 1024] [--layers 12] [--rounds 7]

Publishing is `EnginePool.load_weights`: from the learner's arrays in this process to the moment when the engine can
sample with them in its own process. The copy is numpy's, into memory that is mapped already (`warm`) and into fresh
memory (`fresh`, what an allocation costs too). Both are measured in turn; printed are the medians and ratios.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from transformers import AutoModelForCausalLM

from benchmarks.rollout_speed import make_model
from rl.cluster import ray_cluster, start_engines
from rl.recipe import EngineSection, ModelSection, RaySection


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = make_model(Path(folder) / "model", options.hidden, options.layers)
        model = AutoModelForCausalLM.from_pretrained(path)
        weights = {name: x.detach().numpy() for name, x in model.named_parameters()}
        num_bytes = sum(x.nbytes for x in weights.values())
        print(f"{num_bytes / 1e6:.0f} MB in {len(weights)} tensors")
        with ray_cluster(RaySection(object_store_gb=max(4 * num_bytes / 2**30, 0.2)), num_cpus=1):
            section = EngineSection(kind="vllm", max_model_len=256, max_num_seqs=16, kv_cache_gb=0.1)
            pool = start_engines(section, ModelSection(path=path), path, on_event=print)
            pool.wait_ready()
            target = {name: np.empty_like(x) for name, x in weights.items()}
            times: dict[str, list[float]] = {"publish": [], "warm": [], "fresh": []}
            for number in range(options.rounds + 2):
                start = time.perf_counter()
                pool.load_weights(weights, number)
                times["publish"].append(time.perf_counter() - start)
                start = time.perf_counter()
                for name, x in weights.items():
                    np.copyto(target[name], x)
                times["warm"].append(time.perf_counter() - start)
                start = time.perf_counter()
                fresh = {name: x.copy() for name, x in weights.items()}
                times["fresh"].append(time.perf_counter() - start)
                del fresh
                print({name: round(own[-1], 3) for name, own in times.items()}, flush=True)
    medians = {name: statistics.median(own[2:]) for name, own in times.items()}  # the first two warm up
    print(", ".join(f"{name} {seconds:.3f} s" for name, seconds in medians.items()))
    for name in ("warm", "fresh"):
        print(f"publishing over a copy into {name} memory: {medians['publish'] / medians[name]:.2f}")


if __name__ == "__main__":
    main()
