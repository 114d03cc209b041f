"""How evenly 64 engines are loaded when response lengths have a long tail: the pool's own rule, on simulated engines.

    python benchmarks/rollout_simulation.py [--engines 64] [--measure]

A simulated engine takes a + b * n seconds for a step of n sequences, and c seconds for each token of a response that
moves to it, which it has to read. With --measure, a, b and c are fitted to a real vLLM engine on this machine first;
otherwise they are those of an earlier fit. Requests are dealt and moved by `rl.deal.Deal`, the code that the pool uses,
when engines answer, every tenth of a second as real ones do. Lengths are log-uniform or Pareto between L and 10 L.

`balance` is the mean time that an engine works over the time until the last one is done: 1 is ideal, and what is
missing is time that engines wait for the slowest. `over even` is that time over the one of engines that are loaded
evenly at every moment, as if all slots were one machine's: 1 is ideal. `all` waits for every response, `first` (partial
rollouts) ends when the wanted number of prompts is complete. `stay` deals by load and moves nothing; `blocks` is the
fixed deal, every engine its share at once.
"""

from __future__ import annotations

import argparse
import heapq
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rl.deal import Deal, Rule
from rollouts.engine import NOT_BEGUN, Generation, Progress, Request, Sampling
from rollouts.trajectory import FinishReason


@dataclass(frozen=True)
class StepTime:
    """Seconds of one step of n sequences: fixed + each * n."""

    fixed: float
    each: float
    read: float
    """seconds for each token of a prompt"""

    def of(self, sequences: int) -> float:
        """Seconds."""
        return self.fixed + self.each * sequences


# Fitted on two cores of an Intel Xeon to a Qwen3 of hidden size 256 and 4 layers, float32.
FITTED = StepTime(fixed=0.00272, each=0.0000734, read=0.0000734)
REPORT_S = 0.1  # after which an engine answers, as in rollouts/vllm_engine.py
NOTHING = Generation(np.zeros(0, np.int64), np.zeros(0, np.float32), "", FinishReason.STOP, np.zeros(0, np.int32))


class SimulatedEngine:
    """Decodes what it holds, one token of each sequence per step."""

    def __init__(self, step: StepTime, capacity: int) -> None:
        self.step, self.capacity = step, capacity
        self.running: dict[int, int] = {}  # number -> tokens left
        self.queued: list[tuple[int, int]] = []
        self.worked = 0.0
        self.to_read = 0

    @property
    def busy(self) -> bool:
        """Whether it has requests."""
        return bool(self.running or self.queued)

    def take(self, number: int, left: int, begun: int) -> None:
        """Takes a request with so many tokens left, after those that it has."""
        self.queued.append((number, left))
        self.to_read += begun

    def give_back(self, numbers: Sequence[int]) -> dict[int, int]:
        """Tokens left of requests that are not finished."""
        found = {number: left for number, left in [*self.running.items(), *self.queued] if number in numbers}
        self.queued = [one for one in self.queued if one[0] not in found]
        self.running = {number: left for number, left in self.running.items() if number not in found}
        return found

    def advance(self) -> tuple[float, list[int]]:
        """Steps until it answers: (seconds, numbers that are finished)."""
        seconds, done = self.to_read * self.step.read, []
        self.to_read = 0
        while self.busy and seconds < REPORT_S:
            while self.queued and len(self.running) < self.capacity:
                number, left = self.queued.pop(0)
                self.running[number] = left
            each = self.step.of(len(self.running))
            steps = min(min(self.running.values()), math.ceil((REPORT_S - seconds) / each))
            seconds += steps * each
            self.running = {number: left - steps for number, left in self.running.items()}
            ended = [number for number, left in self.running.items() if left == 0]
            for number in ended:
                del self.running[number]
            done += ended
        self.worked += seconds
        return seconds, done


