"""`gae` against Python loops over tokens, and its time per token as rows grow.

    python benchmarks/learner_gae.py

Two loops: over plain floats that were taken out of the tensors before (the fastest loop that Python has), and over the
elements of tensors, one token at a time, as written in many trainers. Both on the first trajectories only; ratios are
of sampled tokens per CPU second. Lengths are uniform up to the maximum, and all of the maximum.
"""

import time

import torch

from rl.advantages import gae
from rl.fused_layers import keep_freed_memory

TRAJECTORIES, GAMMA, LAM = 4096, 0.99, 0.95


def over_floats(rewards: list[float], values: list[float]) -> list[float]:
    advantages, carry, following = [0.0] * len(rewards), 0.0, 0.0
    for t in range(len(rewards) - 1, -1, -1):
        carry = rewards[t] + GAMMA * following - values[t] + GAMMA * LAM * carry
        advantages[t], following = carry, values[t]
    return advantages


def over_elements(rewards: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    advantages, carry, following = torch.zeros_like(rewards), 0.0, 0.0
    for t in reversed(range(len(rewards))):
        carry = rewards[t] + GAMMA * following - values[t] + GAMMA * LAM * carry
        advantages[t], following = carry, values[t]
    return advantages


def seconds(call) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def main() -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    generator = torch.Generator().manual_seed(0)
    print(f"{'longest':>8} {'lengths':>8} {'tokens/s':>12} {'x floats':>9} {'x elements':>11}")
    for longest in (512, 2048, 8192):
        rewards, values = torch.randn(2, TRAJECTORIES, longest, generator=generator)
        for kind in ("uniform", "full"):
            lengths = torch.full((TRAJECTORIES,), longest)
            if kind == "uniform":
                lengths = torch.randint(1, longest + 1, (TRAJECTORIES,), generator=generator)
            mask = torch.arange(longest) < lengths[:, None]
            run = lambda: gae(rewards, values, mask, gamma=GAMMA, lam=LAM)  # noqa: E731, B023
            for _ in range(3):  # the first compiles; the next two make the heap large enough
                run()
            ours = int(mask.sum()) / min(seconds(run) for _ in range(8))
            rows = range(max(1, 16384 // longest))
            plain = [(rewards[b, : lengths[b]].tolist(), values[b, : lengths[b]].tolist()) for b in rows]
            tokens = sum(len(r) for r, _ in plain)
            floats = tokens / min(seconds(lambda: [over_floats(*row) for row in plain]) for _ in range(3))  # noqa: B023
            one = slice(0, min(int(lengths[0]), 1024))
            elements = (one.stop) / seconds(lambda: over_elements(rewards[0, one], values[0, one]))  # noqa: B023
            expected = torch.tensor(over_floats(*plain[0]))
            torch.testing.assert_close(run()[0][0, : lengths[0]], expected, atol=1e-3, rtol=1e-3)
            print(f"{longest:>8} {kind:>8} {ours:>12,.0f} {ours / floats:>9.1f} {ours / elements:>11.0f}", flush=True)


if __name__ == "__main__":
    main()
