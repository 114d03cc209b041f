"""The quickstart over several seeds: what each stage gained, what was kept, and where the time went.

    python benchmarks/quickstart_seeds.py --seeds 0 1 2 --runs runs/seeds

Runs `stepladder run recipes/quickstart.yaml seed=S` for seeds that are not done yet, one after the other, and prints
one line per seed from their state.json, metrics.jsonl and startup.json.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

RECIPE = Path(__file__).parent.parent / "recipes" / "quickstart.yaml"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/seeds"))
    arguments = parser.parse_args()
    failed = 0
    for seed in arguments.seeds:
        folder = arguments.runs / str(seed)
        command = [sys.executable, "-m", "rl.cli", "run", str(RECIPE), "--run-dir", str(folder), f"seed={seed}"]
        if not (folder / "final").exists() and subprocess.run(command, check=False).returncode:
            return 1
        failed += not report(seed, folder)
    return min(failed, 1)


def report(seed: int, folder: Path) -> bool:
    """Prints the numbers of one run; True where every bar is passed."""
    stages = json.loads((folder / "state.json").read_text())["stages"]
    sft, rlvr, rlhf, pacore = (stages[name] for name in ("sft", "rlvr", "rlhf", "pacore"))
    one, vote, emergent = (
        pacore["details"][f"synthesis/{name}"]
        for name in ("single_sample", "majority_vote", "emergent_correctness_rate")
    )
    bars = {
        "addition +0.4 in RLVR": rlvr["after"]["addition"] - sft["after"]["addition"] >= 0.4,
        "addition above 0.9": rlvr["after"]["addition"] > 0.9,
        "screen +0.25 in RLVR": rlvr["after"]["screen"] - sft["after"]["screen"] >= 0.25,
        "win rate 0.75": rlhf["after"]["requests"] >= 0.75,
        "synthesis +0.1": pacore["after"]["synthesis"] - pacore["before"]["synthesis"] >= 0.1,
        "synthesis above one sample": pacore["after"]["synthesis"] > one,
        "synthesis above majority": pacore["after"]["synthesis"] > vote,
        "addition kept": all(rlvr["after"]["addition"] - s["after"]["addition"] <= 0.1 for s in (rlhf, pacore)),
        "screen kept": all(rlvr["after"]["screen"] - s["after"]["screen"] <= 0.1 for s in (rlhf, pacore)),
    }
    for task in ("addition", "screen"):
        line = " -> ".join(f"{stage['after'][task]:.3f}" for stage in (sft, rlvr, rlhf, pacore))
        print(f"seed {seed}  {task}: after SFT, RLVR, RLHF, PaCoRe {line}")
    print(f"seed {seed}  win rate over the start of RLHF {rlhf['after']['requests']:.3f}")
    print(
        f"seed {seed}  synthesis {pacore['before']['synthesis']:.3f} -> {pacore['after']['synthesis']:.3f}; on the same "
        f"messages one sample {one:.3f}, majority vote {vote:.3f}; right without a right message {emergent:.3f}"
    )
    print(f"seed {seed}  {times(folder)}")
    missed = [name for name, passed in bars.items() if not passed]
    print(f"seed {seed}  bars missed: {', '.join(missed) or 'none'}")
    return not missed


def times(folder: Path) -> str:
    """Where the time of the run went, of the process that ended it."""
    startup = json.loads((folder / "startup.json").read_text())
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    began = (folder / "recipe.yaml").stat().st_mtime
    phases = {
        name: sum(row.get(f"time/{name}_s", 0.0) for row in rows)
        for name in ("rollout", "scoring", "learning", "publishing")
    }
    first = next(row["time"] for row in rows if "reward_mean" in row)
    gap = max(row.get("rollout_gap_mean", 0.0) for row in rows)
    spent = ", ".join(f"{name} {seconds:.1f}" for name, seconds in phases.items())
    return (
        f"ready after {startup['total_s']:.1f} s, first PPO iteration after {first - began:.0f} s, last after "
        f"{rows[-1]['time'] - began:.0f} s; seconds in iterations: {spent}; largest mean log-prob gap {gap:.1e}"
    )


if __name__ == "__main__":
    sys.exit(main())
