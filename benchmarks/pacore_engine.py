"""Does PaCoRe keep the engine busy? Rounds of many problems against one flat batch of the very same requests.

    python benchmarks/pacore_engine.py [--model runs/quickstart/final] [--problems 200] [--widths 16] [--repeats 3]

Both go through one vLLM engine in this process, in turns. Printed are sampled tokens per second of wall time, per second
of this process's CPU time and per forward pass of the engine, and their ratios, rounds over flat. On a machine with
other work trust the last two. Without --model the quickstart's model is made from random weights.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from rl.create_model import create_model
from rl.inference.open_sampler import LocalModel, open_local
from rl.recipe.file import read_recipe
from rollouts.engine import Sampling
from rollouts.rounds import RoundSettings, solve
from rollouts.sampler import Reply
from rollouts.tasks import load_task
from rollouts.tasks.digit_maxima import SYNTHESIS_TEMPLATE
from rollouts.trajectory import PromptContent
from rollouts.vllm_sampler import VllmSampler

SAMPLING = Sampling(1.0, 1.0, 0, 40)


@dataclass(frozen=True)
class Speed:
    """Sampled tokens per second of wall and of CPU time, and per forward pass."""

    wall: float
    cpu: float
    step: float

    def over(self, other: Speed) -> Speed:
        """The ratios."""
        return Speed(self.wall / other.wall, self.cpu / other.cpu, self.step / other.step)


class Recorder:
    """Passes requests on and keeps them."""

    def __init__(self, sampler: VllmSampler) -> None:
        self.sampler = sampler
        self.requests: list[tuple[PromptContent, int]] = []
        self.tokens = 0

    async def sample(self, content: PromptContent, sampling: Sampling, *, seed: int) -> Reply:
        """See `Sampler.sample`."""
        self.requests.append((content, seed))
        reply = await self.sampler.sample(content, sampling, seed=seed)
        self.tokens += reply.completion_tokens
        return reply

    def room(self, content: PromptContent) -> int | None:
        """See `Sampler.room`."""
        return self.sampler.room(content)


async def timed(recorder: Recorder, work: Callable[[], Awaitable[object]]) -> Speed:
    """Speed of some work that samples through the recorder."""
    recorder.tokens, recorder.requests = 0, []
    wall, cpu, steps = time.perf_counter(), time.process_time(), recorder.sampler.num_steps
    await work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    tokens = recorder.tokens
    return Speed(tokens / wall, tokens / cpu, tokens / (recorder.sampler.num_steps - steps))


async def compare(sampler: VllmSampler, problems: list[str], widths: tuple[int, ...], repeats: int) -> None:
    """Prints both speeds of each repeat, and the median ratios."""
    settings = RoundSettings(widths, SYNTHESIS_TEMPLATE, conclusion=r"\\boxed\{[^}]*\}")
    recorder = Recorder(sampler)

    async def rounds(offset: int) -> None:
        await asyncio.gather(
            *(solve(p, recorder, settings, SAMPLING, seed=offset + i) for i, p in enumerate(problems))  # type: ignore[arg-type]
        )

    async def flat(requests: list[tuple[PromptContent, int]]) -> None:
        await asyncio.gather(*(recorder.sample(content, SAMPLING, seed=seed) for content, seed in requests))

    await rounds(10**6)  # warm
    ratios: list[Speed] = []
    for repeat in range(repeats):
        by_rounds = await timed(recorder, lambda: rounds(repeat * len(problems)))  # noqa: B023 - awaited at once
        requests = list(recorder.requests)
        random.Random(repeat).shuffle(requests)
        at_once = await timed(recorder, lambda: flat(requests))  # noqa: B023
        ratio = by_rounds.over(at_once)
        ratios.append(ratio)
        print(f"{len(requests)} requests: rounds {told(by_rounds)}; flat {told(at_once)}; ratio {told(ratio)}", flush=True)
    median = Speed(*(statistics.median(getattr(r, name) for r in ratios) for name in ("wall", "cpu", "step")))
    print(f"median ratio, rounds over flat: {told(median)}")


def told(speed: Speed) -> str:
    """The three numbers."""
    form = "{:,.0f}" if speed.step > 10 else "{:.3f}"
    return f"{form.format(speed.wall)} wall, {form.format(speed.cpu)} CPU, {form.format(speed.step)} per step"


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model")
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--widths", default="16")
    parser.add_argument("--repeats", type=int, default=3)
    parsed = parser.parse_args()
    task, rng = load_task("digit_maxima"), random.Random(0)
    problems = [str(task.problem(rng)["prompt"]) for _ in range(parsed.problems)]
    widths = tuple(int(width) for width in parsed.widths.split(","))
    with tempfile.TemporaryDirectory() as folder:
        model = parsed.model or str(Path(folder) / "model")
        if not parsed.model:
            recipe = read_recipe(Path(__file__).parent.parent / "recipes" / "quickstart.yaml")
            assert recipe.model.create is not None
            create_model(recipe.model.create, Path(model), seed=0)
        opened = open_local(LocalModel(model, "vllm", None, 256, 0.25, None, trust_remote_code=False))

        async def run() -> None:
            assert isinstance(opened.sampler, VllmSampler)
            await compare(opened.sampler, problems, widths, parsed.repeats)
            await opened.sampler.close()

        asyncio.run(run())


if __name__ == "__main__":
    main()
