"""The time that checkpoints add to an iteration, measured in one run of the quickstart's first stages.

    python benchmarks/checkpoint_time.py --out /tmp/checkpoint_time

Runs sft and rlvr with a checkpoint after every `--every`-th iteration. From the same lines of metrics come the time of
an iteration and that of a checkpoint (writing, checksums, flushing to the disk), so that a busy machine slows both.
Prints for each stage the share that checkpoints add at the interval of the recipe; the exit code is 1 above 5%.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from rl.recipe.file import read_recipe

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "recipes" / "quickstart.yaml"
STAGES = ("sft", "rlvr")
LIMIT = 0.05


def shares(rows: list[dict[str, Any]], interval: int) -> dict[str, float]:
    """Medians of one stage, and what a checkpoint every `interval` iterations adds."""
    iteration_s = statistics.median(row["time/iteration_s"] for row in rows)
    checkpoint_s = statistics.median(row["time/saving_s"] for row in rows if row["time/saving_s"])
    return {
        "iteration_s": round(iteration_s, 4),
        "checkpoint_s": round(checkpoint_s, 4),
        "checkpoints": sum(row["time/saving_s"] > 0 for row in rows),
        "interval": interval,
        "added_share": round(checkpoint_s / (interval * iteration_s), 4),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a run directory that does not exist yet")
    parser.add_argument("--every", type=int, default=4)
    parsed = parser.parse_args()
    recipe = read_recipe(RECIPE)
    interval = recipe.saving.checkpoint_every
    others = [f"stages.{name}=null" for name in recipe.stages if name not in STAGES]
    others += [f"evaluations.{name}=null" for name in recipe.evaluations]
    changes = [f"saving.checkpoint_every={parsed.every}", "stages.sft.phases.0.steps=60", "stages.sft.phases.1.steps=60"]
    command = [sys.executable, "-m", "rl.cli", "run", str(RECIPE), "--run-dir", str(parsed.out), *others, *changes]
    subprocess.run(command, check=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    rows = [json.loads(line) for line in (parsed.out / "metrics.jsonl").read_text().splitlines()]
    found = {stage: shares([row for row in rows if row["stage"] == stage], interval) for stage in STAGES}
    print(json.dumps(found, indent=1))
    return 1 if any(stage["added_share"] > LIMIT for stage in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
