"""What partial rollouts save when response lengths have a long tail, and what they do to the reward.

    python benchmarks/rollout_long_tail.py [--seeds 3] [--iterations 12]

The real loop on a real vLLM engine: a small Qwen3 with random weights learns to write letters. How long a response may
get is drawn for each prompt, between --shortest and ten times that (Pareto, exponent 1.2), and hardly any ends before.
Plain iterations wait for every response; with `long_tail` --extra more prompts are under way, and the rest goes
on in the next iteration. Both are run in turn with the same seeds. Printed: seconds per 1000 tokens that were trained
on, in sum and per part, and the mean reward of the last third of the tokens.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from benchmarks.rollout_speed import make_model
from rl.cluster import ray_cluster, start_engines
from rl.engine_pool import EnginePool
from rl.group import InProcessRank, LearnerGroup
from rl.learner import Learner
from rl.loop import Iteration, RlLoop
from rl.recipe import EngineSection, LearnerSection, ModelSection, RaySection, RlStage
from rl.reward_pools import RewardPools
from rl.scoring import Scorer
from rollouts.engine import Generation, Request
from rollouts.prompts import MixedSource, RowStream

REWARD = """
def letters(completions, **columns):
    return [sum(map(str.isalpha, completion)) / max(len(completion), 1) for completion in completions]
"""


class Numbered:
    """Prompts that differ in a number."""

    def row(self, index: int) -> dict[str, object]:
        """See `RowSource`."""
        return {"prompt": f"write {index:06d}: "}


class LongTailed:
    """The pool, with a bound on each response that only its prompt decides."""

    def __init__(self, pool: EnginePool, shortest: int) -> None:
        self.pool, self.shortest = pool, shortest

    def stream(self, requests: Sequence[Request], *, seed: int) -> Iterator[tuple[int, Generation]]:
        """See `Engine.stream`."""
        return self.pool.stream([self._bounded(request) for request in requests], seed=seed)

    def _bounded(self, request: Request) -> Request:
        share = zlib.crc32(request.prompt_token_ids.tobytes()) / 2**32
        tokens = min(int(self.shortest * (1 - share) ** (-1 / 1.2)), 10 * self.shortest)
        return dataclasses.replace(request, sampling=dataclasses.replace(request.sampling, max_tokens=tokens))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.pool, name)


def stage_of(options: argparse.Namespace, reward: Path, *, partial: bool) -> RlStage:
    """The same stage with and without partial rollouts."""
    tail = {"long_tail": {"extra_prompts": options.extra, "max_staleness": 8}} if partial else {}
    return RlStage.model_validate(
        {
            "kind": "rl",
            "iterations": options.iterations,
            "prompts": [{"source": {"task": "addition"}}],
            "prompts_per_iteration": options.prompts,
            "samples_per_prompt": options.samples,
            "sampling": {"max_tokens": 10 * options.shortest},
            "rewards": [{"fn": f"{reward}:letters", "timeout_s": 60}],
            "policy": {"learning_rate": 2e-3},
            "algorithm": {"advantage": "grpo", "importance_cap": 2.0},
            **tail,
        }
    )


def run(options: argparse.Namespace, engine: LongTailed, path: str, stage: RlStage, seed: int) -> list[Iteration]:
    """One stage from the start."""
    learner = Learner(LearnerSection(micro_batch_tokens=4096), path, trust_remote_code=False, device="cpu")
    learner.begin_rl(stage.policy, stage.critic, stage.algorithm, 1.0)
    engine.load_weights(learner.weights(), 0)
    iterations: list[Iteration] = []
    with RewardPools({}) as pools:
        stream = RowStream([MixedSource(Numbered(), 1.0, "numbers")], held_out=frozenset())
        for _ in range(seed * 1000):
            stream.take(1)
        loop = RlLoop(
            stage=stage,
            engine=engine,  # type: ignore[arg-type]  # everything else is the pool's
            learner=LearnerGroup(InProcessRank(learner)),
            scorer=Scorer(stage.rewards, pools),
            stream=stream,
            tokenizer=AutoTokenizer.from_pretrained(path),
            seed=seed,
            max_model_len=2048,
        )
        loop.run(0, iterations.append)
    return iterations


@dataclasses.dataclass(frozen=True)
class Result:
    """One run, without its first iteration, which warms up."""

    tokens: int
    seconds: float
    rollout_s: float
    reward: float
    """of the last third of the tokens"""
    staleness: float


def result(iterations: Sequence[Iteration]) -> Result:
    """See `Result`."""
    counted = iterations[1:]
    tokens = [sum(item.trajectory.num_sampled_tokens for item in one.scored) for one in counted]
    late = [one for one, upto in zip(counted, np.cumsum(tokens)) if upto > sum(tokens) * 2 / 3]
    return Result(
        sum(tokens),
        sum(one.metrics["time/iteration_s"] for one in counted),
        sum(one.metrics["time/rollout_s"] for one in counted),
        statistics.mean(one.metrics["reward_mean"] for one in late),
        statistics.mean(one.metrics["staleness_mean"] for one in late),
    )


def main() -> None:
    """Runs and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=12)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--extra", type=int, default=12)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--shortest", type=int, default=40)
    parser.add_argument("--hidden", type=int, default=64)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ray_cluster(RaySection(object_store_gb=0.2), num_cpus=1):
        reward = Path(folder) / "reward.py"
        reward.write_text(REWARD)
        path = make_model(Path(folder) / "model", options.hidden, 2)
        section = EngineSection(kind="vllm", max_model_len=2048, max_num_seqs=256, kv_cache_gb=0.5)
        pool = start_engines(section, ModelSection(path=path), path, on_event=print)
        pool.wait_ready()
        engine = LongTailed(pool, options.shortest)
        found: dict[bool, list[Result]] = {False: [], True: []}
        for seed in range(options.seeds):
            for partial in (False, True):
                one = result(run(options, engine, path, stage_of(options, reward, partial=partial), seed))
                found[partial].append(one)
                print("partial" if partial else "plain  ", one, flush=True)
    _print(found)


def _print(found: dict[bool, list[Result]]) -> None:
    def cost(one: Result) -> float:
        return 1000 * one.seconds / one.tokens

    plain, partial = (statistics.mean(map(cost, found[kind])) for kind in (False, True))
    print(f"seconds per 1000 trained tokens: plain {plain:.2f}, partial {partial:.2f}: {1 - partial / plain:.0%} less")
    rewards = {kind: [one.reward for one in found[kind]] for kind in found}
    means = {kind: statistics.mean(own) for kind, own in rewards.items()}
    spread = {kind: statistics.stdev(own) if len(own) > 1 else 0.0 for kind, own in rewards.items()}
    print(
        f"reward of the last third: plain {means[False]:.3f} +- {spread[False]:.3f}, "
        f"partial {means[True]:.3f} +- {spread[True]:.3f} (standard deviation over {len(found[True])} seeds)"
    )


if __name__ == "__main__":
    main()
