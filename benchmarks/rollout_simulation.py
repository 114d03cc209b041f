"""How evenly 64 engines are loaded when response lengths have a long tail: the pool's own rule, on simulated engines.

    python benchmarks/rollout_simulation.py [--engines 64] [--measure]

A simulated engine takes a + b * n seconds for a step of n sequences. With --measure, a and b are fitted to a real vLLM
engine on this machine first; otherwise they are those of an earlier fit. Requests are dealt by `rl.deal.Deal`, the code
that the pool uses. Lengths are log-uniform or Pareto between L and 10 L.

`balance` is the mean time that an engine works over the time until the last one is done: 1 is ideal, and what is
missing is time that engines wait for the slowest. `all` waits for every response, `first` (partial rollouts) ends when
the wanted number of prompts is complete. `blocks` is the fixed deal, every engine its share at once, for comparison.
"""

from __future__ import annotations

import argparse
import heapq
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rl.deal import Deal, Rule
from rollouts.engine import Generation, Progress, Request, Sampling
from rollouts.trajectory import FinishReason


@dataclass(frozen=True)
class StepTime:
    """Seconds of one step of n sequences: fixed + each * n."""

    fixed: float
    each: float

    def of(self, sequences: int) -> float:
        """Seconds."""
        return self.fixed + self.each * sequences


# Fitted on two cores of an Intel Xeon to a Qwen3 of hidden size 256 and 4 layers, float32.
FITTED = StepTime(fixed=0.00272, each=0.0000734)
NOTHING = Generation(np.zeros(0, np.int64), np.zeros(0, np.float32), "", FinishReason.STOP, np.zeros(0, np.int32))


class SimulatedEngine:
    """Decodes what it holds, one token of each sequence per step."""

    def __init__(self, step: StepTime, capacity: int) -> None:
        self.step, self.capacity = step, capacity
        self.running: dict[int, int] = {}  # number -> tokens left
        self.queued: list[tuple[int, int]] = []
        self.worked = 0.0

    def take(self, numbers: Sequence[int], lengths: Sequence[int]) -> None:
        """Takes requests."""
        self.queued += [(number, lengths[number]) for number in numbers]

    def advance(self) -> tuple[float, list[int]]:
        """Steps until something is finished: (seconds, numbers that are finished)."""
        while self.queued and len(self.running) < self.capacity:
            number, left = self.queued.pop(0)
            self.running[number] = left
        steps = min(self.running.values())
        seconds = steps * self.step.of(len(self.running))
        self.running = {number: left - steps for number, left in self.running.items()}
        done = [number for number, left in self.running.items() if left == 0]
        for number in done:
            del self.running[number]
        self.worked += seconds
        return seconds, done


def simulate(
    lengths: Sequence[int], *, samples: int, engines: int, capacity: int, rule: Rule, step: StepTime, enough: int
) -> tuple[float, float]:
    """(balance, seconds) until `enough` prompts are complete."""
    requests: list[Request] = []
    for index in range(len(lengths) // samples):
        prompt = np.array([index])
        requests += [Request(prompt, Sampling(1.0, 1.0, 0, 1))] * samples
    deal = Deal(requests, engines=engines, capacity=capacity, rule=rule)
    machines = [SimulatedEngine(step, capacity) for _ in range(engines)]
    left = [samples] * (len(lengths) // samples)
    events: list[tuple[float, int]] = []  # (when it has finished something, engine)
    answers: dict[int, list[int]] = {}
    idle = set(range(engines))
    now, complete = 0.0, 0
    while complete < enough:
        for engine, numbers in deal.next_for(list(range(engines))).items():
            machines[engine].take(numbers, lengths)
        for engine in sorted(idle):
            if machines[engine].running or machines[engine].queued:
                seconds, answers[engine] = machines[engine].advance()
                heapq.heappush(events, (now + seconds, engine))
                idle.remove(engine)
        now, engine = heapq.heappop(events)
        idle.add(engine)
        for index, _ in deal.take(engine, Progress([(n, NOTHING) for n in answers[engine]], (), 0.0, 0.0)):
            left[index // samples] -= 1
            complete += left[index // samples] == 0
    running = sum(when - now for when, _ in events)  # work after the end that `worked` counts already
    return (sum(machine.worked for machine in machines) - running) / (engines * now), now


def draw(shape: str, count: int, shortest: int, rng: np.random.Generator) -> list[int]:
    """Lengths between `shortest` and ten times that."""
    if shape == "log-uniform":
        drawn = shortest * 10 ** rng.random(count)
    else:  # Pareto with exponent 1.2, cut
        drawn = np.minimum(shortest * (1 - rng.random(count)) ** (-1 / 1.2), 10 * shortest)
    return [int(x) for x in drawn]


def measured() -> StepTime:
    """A fit to a real engine in this process."""
    import os
    import tempfile
    from pathlib import Path

    from rollouts.vllm_engine import CPU_ENVIRONMENT, ENVIRONMENT, VllmEngine, VllmSettings

    os.environ.update(ENVIRONMENT | CPU_ENVIRONMENT)
    from benchmarks.rollout_speed import make_model

    with tempfile.TemporaryDirectory() as folder:
        path = make_model(Path(folder) / "model", 256, 4)
        engine = VllmEngine(VllmSettings(path, "float32", 512, 256, 0.5, 0.9, on_gpu=False, trust_remote_code=False))
        sizes, tokens, best = (1, 16, 64, 128), 48, {}
        for _ in range(4):
            for size in sizes:
                requests = [(i, Request(np.array([5, 6, 7]), Sampling(1.0, 1.0, 0, tokens))) for i in range(size)]
                start, done = time.process_time(), 0
                while done < size:
                    done += len(engine.advance(requests if not done else [], seed=1 if not done else None).finished)
                    requests = []
                best[size] = min(best.get(size, 1e9), (time.process_time() - start) / tokens)
    each, fixed = np.polyfit(sizes, [best[size] for size in sizes], 1)
    print("milliseconds per step by sequences: " + ", ".join(f"{n}: {1e3 * best[n]:.2f}" for n in sizes))
    return StepTime(float(fixed), float(each))


def main() -> None:
    """Simulates and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", type=int, default=64)
    parser.add_argument("--capacity", type=int, default=64)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--shortest", type=int, default=200)
    parser.add_argument("--measure", action="store_true")
    options = parser.parse_args()
    step = measured() if options.measure else FITTED
    print(f"a step of n sequences: {1e3 * step.fixed:.2f} + {1e3 * step.each:.4f} n milliseconds")
    slots = options.engines * options.capacity // options.samples
    for shape in ("log-uniform", "Pareto"):
        for waves in (1, 4):
            prompts = slots * waves
            rng = np.random.default_rng(0)
            lengths = draw(shape, prompts * options.samples, options.shortest, rng)
            more = lengths + draw(shape, prompts // 2 * options.samples, options.shortest, rng)
            common = {"samples": options.samples, "engines": options.engines, "capacity": options.capacity, "step": step}
            for name, rule, drawn in (("blocks, all", "fixed", lengths), ("load, all", "load", lengths),
                                      ("load, first", "load", more)):  # fmt: skip
                balance, seconds = simulate(drawn, rule=rule, enough=prompts, **common)
                print(f"{shape:12} {prompts:6} prompts  {name:12} balance {balance:.3f}  {seconds:7.1f} s", flush=True)


if __name__ == "__main__":
    main()
