"""RLHF against a reward model trained on noisy preferences, with and without KL, over seeds; the gold utility judges.

    python benchmarks/rlhf_tiny.py [--seeds 0 1 2] [--folder runs/rlhf_tiny]

Each seed is recipes/rlhf_tiny.yaml in two runs, up to RLVR and from there, and its RLHF stage once more from the same policy
and with the same reward model, but without KL. A run that is finished is read, not repeated.
"""

import argparse
import json
import random
import subprocess
import sys
from pathlib import Path

from rewards import load_reward
from rl.intervals import wilson
from rl.over_optimisation import first_finding, watch_points
from rl.reward_model.pairs import read_pair
from rollouts.tasks.requests import Requests, utility

RECIPE = "recipes/rlhf_tiny.yaml"
FRESH_PAIRS = 4_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=Path("runs/rlhf_tiny"))
    parsed = parser.parse_args()
    rows = []
    for seed in parsed.seeds:
        base, with_kl, without_kl = (parsed.folder / f"seed{seed}{end}" for end in ("", "_rlhf", "_rlhf_without_kl"))
        run(base, f"seed={seed}", "stages.preference=null", "stages.rlhf=null")
        start = (base / "checkpoints" / "rlvr" / "final").resolve()
        from_rlvr = ["model.create=null", f"model.path={start}", "stages.sft=null", "stages.rlvr=null"]
        run(with_kl, f"seed={seed}", *from_rlvr)
        reward_model = (with_kl / "checkpoints" / "preference" / "final").resolve()
        rewards = f"[{{fn: preference, args: {{model: {reward_model}}}, gold: requests}}, {{fn: math}}]"
        no_kl = ["stages.preference=null", f"stages.rlhf.rewards={rewards}", "stages.rlhf.algorithm.kl_reward_coef=0"]
        run(without_kl, f"seed={seed}", *from_rlvr, *no_kl)
        model = records(with_kl)["preference"]["details"]
        print(
            f"seed {seed}: reward model {model['accuracy']:.3f} [{model['accuracy_low']:.3f}, "
            f"{model['accuracy_high']:.3f}] on the {model['held_out_pairs']:.0f} held-out pairs of the stage; "
            + on_many_pairs(with_kl)
        )
        rows += [(seed, "0.1", summary(with_kl)), (seed, "0", summary(without_kl))]
    print("\n| seed | KL coefficient | gold win rate over the stage's start | gold utility | best during the stage |"
          " learned reward | KL, nats per response | addition | warned at iteration |")
    print("|---|---|---|---|---|---|---|---|---|")
    for seed, coefficient, text in rows:
        print(f"| {seed} | {coefficient} | {text} |")


def run(folder: Path, *overrides: str) -> None:
    if not (folder / "final").exists():
        command = [sys.executable, "-m", "rl.cli", "run", RECIPE, "--run-dir", str(folder), *overrides]
        subprocess.run(command, check=True, stdout=sys.stderr)


def on_many_pairs(folder: Path) -> str:
    """Accuracy on fresh pairs of the held-out prompts, beside that of the gold utility: the noise ceiling."""
    prompts = set(json.loads((folder / "evaluations" / "start.json").read_text())["requests"]["rewards"])
    task, rng, pairs = Requests(), random.Random("fresh pairs"), []
    while len(pairs) < FRESH_PAIRS:
        pair = read_pair(task.preference(rng), "requests")
        if pair.prompt_id in prompts:
            pairs.append(pair)
    reward = load_reward("preference", model=str(folder / "checkpoints" / "preference" / "final"), device="cpu")
    asked = [pair.prompt for pair in pairs]
    sides = [reward(asked, [getattr(pair, side) for pair in pairs]) for side in ("chosen", "rejected")]
    right = sum(a > b for a, b in zip(*sides)) / len(pairs)
    ceiling = sum(utility(p.prompt, p.chosen) > utility(p.prompt, p.rejected) for p in pairs) / len(pairs)
    low, high = wilson(right, len(pairs))
    return f"{right:.3f} [{low:.3f}, {high:.3f}] on {len(pairs)} fresh pairs of held-out prompts, gold {ceiling:.3f}"


def records(folder: Path) -> dict:
    return json.loads((folder / "state.json").read_text())["stages"]


def metrics(folder: Path) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["stage"] == "rlhf"]


def summary(folder: Path) -> str:
    """The cells of one run's row."""
    record, rows = records(folder)["rlhf"], metrics(folder)
    details, before, after = record["details"], record["before"], record["after"]
    start = json.loads((folder / "evaluations" / "start.json").read_text())
    best = max(rows, key=lambda row: row.get("held_out/requests", 0.0))
    points = watch_points(rows, "preference", "requests")
    finding = first_finding(points, "preference", "requests")
    return " | ".join(
        [
            f"{after['requests']:.3f} [{details['requests/score_low']:.3f}, {details['requests/score_high']:.3f}]",
            f"{start['requests']['details']['reward_mean']:.2f} -> {details['requests/reward_mean']:.2f}",
            f"{best['held_out/requests']:.3f} (iteration {best['iteration'] + 1})",
            f"{points[0].proxy:.2f} -> {points[-1].proxy:.2f}",
            f"{points[-1].kl:.1f}",
            f"{before['addition']:.3f} -> {after['addition']:.3f}",
            "none" if finding is None else str(finding.now.iteration),
        ]
    )


if __name__ == "__main__":
    main()
