"""A time line of iterations, on-policy and one step off, and how much of the time engines and learner overlap.

    python benchmarks/rollout_trace.py --out /tmp/traces [--iterations 4]

Runs the quickstart's rlvr stage (from random weights, without its other stages) twice, with learner.async_level 0 and
1, and writes `traces/rlvr.json` of each run directory, for chrome://tracing or ui.perfetto.dev. Prints the busy and
overlapping seconds of the traced iterations.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from rl.cli import main as stepladder
from rl.trace import Span, busy_s, overlap_s

ROOT = Path(__file__).resolve().parent.parent
ONLY_RLVR = (
    *(f"stages.{name}=null" for name in ("sft", "preference", "rlhf", "messages", "pacore")),
    *(f"evaluations.{name}=null" for name in ("addition", "screen", "requests", "synthesis")),
    "stages.rlvr.algorithm.importance_cap=2.0",
    "ray.object_store_gb=0.2",
)


def spans_of(content: dict[str, Any]) -> list[Span]:
    """The spans of a file that `rl.trace` wrote, in seconds."""
    names = {event["tid"]: event["args"]["name"] for event in content["traceEvents"] if event["ph"] == "M"}
    return [
        Span(names[event["tid"]], event["name"], event["ts"] / 1e6, (event["ts"] + event["dur"]) / 1e6)
        for event in content["traceEvents"]
        if event["ph"] == "X"
    ]


def main() -> None:
    """Runs and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--iterations", type=int, default=4)
    options = parser.parse_args()
    for level in (0, 1):
        folder = options.out / f"async_level_{level}"
        shutil.rmtree(folder, ignore_errors=True)
        changes = (
            *ONLY_RLVR,
            f"learner.async_level={level}",
            f"stages.rlvr.iterations={options.iterations + 1}",
            f"saving.trace_iterations={options.iterations}",
        )
        code = stepladder(["run", str(ROOT / "recipes/quickstart.yaml"), *changes, "--run-dir", str(folder)])
        if code:
            raise SystemExit(code)
        spans = spans_of(json.loads((folder / "traces" / "rlvr.json").read_text()))
        working = [span for span in spans if span.lane != "learner" or span.name in ("learning", "publishing")]
        print(
            f"async_level {level}: {max(span.ended for span in spans):.1f} s for {options.iterations} iterations; "
            f"engines sampled {busy_s(working, 'engine'):.1f} s, the learner worked {busy_s(working, 'learner'):.1f} s, "
            f"rewards {busy_s(working, 'reward'):.1f} s; engines and learner together "
            f"{overlap_s(working, 'engine', 'learner'):.1f} s, engines and rewards together "
            f"{overlap_s(working, 'engine', 'reward'):.1f} s; {folder / 'traces' / 'rlvr.json'}"
        )


if __name__ == "__main__":
    main()
