"""Hostile answers to the mathematics reward: the worst time, and whether the next answer is judged normally.

    python benchmarks/rewards_hostile.py [--timeout-s 2.0]

Each text is judged against a plain reference and against itself, as a plain function call with its helper process.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from test_math_answer import HOSTILE  # noqa: E402

from rewards.math_answer import math_reward  # noqa: E402
from rewards.mathematics.slow import close_helper  # noqa: E402

SLOW = {
    "an integral without end": r"\boxed{\int_0^1 \sin(\cos(\tan(x^x))) \, dx}",
    "a sum of ten million": r"\boxed{\sum_{k=1}^{10000000} \frac{1}{k^k}}",
    "a product of a hundred million": r"\boxed{\prod_{k=1}^{99999999} k}",
    "a limit of high powers": r"\boxed{\lim_{x \to 0} \frac{\sin(x)^{100}}{x^{100}}}",
    "a nested integral": r"\boxed{\int_0^1 \int_0^1 \frac{\sin(xy)^{\cos(x+y)}}{1+e^{xy}} \, dx \, dy}",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timeout-s", type=float, default=2.0)
    options = parser.parse_args()
    math_reward(completions=[r"\boxed{\sum_{k=1}^3 k}"], solution=["6"])  # the helper is loaded
    times: list[tuple[float, str, list[float | None]]] = []
    for name, text in {**HOSTILE, **SLOW}.items():
        for gold in ("5", text[:1_900]):
            start = time.perf_counter()
            value = math_reward(completions=[text], solution=[gold], timeout_s=options.timeout_s)
            times.append((time.perf_counter() - start, name, value))
            assert math_reward(completions=[r"\boxed{4}"], solution=["4"]) == [1.0], name
    times.sort(reverse=True)
    for seconds, name, value in times[:8]:
        print(f"{seconds:7.3f} s  {name} -> {value}")
    print(f"{len(times)} judgements, worst {times[0][0]:.3f} s with a limit of {options.timeout_s:g} s")
    close_helper()


if __name__ == "__main__":
    main()
