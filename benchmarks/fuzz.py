"""Recipes and datasets that nobody wrote by hand: thousands of mutations of valid files go through `stepladder validate`.

    python benchmarks/fuzz.py --count 5000

Each must end with exit code 0 or 2 within seconds: with a valid recipe or a clear message, never with a traceback, a
hang or foreign code that runs. Prints the counts by kind of file and a JSON summary; the exit code is 1 after a
failure, whose input is kept under --keep.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import datetime
import io
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rl.cli import main as stepladder

ROOT = Path(__file__).resolve().parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
SECONDS = 60
CANARY = "/tmp/stepladder_fuzz_canary"
OWN = """\
model: {path: start}
engine: {kind: hf, max_model_len: 512}
evaluations:
  held_out:
    prompts: {dataset: rows.jsonl}
    num_prompts: 2
    sampling: {max_tokens: 16}
    rewards: [{fn: math}]
stages:
  sft:
    kind: sft
    phases: [{steps: 2, sources: [{source: {dataset: rows.jsonl, columns: {completion: solution}}}]}]
    batch_size: 2
    max_length: 64
    optimizer: {learning_rate: 1e-3}
  rlvr:
    kind: rl
    iterations: 3
    prompts: [{source: {dataset: rows.jsonl}}, {source: {dataset: rows.parquet}}]
    prompts_per_iteration: 4
    samples_per_prompt: 3
    sampling: {max_tokens: 32}
    rewards: [{fn: math}]
    policy: {learning_rate: 1e-6}
    critic: {optimizer: {learning_rate: 5e-6}}
  preference:
    kind: preference_model
    pairs: {dataset: pairs.jsonl}
    num_pairs: 4
    num_held_out: 2
    batch_size: 2
    learning_rate: 1e-3
    max_length: 32
"""
ROWS = [{"prompt": f"{a}+{a}=", "solution": str(2 * a), "level": a} for a in range(12)]
PAIRS = [{"prompt": f"say {a}", "chosen": f"yes {a}", "rejected": f"no {a}"} for a in range(12)]

TOKENS = (
    "&a ", "*a", "*critic", "<<: *a", "{", "}", "[", "]", ": ", "- ", "? ", "---\n", "...\n", "%YAML 1.2\n", "\t", "\0",
    "\ufeff", "\u2028", "\x85", "'", '"', "|", ">", "#", "!!", "!!binary ", "!!set ", "!!timestamp ", "!!python/none ",
    f"!!python/object/apply:os.system ['touch {CANARY}']", f"!!python/object/new:os.system ['touch {CANARY}']",
    "!!python/name:os.system ", "9" * 5000, "1e999", "-0", "0x7f", "1:30:00", "2024-02-30", "null", "~", "yes", "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
    "{{ ''.__class__.__mro__[1].__subclasses__() }}", f"{{{{ cycler.__init__.__globals__.os.system('touch {CANARY}') }}}}", "{% for", "{{ 9**9**9 }}",
    "(a+)+$", "(?P<a>", "\\\\", "extends: recipe.yaml\n", "../" * 20,
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 10**30, 10**4000, -0.0, 1e-300, 1e300, float("inf"), float("nan"), "", " ", "x" * 100_000, "\u2028",
    "\U0001f4a5", "rl", "gae", "math", "addition", "/dev/zero", "/dev/null", "/", "..", "~", "nobody/nothing.jsonl", [], {}, [[]], [None], {"": None},
    {"task": "addition"}, {"kind": "rl"}, datetime.date(2024, 1, 1), b"\xff\x00", ["a", 1, None], "os:system", "rows.jsonl:exact",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """The file that was changed, and how."""

    kind: str
    recipe: Path
    overrides: tuple[str, ...] = ()


# ---------------------------------------------------------------- mutations


def mutated_text(rng: random.Random, text: str) -> str:
    """Some characters, lines or pieces of syntax changed."""
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at, to = sorted((rng.randrange(len(text) + 1), rng.randrange(len(text) + 1)))
        lines = text.splitlines(keepends=True)
        line = rng.randrange(len(lines)) if lines else 0
        how = rng.randrange(8)
        if how == 0:
            text = text[:at] + rng.choice(TOKENS) + text[at:]
        elif how == 1:
            text = text[:at] + text[min(to, at + rng.randrange(1, 40)) :]
        elif how == 2:
            text = text[:at] + chr(rng.choice((rng.randrange(128), rng.randrange(0xD800)))) + text[at + 1 :]
        elif how == 3:
            text = "".join(lines[:line] + lines[line + 1 :])
        elif how == 4:
            text = "".join(lines[:line] + lines[line : line + 3] * 2 + lines[line + 3 :])
        elif how == 5:
            text = "".join(
                lines[:line] + [" " * rng.randrange(1, 4) + x for x in lines[line : line + 1]] + lines[line + 1 :]
            )
        elif how == 6:
            words = text.split(" ")
            word = rng.randrange(len(words))
            words[word] = rng.choice(TOKENS)
            text = " ".join(words)
        else:
            text = text[:at]
    return text


def mutated_values(rng: random.Random, values: Any) -> Any:
    """Some keys or values of the tree removed, renamed, swapped or replaced."""
    values = copy.deepcopy(values)
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = list(_places(values))
        parent, key = rng.choice(places)
        how = rng.randrange(6)
        if how == 0 and isinstance(parent, dict):
            del parent[key]
        elif how == 1 and isinstance(parent, dict):
            name = rng.choice((str(key)[:-1], str(key) + "s", str(key).upper(), "a.b", "0", ""))
            parent[name] = parent.pop(key)
        elif how == 2:
            other, other_key = rng.choice(places)
            parent[key] = copy.deepcopy(other[other_key])
        elif how == 3 and isinstance(parent, list):
            parent.insert(key, copy.deepcopy(parent[key]))
        elif how == 4 and isinstance(parent[key], str):
            parent[key] = mutated_text(rng, parent[key] or "x")
        else:
            parent[key] = rng.choice(VALUES)
        if not list(_places(values)):
            break
    return values


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _places(inner)


def mutated_bytes(rng: random.Random, content: bytes) -> bytes:
    """Some bytes flipped, cut out, doubled or inserted."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 3, 10))):
        at = rng.randrange(len(data) + 1)
        how = rng.randrange(5)
        if how == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            del data[at : at + rng.randrange(1, 30)]
        elif how == 2:
            data[at:at] = data[at : at + rng.randrange(1, 30)]
        elif how == 3:
            data[at:at] = rng.choice(
                (
                    b"\n",
                    b"\0",
                    b"\xff\xfe",
                    b"NaN",
                    b"[" * 50_000,
                    b"{}",
                    b"null",
                    b"\xef\xbb\xbf",
                    b"1e999",
                    b'"prompt": 3,',
                    b"9" * 5000,
                )
            )
        elif rng.random() < 0.2:
            del data[at:]
    return bytes(data)


