"""From nothing to the first sampled token of a run, by part.

    python benchmarks/rollout_cold_start.py [--rounds 5] [--hidden 256]

Each round is a process of its own, `stepladder run` with one prompt, one sample and one token, on a model that lies on
the disk. Printed are the medians over the rounds of when each part began and ended, in seconds since the operating
system started the process; parts run side by side. The first token is there when the engine's first call ends.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.rollout_speed import make_model

ROOT = Path(__file__).resolve().parent.parent


def recipe(model: str) -> dict[str, object]:
    """A pipeline of one rl stage that samples one token and learns from it."""
    stage = {
        "kind": "rl",
        "iterations": 1,
        "prompts_per_iteration": 1,
        "samples_per_prompt": 1,
        "sampling": {"max_tokens": 1},
        "prompts": [{"source": {"task": "addition"}}],
        "rewards": [{"fn": "math"}],
        "policy": {"learning_rate": 1.0e-6},
        "critic": None,
        "algorithm": {"advantage": "reinforce_pp"},
    }
    return {
        "name": "cold-start",
        "model": {"path": model},
        "engine": {"max_model_len": 256, "max_num_seqs": 16, "kv_cache_gb": 0.1},
        "ray": {"object_store_gb": 0.2},
        "saving": {"trace_iterations": 1},
        "stages": {"rlvr": stage},
    }


def timeline(folder: Path) -> dict[str, tuple[float, float]]:
    """(began, ended) of each part of a run that is done, and of its first token; seconds since its process began."""
    startup = json.loads((folder / "startup.json").read_text())
    parts = {name: (began, ended) for name, (began, ended) in startup["timeline_s"].items()}
    trace = json.loads((folder / "traces" / "rlvr.json").read_text())
    lanes = {event["tid"]: event["args"]["name"] for event in trace["traceEvents"] if event["ph"] == "M"}
    sampled = [e for e in trace["traceEvents"] if e["ph"] == "X" and lanes[e["tid"]].startswith("engine")]
    first = min(sampled, key=lambda event: float(event["ts"]))
    began = trace["otherData"]["began"] - startup["began"] + first["ts"] / 1e6
    return parts | {"first token": (began, began + first["dur"] / 1e6)}


def measured(model: str) -> dict[str, tuple[float, float]]:
    """The time line of one run."""
    with tempfile.TemporaryDirectory() as scratch:
        path, folder = Path(scratch) / "recipe.json", Path(scratch) / "run"
        path.write_text(json.dumps(recipe(model)))
        command = [sys.executable, "-m", "rl.cli", "run", str(path), "--run-dir", str(folder)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"the run failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return timeline(folder)


def show(parts: Mapping[str, tuple[float, float]]) -> None:
    """One line per part, with a bar on a common scale."""
    end = max(ended for _, ended in parts.values())
    for name, (began, ended) in sorted(parts.items(), key=lambda item: item[1]):
        left, width = round(48 * began / end), max(round(48 * (ended - began) / end), 1)
        print(f"{name:18} {began:6.2f} to {ended:6.2f} s ({ended - began:5.2f} s)  {' ' * left}{'#' * width}", flush=True)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(Path(folder) / "model", options.hidden, options.layers)
        found = []
        for number in range(options.rounds):
            found.append(measured(model))
            print(f"round {number}: first token after {found[-1]['first token'][1]:.1f} s", flush=True)
    show({name: _median([one[name] for one in found]) for name in found[0]})


def _median(spans: list[tuple[float, float]]) -> tuple[float, float]:
    return statistics.median(a for a, _ in spans), statistics.median(b for _, b in spans)


if __name__ == "__main__":
    main()
