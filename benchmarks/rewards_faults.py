"""A fault run of the worker pool: of 10,000 rewards 1% hang, 1% raise, 1% kill their process, 1% return NaN.

    python benchmarks/rewards_faults.py [--rows 10000] [--workers 8] [--timeout-s 1.0]

Checks that every other row has its right value, that the counts are exact, and that no worker is left; prints the
time beside the ideal one: each hang holds one worker for its timeout, and nothing else costs anything.
"""

import argparse
import math
import os
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

FAULTS = ("hang", "raise", "die", "nan")
EXPECTED = {"hang": "timeout", "raise": "error", "die": "error", "nan": "invalid"}


def faulty(completions: list[str], **columns: Any) -> list[float]:
    """The reward: does what its completion says."""
    return [_value(text) for text in completions]


def _value(text: str) -> float:
    if text == "hang":
        while True:
            time.sleep(3600)
    if text == "raise":
        raise ValueError("told to")
    if text == "die":
        os.abort() if os.environ.get("ABORT") else os._exit(9)
    return math.nan if text == "nan" else float(text)


def make_rows(num_rows: int) -> list[str]:
    rows = [str(i) for i in range(num_rows)]
    chosen = random.Random(0).sample(range(num_rows), 4 * (num_rows // 100))
    for position, row in enumerate(chosen):
        rows[row] = FAULTS[position % 4]
    return rows


def workers_alive() -> list[int]:
    """Reward workers of this process; a zombie would count."""
    import psutil  # not above: every replaced worker imports this file

    children = psutil.Process().children(recursive=True)
    return [child.pid for child in children if "rewards.worker_template" in " ".join(child.cmdline() or [child.name()])]


def main() -> None:
    from rewards.worker import RewardPool

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--timeout-s", type=float, default=1.0)
    options = parser.parse_args()
    rows = make_rows(options.rows)
    spec = f"{Path(__file__).resolve()}:faulty"
    with RewardPool(spec, timeout_s=options.timeout_s, num_workers=options.workers) as pool:
        pool.score([""], ["0"], {})  # start-up is not part of the run
        start = time.perf_counter()
        results = pool.score([""] * len(rows), rows, {})
        seconds = time.perf_counter() - start
        alive_during = len(workers_alive())
    wrong = [
        (row, result)
        for row, result in zip(rows, results)
        if result.status != EXPECTED.get(row, "ok") or (row not in EXPECTED and result.value != float(row))
    ]
    ideal = rows.count("hang") * options.timeout_s / options.workers
    print(f"asked for: {dict(Counter(row for row in rows if row in FAULTS))}, {options.rows} rows in all")
    print(f"reported:  {dict(Counter(str(result.status) for result in results))}")
    print(f"rows with a wrong value or status: {len(wrong)} {wrong[:3]}")
    print(f"time {seconds:.1f} s, ideal {ideal:.1f} s ({options.workers} workers, timeout {options.timeout_s:g} s)")
    print(f"workers before close: {alive_during}, left after close: {len(workers_alive())}")


if __name__ == "__main__":
    main()
