"""Adapters that learn by PPO on a CPU: the learning curve of a run whose base is frozen.

    python benchmarks/learner_lora.py [--base full|nf4] [--rank 8] [--iterations 16]

Two runs of the pipeline. The first trains every weight of a model of 0.1M parameters on demonstrations of addition by
annotators who forget carries; the second begins with that model and gives only adapters to PPO with a critic, on
problems that a verifier grades. `--base nf4` freezes the base in four bits (bitsandbytes). Printed: the share of
sampled answers that are right in each iteration, and on held-out problems before and after.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def recipes(args: argparse.Namespace, folder: Path) -> tuple[dict, dict]:
    """The run on demonstrations, and the one on the model that it leaves."""
    shipped = yaml.safe_load((ROOT / "recipes" / "quickstart.yaml").read_text())
    addition = {"source": {"task": "addition"}}
    shared = {
        "seed": 0,
        "engine": {"kind": "hf", "max_model_len": 160, "max_num_seqs": 512},
        "evaluations": {"addition": shipped["evaluations"]["addition"]},
    }
    sft = {"kind": "sft", "phases": [{"steps": 350, "sources": [addition]}], "batch_size": 64, "max_length": 160,
           "optimizer": shipped["stages"]["sft"]["optimizer"]}  # fmt: skip
    rate = {"learning_rate": args.learning_rate, "warmup": 2, "schedule": "linear", "final_share": 0.3}
    rl = {"kind": "rl", "iterations": args.iterations, "prompts": [addition], "prompts_per_iteration": 64,
          "samples_per_prompt": 8, "sampling": {"max_tokens": 44}, "rewards": [{"fn": "math"}],
          "algorithm": {"minibatches": 4, "truncated_reward": 0.0}, "policy": rate,
          "critic": {"optimizer": {"learning_rate": args.learning_rate}, "minibatches": 4}}  # fmt: skip
    lora = {"rank": args.rank, "alpha": 2 * args.rank, "base": args.base}
    first = {"name": "demonstrations", "model": shipped["model"], "learner": {"micro_batch_tokens": 2048}, **shared,
             "stages": {"sft": sft}}  # fmt: skip
    second = {"name": "adapters", "model": {"path": str(folder / "first" / "final")},
              "learner": {"micro_batch_tokens": 2048, "lora": lora}, **shared, "stages": {"rl": rl}}  # fmt: skip
    return first, second


def run(recipe: dict, run_directory: Path) -> list[dict]:
    """Runs the pipeline; what it logged."""
    path = run_directory.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(recipe))
    command = [sys.executable, "-m", "rl.cli", "run", str(path), "--run-dir", str(run_directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr[-2000:])
    return [json.loads(line) for line in (run_directory / "metrics.jsonl").read_text().splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", choices=["full", "nf4"], default="full")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--iterations", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first, second = recipes(args, folder)
        run(first, folder / "first")
        logged = run(second, folder / "second")
        state = json.loads((folder / "second" / "state.json").read_text())["stages"]["rl"]
    for row in logged:
        if "accuracy" in row:
            print(f"iteration {row['iteration']:>3}: right {row['accuracy']:.3f}")
    before, after = (state[when]["addition"] for when in ("before", "after"))
    print(f"held out: {before:.3f} before, {after:.3f} after")


if __name__ == "__main__":
    main()