def simulate(
    lengths: Sequence[int],
    *,
    samples: int,
    engines: int,
    capacity: int,
    rule: Rule,
    moves: bool,
    step: StepTime,
    enough: int,
) -> tuple[float, float, int]:
    """(balance, seconds, responses that moved) until `enough` prompts are complete."""
    requests: list[Request] = []
    for index in range(len(lengths) // samples):
        prompt = np.array([index])
        requests += [Request(prompt, Sampling(1.0, 1.0, 0, 1))] * samples
    deal = Deal(requests, engines=engines, capacity=capacity, rule=rule)
    machines = [SimulatedEngine(step, capacity) for _ in range(engines)]
    left = [samples] * (len(lengths) // samples)
    events: list[tuple[float, int]] = []  # (when it has finished something, engine)
    answers: dict[int, list[int]] = {}
    remaining, asked = dict(enumerate(lengths)), dict[int, list[int]]()
    idle = set(range(engines))
    now, complete = 0.0, 0
    while complete < enough:
        for engine, numbers in deal.next_for(list(range(engines))).items():
            for number in numbers:
                machines[engine].take(number, remaining[number], lengths[number] - remaining[number])
        for engine, numbers in (deal.to_move() if moves else {}).items():
            asked[engine] = numbers  # it hears of it when its call is done
        for engine in sorted(idle):
            if machines[engine].busy:
                seconds, answers[engine] = machines[engine].advance()
                heapq.heappush(events, (now + seconds, engine))
                idle.remove(engine)
        now, engine = heapq.heappop(events)
        idle.add(engine)
        for index, _ in deal.take(engine, Progress([(n, NOTHING) for n in answers[engine]], (), 0.0, 0.0)):
            left[index // samples] -= 1
            complete += left[index // samples] == 0
        if engine in asked:
            given = machines[engine].give_back(asked.pop(engine))
            remaining.update(given)
            deal.given_back(engine, [(number, NOT_BEGUN) for number in given])
    running = sum(when - now for when, _ in events)  # work after the end that `worked` counts already
    return (sum(machine.worked for machine in machines) - running) / (engines * now), now, deal.moved


def even_time(lengths: Sequence[int], *, engines: int, capacity: int, step: StepTime) -> float:
    """Seconds of engines that are loaded evenly at every moment: of one with all slots, at the cost of one share."""
    whole = SimulatedEngine(StepTime(step.fixed, step.each / engines, 0.0), engines * capacity)
    for number, length in enumerate(lengths):
        whole.take(number, length, 0)
    while whole.busy:
        whole.advance()
    return whole.worked


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
        read = 1e9
        for turn in range(4):
            prompt = np.random.default_rng(turn).integers(3, 60, 400)
            start = time.process_time()
            engine.generate([Request(prompt, Sampling(1.0, 1.0, 0, 1))], seed=1)
            read = min(read, (time.process_time() - start) / 400)
    each, fixed = np.polyfit(sizes, [best[size] for size in sizes], 1)
    print("milliseconds per step by sequences: " + ", ".join(f"{n}: {1e3 * best[n]:.2f}" for n in sizes))
    return StepTime(float(fixed), float(each), read)


def main() -> None:
    """Simulates and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", type=int, default=64)
    parser.add_argument("--capacity", type=int, default=64)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--shortest", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--measure", action="store_true")
    options = parser.parse_args()
    step = measured() if options.measure else FITTED
    print(f"a step of n sequences: {1e3 * step.fixed:.2f} + {1e3 * step.each:.4f} n milliseconds", end="; ")
    print(f"a token of a prompt: {1e3 * step.read:.4f} milliseconds")
    slots = options.engines * options.capacity // options.samples
    for shape in ("log-uniform", "Pareto"):
        for waves in (1, 4):
            prompts = slots * waves
            rng = np.random.default_rng(options.seed)
            lengths = draw(shape, prompts * options.samples, options.shortest, rng)
            more = lengths + draw(shape, prompts // 2 * options.samples, options.shortest, rng)
            common = {"samples": options.samples, "engines": options.engines, "capacity": options.capacity, "step": step}
            even = even_time(lengths, engines=options.engines, capacity=options.capacity, step=step)
            cases: list[tuple[str, Rule, bool, list[int]]] = [
                ("blocks, all", "fixed", False, lengths),
                ("stay, all", "load", False, lengths),
                ("load, all", "load", True, lengths),
                ("load, first", "load", True, more),
            ]
            for name, rule, moves, drawn in cases:
                balance, seconds, moved = simulate(drawn, rule=rule, moves=moves, enough=prompts, **common)
                over = f"over even {seconds / even:.3f}" if drawn is lengths else " " * 15
                print(
                    f"{shape:12} {prompts:6} prompts  {name:12} balance {balance:.3f}  {over}  {seconds:7.1f} s  "
                    f"{moved} of {len(drawn)} responses moved",
                    flush=True,
                )


if __name__ == "__main__":
    main()