# ---------------------------------------------------------------- cases


def write_valid(folder: Path) -> None:
    """The recipe with datasets that is mutated, valid."""
    import pyarrow
    import pyarrow.parquet

    (folder / "start").mkdir(exist_ok=True)
    (folder / "start" / "config.json").write_text("{}")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), folder / "rows.parquet")
    (folder / "recipe.yaml").write_text(OWN)


def make_case(rng: random.Random, folder: Path) -> Case:
    """One mutated file in the folder, and the recipe to validate."""
    kind = rng.choice(
        ("recipe text", "recipe text", "recipe values", "recipe values", "override", "parent", "jsonl", "parquet")
    )
    source = rng.choice((*RECIPES, folder / "recipe.yaml"))
    target = folder / "mutated.yaml"
    if kind in ("jsonl", "parquet"):
        path = folder / {"jsonl": rng.choice(("rows.jsonl", "pairs.jsonl")), "parquet": "rows.parquet"}[kind]
        path.write_bytes(mutated_bytes(rng, path.read_bytes()))
        return Case(kind, folder / "recipe.yaml")
    if kind == "override":
        keys = [".".join(map(str, key)) for key in _keys(yaml.safe_load(source.read_text()))]
        overrides = tuple(
            mutated_text(rng, f"{rng.choice(keys)}={rng.choice(TOKENS)}") for _ in range(rng.choice((1, 2)))
        )
        return Case(kind, source, tuple(text for text in overrides if not text.startswith("-")))
    text = source.read_text()
    if kind == "recipe values":
        text = yaml.safe_dump(mutated_values(rng, yaml.safe_load(text)), allow_unicode=True)
    else:
        text = mutated_text(rng, text)
    target.write_text(text, encoding="utf-8", errors="surrogatepass")
    for parent in RECIPES:  # so that `extends: base.yaml` is found
        if not (folder / parent.name).exists():
            (folder / parent.name).write_text(parent.read_text())
    if kind == "parent":
        (folder / "child.yaml").write_text("extends: mutated.yaml\nseed: 3\n")
        return Case(kind, folder / "child.yaml")
    return Case(kind, target)


def _keys(value: Any) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (key,)
        yield from ((key, *rest) for rest in _keys(inner))


class Hang(BaseException):
    """Not an Exception, so that nothing under test takes it for one of its own."""


def outcome(case: Case) -> str:
    """`valid`, `message`, or what went wrong: begins with `FAILED`."""
    out, err = io.StringIO(), io.StringIO()

    def ring(number: int, frame: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = stepladder(["validate", str(case.recipe), *case.overrides])
    except Hang:
        return f"FAILED: no answer within {SECONDS} s\n{traceback.format_exc()}"
    except BaseException:
        return f"FAILED: a traceback\n{traceback.format_exc()}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    if Path(CANARY).exists():
        Path(CANARY).unlink()
        return "FAILED: foreign code ran"
    if code == 0:
        return "valid"
    if code == 2 and err.getvalue().strip() and "Traceback" not in err.getvalue():
        return "message"
    return f"FAILED: exit code {code}: {err.getvalue()[-500:]}"


def fuzz(count: int, seed: int, keep: Path | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Counts by kind and outcome, and what failed."""
    counts: dict[str, Counter[str]] = {}
    failures: list[str] = []
    slowest = 0.0
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.chdir(folder)
        try:
            for number in range(count):
                rng = random.Random(f"{seed} {number}")
                write_valid(folder)
                case = make_case(rng, folder)
                start = time.monotonic()
                result = outcome(case)
                slowest = max(slowest, time.monotonic() - start)
                counts.setdefault(case.kind, Counter())[result.split(":")[0]] += 1
                if result.startswith("FAILED"):
                    failures.append(f"number {number}, {case.kind}: {result}")
                    say(failures[-1])
                    if keep is not None:
                        _keep(case, folder, keep / str(number))
        finally:
            os.chdir(here)
    return {
        "count": count,
        "seed": seed,
        "by_kind": {k: dict(v) for k, v in sorted(counts.items())},
        "slowest_s": round(slowest, 2),
        "failures": failures,
    }


def _keep(case: Case, folder: Path, target: Path) -> None:
    import shutil

    shutil.copytree(folder, target, dirs_exist_ok=True)
    (target / "case.txt").write_text(f"{case.recipe.name} {list(case.overrides)}\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder for the inputs that fail")
    parsed = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    summary = fuzz(parsed.count, parsed.seed, parsed.keep, lambda text: print(text, flush=True))
    print(json.dumps({**summary, "failures": len(summary["failures"])}, indent=1))
    return 1 if summary["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
