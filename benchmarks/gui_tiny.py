"""A tiny vision-language model learns to click, over several seeds: grounding before and after RLVR, and the time.

    python benchmarks/gui_tiny.py --seeds 0 1 2 --runs runs/gui_tiny

Runs `stepladder run recipes/gui_tiny.yaml seed=S` for seeds that are not done yet, one after the other; further
arguments `key=value` override keys of the recipe. Exit code 1 where a seed gains less than 0.2 in RLVR.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

RECIPE = Path(__file__).parent.parent / "recipes" / "gui_tiny.yaml"
BAR = 0.2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/gui_tiny"))
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        folder = arguments.runs / str(seed)
        command = [sys.executable, "-m", "rl.cli", "run", str(RECIPE), "--run-dir", str(folder), f"seed={seed}"]
        if not (folder / "final").exists() and subprocess.run([*command, *arguments.overrides], check=False).returncode:
            return 1
    print("| seed | after SFT | after RLVR | gain | SFT s | RLVR s | largest gap to the engine, nats |")
    print("|---|---|---|---|---|---|---|")
    gains = [report(seed, arguments.runs / str(seed)) for seed in arguments.seeds]
    return int(min(gains) < BAR)


def report(seed: int, folder: Path) -> float:
    """Prints the row of one run: its gain in RLVR."""
    stages = json.loads((folder / "state.json").read_text())["stages"]
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    gap = max(row.get("rollout_gap_max", 0.0) for row in rows)
    before, after = (stages["rlvr"][when]["grounding"] for when in ("before", "after"))
    seconds = [stages[name]["seconds"] for name in ("sft", "rlvr")]
    print(
        f"| {seed} | {before:.3f} | {after:.3f} | {after - before:+.3f} "
        f"| {seconds[0]:.0f} | {seconds[1]:.0f} | {gap:.1e} |"
    )
    return float(after - before)


if __name__ == "__main__":
    sys.exit(main())
