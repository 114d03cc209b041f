"""The mathematics reward beside math-verify and TRL's accuracy_reward: verdicts by category, throughput, latency.

    python benchmarks/rewards_math.py [--rows 2000] [--table tests/data/math_answers.jsonl]
        [--grader NAME=MODULE:FUNCTION] [--grader NAME=path/to/file.py:FUNCTION:answer] ...
        [--checkout NAME=PATH] ... [--no-speed]

--grader puts another grader into the table, from a checkout or an installed package: a function of (response,
reference) that returns a truth value, a number (paid where positive), or a dict with a "score". With ":answer" it is
handed the content of the last box, for graders that leave the extraction to their caller; without a box, "".
--checkout puts a public grader into it from a checkout of its repository (public_graders.py has the names). Each call
of one that is not ours is stopped after three seconds, and then counts as a refusal.

All graders judge the same rows in the same process, one after the other. math-verify is set as verl and NeMo-RL set
it: reference in a box, LaTeX and plain expressions extracted from the response, the box first. Its own alarms are on,
since without them one row could stop the benchmark.
"""

import argparse
import importlib
import json
import logging
import random
import signal
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path
from types import ModuleType

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify
from public_graders import Grader, graders_of, last_box
from trl.rewards import accuracy_reward

from rewards.math_answer import judge_answer
from rewards.mathematics.equal import same_answer
from rewards.mathematics.slow import close_helper

TABLE = Path(__file__).parent.parent / "tests" / "data" / "math_answers.jsonl"


def ours(gold: str, response: str) -> bool:
    return bool(judge_answer(response, gold).right)


def math_verify(gold: str, response: str) -> bool:
    reference = parse(rf"\boxed{{{gold}}}", [LatexExtractionConfig()], parsing_timeout=3)
    answer = parse(response, [LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()], parsing_timeout=3)
    return bool(verify(reference, answer, timeout_seconds=3))


def math_verify_default(gold: str, response: str) -> bool:
    """As its documentation shows it: both parsed with the default settings, the reference between dollar signs."""
    return bool(verify(parse(f"${gold}$", parsing_timeout=3), parse(response, parsing_timeout=3), timeout_seconds=3))


def trl_accuracy(gold: str, response: str) -> bool:
    return accuracy_reward([[{"role": "assistant", "content": response}]], [gold])[0] == 1.0


def load_grader(spec: str) -> Grader:
    """The grader that MODULE:FUNCTION or path/to/file.py:FUNCTION names; with ":answer" one of answers alone."""
    parts = spec.split(":")
    if len(parts) not in (2, 3) or parts[2:] not in ([], ["answer"]):
        raise SystemExit(f"--grader {spec!r}: expected NAME=MODULE:FUNCTION or NAME=path/to/file.py:FUNCTION[:answer]")
    function = getattr(_import(parts[0]), parts[1])

    def grade(gold: str, response: str) -> bool:
        said = function(last_box(response) if len(parts) == 3 else response, gold)
        said = said[-1] if isinstance(said, tuple) and isinstance(said[0], dict) else said
        said = said[0] if isinstance(said, tuple) else said
        said = said.get("score") if isinstance(said, dict) else said
        return said is not None and float(said) > 0

    return grade


def _import(name: str) -> ModuleType:
    """A module by its name, or by the path of its file: inside a package, as a part of that package."""
    if not name.endswith(".py"):
        return importlib.import_module(name)
    path = Path(name).resolve()
    dotted, folder = path.stem, path.parent
    while (folder / "__init__.py").exists():
        dotted, folder = f"{folder.name}.{dotted}", folder.parent
    sys.path.insert(0, str(folder))
    return importlib.import_module(dotted.removesuffix(".__init__"))


GRADERS: dict[str, Grader] = {
    "stepladder": ours, "math-verify": math_verify, "mv-default": math_verify_default, "TRL": trl_accuracy,
}  # fmt: skip


def limited(grader: Grader, seconds: float = 3.0) -> Grader:
    """A grader that is stopped by an alarm; for those that set none themselves."""

    def stop(*_: object) -> None:
        raise TimeoutError

    def grade(gold: str, response: str) -> bool:
        before = signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            return bool(grader(gold, response))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    return grade


