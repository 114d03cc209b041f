"""The update of policy and critic against a bare torch loop, and its peak memory against padded batches.

    python benchmarks/learner_update.py [--rows N] [--sizes small large]

The bare loop has its micro-batches cut and on the device before the clock starts, and does nothing but forward, the
clipped surrogate (or the squared error of the values), backward and AdamW: no metrics, no clipping of gradients, no
checks. `bare` runs transformers' layers as they are, `bare fused` the same fused layers as the learner, so the second
ratio is what the learner's own bookkeeping costs. Turns alternate; each number is the best of two, in CPU seconds.
Lengths have a long tail: log-normal with a mean of about 100 tokens, at most 512, prompts of a fifth.

Memory is the growth of the resident set during one update, each way in a process of its own: rows in micro-batches by
token budget, or the whole mini-batch padded to its longest row.
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from rl.batch import TokenBatch, micro_batches, minibatches, pad_tokens, take_rows
from rl.create_model import create_model
from rl.fused_layers import fuse_layers, keep_freed_memory
from rl.learner import Learner
from rl.losses import policy_loss
from rl.models import Policy, critic_like, load_language_model
from rl.ppo import to_ppo_batch
from rl.recipe import AlgorithmSection, CreateModel, CriticSection, LearnerSection, OptimizerSection

SIZES = {  # the quickstart's model; about 10M parameters
    "small": {"hidden_size": 64, "num_layers": 2, "num_heads": 4, "num_kv_heads": 4, "head_dim": 32, "intermediate_size": 192},
    "large": {"hidden_size": 320, "num_layers": 6, "num_heads": 10, "num_kv_heads": 5, "head_dim": 32, "intermediate_size": 1280},
}
BUDGET = 2048
OPTIMIZER = OptimizerSection(learning_rate=1e-4)
ALGORITHM = AlgorithmSection(minibatches=4)


def model(size: str, folder: Path) -> str:
    characters = "".join(map(chr, range(33, 127)))
    section = CreateModel.model_validate(
        {"tokenizer": {"characters": characters, "pieces": ["ab"]}, "max_position_embeddings": 1024, **SIZES[size]}
    )
    if not (folder / size).exists():
        create_model(section, folder / size, seed=0)
    return str(folder / size)


def long_tailed(rows: int, vocabulary: int = 90) -> TokenBatch:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.exp(torch.randn(rows, generator=generator) * 0.8 + 4.2).long().clamp(8, 512)
    ids = [torch.randint(3, vocabulary, (int(n),), generator=generator).numpy() for n in lengths]
    batch = pad_tokens(ids, [torch.arange(int(n)).ge(int(n) // 5 + 1).numpy() for n in lengths])
    rewards = batch.rewards.clone()
    rewards[torch.arange(rows), lengths - 1] = torch.rand(rows, generator=generator)
    return dataclasses.replace(batch, rewards=rewards)


def learner(path: str, budget: int = BUDGET) -> Learner:
    made = Learner(LearnerSection(micro_batch_tokens=budget), path, trust_remote_code=False, device="cpu")
    made.begin_rl(OPTIMIZER, CriticSection(optimizer=OPTIMIZER), ALGORITHM, 1.0)
    return made


class Bare:
    """Forward, loss, backward, step; everything else was done before."""

    def __init__(self, path: str, pieces, *, fused: bool) -> None:
        language_model = load_language_model(path)
        if fused:
            fuse_layers(language_model)
        self.policy, self.critic = Policy(language_model), critic_like(language_model)
        self.optimizers = [torch.optim.AdamW(m.parameters(), lr=1e-4, fused=True) for m in (self.policy, self.critic)]
        self.pieces = [
            ([take_rows(p.batch, rows) for rows in micro_batches(p.batch.attention_mask, max_tokens=BUDGET)], p.token_count)
            for p in pieces
        ]

    def update(self) -> None:
        for micros, count in self.pieces:
            for micro in micros:
                values = self.critic(micro.token_ids)[:, :-1]
                (0.5 * torch.where(micro.action_mask, (values - micro.returns).square(), 0.0).sum() / count).backward()
            self.optimizers[1].step()
            self.optimizers[1].zero_grad()
        for micros, count in self.pieces:
            for micro in micros:
                logprobs = self.policy(micro.token_ids, micro.action_mask, 1.0).logprobs
                policy_loss(logprobs, micro.old_logprobs, micro.advantages, micro.action_mask,
                            clip_low=0.2, clip_high=0.2, token_count=count).loss.backward()  # fmt: skip
            self.optimizers[0].step()
            self.optimizers[0].zero_grad()


def speed(size: str, rows: int, folder: Path) -> None:
    path = model(size, folder)
    ours, batch = learner(path), long_tailed(rows)
    parameters = sum(x.numel() for x in ours.policy.parameters())
    ppo = to_ppo_batch(batch, ours.evaluate(batch), ALGORITHM)
    pieces = minibatches(ppo, count=4, epochs=1, seed=0)

    def update() -> None:
        ours.update_critic(pieces, iteration=0, total=1)
        ours.update_policy(pieces, iteration=0, total=1)

    ways = {"learner": update, "bare": Bare(path, pieces, fused=False).update,
            "bare fused": Bare(path, pieces, fused=True).update}  # fmt: skip
    best = dict.fromkeys(ways, float("inf"))
    for turn in range(3):
        for name, run in ways.items():
            start = time.process_time()
            run()
            if turn:  # the first warms up
                best[name] = min(best[name], time.process_time() - start)
    tokens = int(batch.attention_mask.sum())
    padded = batch.attention_mask.numel()
    print(f"{size}: {parameters / 1e6:.2f}M parameters, {rows} rows, {tokens} tokens ({padded} padded to the longest)")
    for name, seconds in best.items():
        print(f"  {name:>10}: {tokens / seconds:>9,.0f} tokens/s   learner is at {seconds / best['learner']:.0%}", flush=True)


def memory(size: str, rows: int, budget: int, folder: Path) -> None:
    """Prints the growth of this process's peak resident set by one update."""
    made, batch = learner(model(size, folder), budget), long_tailed(rows)
    made.evaluate(take_rows(batch, torch.tensor([0])))
    zeros = torch.zeros_like(batch.rewards)
    ppo = to_ppo_batch(batch, dataclasses.replace(made.evaluate(take_rows(batch, torch.tensor([0]))), logprobs=zeros,
                       ref_logprobs=zeros, values=zeros, last_values=torch.zeros(rows)), ALGORITHM)  # fmt: skip
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    pieces = minibatches(ppo, count=4, epochs=1, seed=0)
    made.update_critic(pieces, iteration=0, total=1)
    made.update_policy(pieces, iteration=0, total=1)
    print(_resident("VmHWM") - before)


def _resident(name: str) -> float:
    """A line of /proc/self/status in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(name))) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, help="default: 256 of the small model, 64 of the large one")
    parser.add_argument("--sizes", nargs="+", default=["small", "large"])
    parser.add_argument("--memory", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.memory:
        memory(args.memory[0], args.rows, int(args.memory[1]), Path(args.memory[2]))
        return
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        for size in args.sizes:
            rows = args.rows or {"small": 256, "large": 64}[size]
            speed(size, rows, Path(folder))
            peaks = {}
            for name, budget in (("by token budget", BUDGET), ("padded mini-batch", 10**9)):
                command = [sys.executable, __file__, "--rows", str(rows), "--memory", size, str(budget), folder]
                peaks[name] = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            told = ", ".join(f"{name} {peak:.0f} MB" for name, peak in peaks.items())
            print(f"  peak memory of the update: {told}", flush=True)


if __name__ == "__main__":
    main()