def category_table(path: Path) -> None:
    """Right verdicts, paid wrong answers and refused right ones of every grader."""
    rows = [json.loads(line) for line in path.open(encoding="utf-8")]
    right: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    paid: dict[str, int] = defaultdict(int)
    refused: dict[str, int] = defaultdict(int)
    sizes: dict[str, int] = defaultdict(int)
    for row in rows:
        sizes[row["category"]] += 1
        for name, grader in GRADERS.items():
            said = _safely(grader, row["gold"], row["response"])
            right[row["category"]][name] += said == row["right"]
            paid[name] += said and not row["right"]
            refused[name] += row["right"] and not said
    print(f"{'category':<18}{'rows':>6}" + "".join(f"{name:>13}" for name in GRADERS))
    for category in sorted(sizes):
        print(f"{category:<18}{sizes[category]:>6}" + "".join(f"{right[category][name]:>13}" for name in GRADERS))
    totals = {name: sum(right[c][name] for c in sizes) for name in GRADERS}
    print(f"{'all':<18}{len(rows):>6}" + "".join(f"{totals[name] / len(rows):>12.1%} " for name in GRADERS))
    print(f"{'paid wrong':<24}" + "".join(f"{paid[name]:>13}" for name in GRADERS))
    print(f"{'refused right':<24}" + "".join(f"{refused[name]:>13}" for name in GRADERS))


def _safely(grader: Grader, gold: str, response: str) -> bool:
    try:
        return grader(gold, response)
    except BaseException:  # math-verify's TimeoutException is a BaseException
        return False


def ordinary_rows(num_rows: int) -> list[tuple[str, str]]:
    """(reference, response) as in GSM8K and MATH: half integers, the rest fractions, roots, pairs, polynomials."""
    draw = random.Random(0)
    kinds = (_integer, _integer, _integer, _integer, _fraction, _root, _pair, _polynomial)
    rows = []
    for number in range(num_rows):
        gold, answer = kinds[number % len(kinds)](draw)
        steps = " ".join(f"Step {i}: we find ${draw.randint(2, 99)} + {draw.randint(2, 99)}$." for i in range(1, 12))
        rows.append((gold, f"{steps} Therefore the answer is $\\boxed{{{answer}}}$."))
    return rows


def _integer(draw: random.Random) -> tuple[str, str]:
    value = draw.randint(-9_999, 99_999)
    return str(value), str(value if draw.random() < 0.5 else value + draw.randint(1, 9))


def _fraction(draw: random.Random) -> tuple[str, str]:
    top, bottom, factor = draw.randint(1, 99), draw.randint(2, 99), draw.randint(1, 3)
    return rf"\frac{{{top}}}{{{bottom}}}", rf"\dfrac{{{top * factor}}}{{{bottom * factor + (draw.random() < 0.5)}}}"


def _root(draw: random.Random) -> tuple[str, str]:
    a, b = draw.randint(2, 99), draw.choice([2, 3, 5, 7])
    return rf"{a}\sqrt{{{b}}}", rf"\sqrt{{{a * a * b + (draw.random() < 0.5)}}}"


def _pair(draw: random.Random) -> tuple[str, str]:
    x, y = draw.randint(-99, 99), draw.randint(1, 99)
    return f"({x}, {y})", rf"\left({x}, {y + (draw.random() < 0.5)}\right)"


def _polynomial(draw: random.Random) -> tuple[str, str]:
    a, b = draw.randint(1, 99), draw.randint(1, 99)
    return f"(x+{a})(x+{b})", f"x^2 + {a + b}x + {a * b + (draw.random() < 0.5)}"


def speed(num_rows: int) -> None:
    """Rows per second and latency percentiles on ordinary rows, each judged once."""
    rows = ordinary_rows(num_rows)
    rates = {}
    for name in ("stepladder", "math-verify"):
        grader = GRADERS[name]
        grader("1", r"\boxed{\sqrt{2}}")  # imports are paid once per process
        same_answer.cache_clear()
        times = []
        for gold, response in rows:
            start = time.perf_counter()
            _safely(grader, gold, response)
            times.append(time.perf_counter() - start)
        rates[name] = len(rows) / sum(times)
        quantiles = statistics.quantiles(times, n=100)
        p50, p99 = quantiles[49] * 1e3, quantiles[98] * 1e3
        print(f"{name:<12} {rates[name]:>9.0f} rows/s   p50 {p50:.3f} ms   p99 {p99:.3f} ms")
    print(f"ratio        {rates['stepladder'] / rates['math-verify']:>9.1f}")
    start = time.perf_counter()
    for i in range(512):
        ours("123", rf"so \boxed{{{i}}}")
    print(f"512 plain integers: {(time.perf_counter() - start) * 1e3:.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000)
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--grader", action="append", default=[], metavar="NAME=MODULE:FUNCTION[:answer]")
    parser.add_argument("--checkout", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--no-speed", action="store_true", help="the table alone")
    options = parser.parse_args()
    for grader in options.grader:
        name, _, spec = grader.partition("=")
        GRADERS[name] = limited(load_grader(spec))
    for checkout in options.checkout:
        name, _, folder = checkout.partition("=")
        GRADERS.update({column: limited(grade) for column, grade in graders_of(name, Path(folder)).items()})
    logging.disable(logging.CRITICAL)
    category_table(options.table)
    if not options.no_speed:
        speed(options.rows)
    close_helper()


if __name__ == "__main__":
    main()
