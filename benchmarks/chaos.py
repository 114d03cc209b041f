"""Kill -9 at random moments: driver, engine, learner, reward workers and Ray's own processes, in every phase of every
stage; the run is started again each time, and must end like a run that nobody disturbed.

    python benchmarks/chaos.py --kills 60 --out /tmp/chaos

A run that finishes before so many kills came is followed by another one. Compared at the end of each, bit for bit:
every line of metrics and rollouts (without times), held-out scores, message cache, and the weights after every stage.
After each end of a driver, no process and no temporary file of it may be left.
Prints one line per kill and a JSON summary; the exit code is 1 if anything differs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parent.parent
MARK = "STEPLADDER_CHAOS"
RECIPE = "recipes/quickstart.yaml"
SMALL = (
    "learner.threads=1",
    "engine.kv_cache_gb=0.1",
    "engine.max_restarts=1000",
    "ray.object_store_gb=0.2",
    "saving.checkpoint_every=1",
    "saving.rollouts_per_iteration=1000",
    "stages.sft.phases.0.steps=3",
    "stages.sft.phases.1.steps=3",
    "stages.rlvr.iterations=4",
    "stages.rlvr.prompts_per_iteration=4",
    "stages.preference.num_pairs=64",
    "stages.preference.num_held_out=16",
    "stages.rlhf.iterations=3",
    "stages.rlhf.prompts_per_iteration=4",
    "stages.messages.num_problems=12",
    "stages.messages.above=-1",
    "stages.messages.below=2",
    "stages.pacore.iterations=3",
    "stages.pacore.prompts_per_iteration=4",
    *(f"evaluations.{name}.num_prompts=8" for name in ("addition", "screen", "requests", "synthesis")),
)
# By how the command line of a process begins or what it holds.
TARGETS: dict[str, Callable[[str], bool]] = {
    "driver": lambda line: " rl.cli run " in line,
    "engine": lambda line: line.startswith(("ray::VllmEngine", "ray::HfEngine")),
    "learner": lambda line: line.startswith("ray::LearnerActor"),
    "reward": lambda line: "rewards.worker_template" in line,
    "raylet": lambda line: "raylet/raylet" in line,
    "gcs": lambda line: "gcs/gcs_server" in line,
    "ray agent": lambda line: line.startswith(("ray::DashboardAgent", "ray::RuntimeEnvAgent")),
}
SIGNALS = {"driver SIGTERM": signal.SIGTERM, "driver SIGINT": signal.SIGINT}
_END_TIMEOUT_S = 180.0


@dataclass(frozen=True)
class Process:
    """A process of the disturbed run."""

    pid: int
    line: str


@dataclass
class Chaos:
    """One disturbed run and what was done to it."""

    run_dir: Path
    overrides: Sequence[str]
    targets: Sequence[str]
    rng: random.Random
    say: Callable[[str], None] = print
    num_before: int = 0
    """kills of earlier runs, for the numbers that are told"""
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    kills: Counter[str] = field(default_factory=Counter)
    places: Counter[str] = field(default_factory=Counter)
    exits: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    slowest_end_s: float = 0.0

    def __post_init__(self) -> None:
        self.temporary = Path("/tmp") / f"ch-{self.mark[:6]}"  # short: Ray's sockets lie below
        self.temporary.mkdir()
        self._held_up = (-1, 0)
        self._deck: list[str] = []
        self._is_wounded = False  # something of the present driver was killed, which may end it with exit code 1

    def run(self, num_kills: int) -> None:
        """Kills until there were `num_kills`, or until the run has finished; lets it finish."""
        while True:
            driver = self.start()
            if self.rng.random() < 0.85:
                self._let_it_begin(driver)
            while driver.poll() is None and self.num_kills < num_kills:
                self._disturb(driver)
            code = self.ended(driver)
            if code == 0:
                break
            if code == 2:
                self.problems.append(f"exit code 2: {self._stderr()}")
                break
        shutil.rmtree(self.temporary)

    @property
    def num_kills(self) -> int:
        """Kills so far."""
        return sum(self.kills.values())

    def start(self) -> subprocess.Popen[bytes]:
        environment = os.environ | {MARK: self.mark, "TMPDIR": str(self.temporary), "PYTHONPATH": str(ROOT)}
        self.log = self.run_dir.with_suffix(".log")
        self._is_wounded = False
        with self.log.open("ab") as log, self.run_dir.with_suffix(".stderr").open("wb") as stderr:
            return subprocess.Popen(
                command(self.run_dir, self.overrides), cwd=ROOT, env=environment, stdout=log, stderr=stderr
            )

    def _let_it_begin(self, driver: subprocess.Popen[bytes]) -> None:
        """Most kills shall not come while Ray starts, which takes longer than the stages of so small a run."""
        end, progress = time.monotonic() + 180, self._progress()
        while driver.poll() is None and self._progress() == progress and time.monotonic() < end:
            if self._place().rpartition(", ")[2] in ("sampling", "learning", "publishing", "saving", "exporting"):
                return
            time.sleep(0.01)

    def _stderr(self) -> str:
        return self.run_dir.with_suffix(".stderr").read_text(errors="replace")[-2000:]

    def _disturb(self, driver: subprocess.Popen[bytes]) -> None:
        """One kill, at a moment when the rarest of the places that come up is the current one, or when time is up."""
        name = self._next_target()
        progress = self._progress()
        if self._held_up[0] == progress and self._held_up[1] >= 3:  # the run must get on at some time
            end = time.monotonic() + 60
            while driver.poll() is None and self._progress() == progress and time.monotonic() < end:
                time.sleep(0.02)
        end, patience = time.monotonic() + self.rng.uniform(0.0, 8.0), self.rng.random()
        while driver.poll() is None:
            if time.monotonic() > end or self.rng.random() < 0.02 * patience / (1 + self.places[self._place()]):
                break
            time.sleep(0.005)
        if driver.poll() is None:
            self._kill(name, driver)

    def _next_target(self) -> str:
        """Drawn like a card: every target comes before one comes again."""
        if not self._deck:
            self._deck = self.rng.sample(list(self.targets), len(self.targets))
        return self._deck.pop()

    def _kill(self, name: str, driver: subprocess.Popen[bytes]) -> None:
        place = self._place()
        victims = self.victims(name)
        if not victims:
            time.sleep(0.1)
            return
        number = SIGNALS.get(name, signal.SIGKILL)
        victim = self.rng.choice(victims)
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim.pid, number)
        self.kills[name] += 1
        self.places[place] += 1
        self.say(f"{self.num_before + self.num_kills:3d} {name:15s} {place}")
        if name in SIGNALS:
            self._end_by_signal(driver)
        self._is_wounded = True
        if name in ("driver", "learner", "raylet", "gcs", "ray agent", *SIGNALS):
            self._wait(driver)
            progress = self._progress()
            self._held_up = (progress, self._held_up[1] + 1 if self._held_up[0] == progress else 0)

    def kill_all(self, name: str) -> None:
        """Every process of a target, now."""
        place, victims = self._place(), self.victims(name)
        assert victims, f"no {name} runs in {place}"
        for victim in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim.pid, SIGNALS.get(name, signal.SIGKILL))
        self.kills[name] += 1
        self.say(f"{self.num_kills:3d} {name:15s} {place}")

    def _end_by_signal(self, driver: subprocess.Popen[bytes]) -> None:
        """A driver that is asked to stop ends with exit code 130, or 0 where it was done, or 1 for an earlier kill."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            driver.wait(_END_TIMEOUT_S)
        allowed = (130, 0, None, -signal.SIGTERM, *([1] if self._is_wounded else []))
        if driver.returncode not in allowed:
            self.problems.append(f"exit code {driver.returncode} after a signal: {self._stderr()}")

    def _wait(self, driver: subprocess.Popen[bytes]) -> None:
        """Until the driver has ended; it may also live on after a kill of one of Ray's lesser processes."""
        start, progress = time.monotonic(), self._progress()
        while driver.poll() is None and self._progress() <= progress + 2:
            if time.monotonic() - start > _END_TIMEOUT_S:
                self.problems.append(f"the driver hangs: {self.run_dir.with_suffix('.log')}")
                driver.kill()
                break
            time.sleep(0.02)
        self.slowest_end_s = max(self.slowest_end_s, time.monotonic() - start)

    def ended(self, driver: subprocess.Popen[bytes]) -> int:
        """The exit code of a driver, after a look at what it left behind."""
        try:
            code = driver.wait(timeout=900)
        except subprocess.TimeoutExpired:
            self.problems.append("the undisturbed driver hangs")
            driver.kill()
            code = driver.wait()
        self.exits[str(code)] += 1
        stderr = self._stderr()
        if "Traceback" in stderr:
            self.problems.append(f"exit code {code} with a traceback: {stderr}")
        end = time.monotonic() + 15
        while (self.processes() or any(self.temporary.iterdir())) and time.monotonic() < end:
            time.sleep(0.02)
        for process in self.processes():
            self.problems.append(f"left behind (exit code {code}): {process.line[:100]}")
            os.kill(process.pid, signal.SIGKILL)
        for path in self.temporary.iterdir():
            self.problems.append(f"left behind (exit code {code}): {path}")
            shutil.rmtree(path, ignore_errors=True)
        return code

    def processes(self) -> list[Process]:
        """Everything that belongs to the disturbed run and has not ended, whoever its parent is."""
        found = _processes(f"{MARK}={self.mark}".encode(), f"{self.temporary}/")
        return [process for process in found if "guardian.py" not in process.line]

    def victims(self, name: str) -> list[Process]:
        """The processes of a target."""
        wanted = TARGETS[name.partition(" SIG")[0]]
        return [process for process in self.processes() if wanted(process.line)]

    def _progress(self) -> int:
        """A number that grows with every checkpoint, measurement and finished stage."""
        depths = [
            (Path(folder).relative_to(self.run_dir).parts, folders, files)
            for folder, folders, files in os.walk(self.run_dir)
        ]
        rollouts = sum(len(folders) for parts, folders, _ in depths if parts == ("rollouts",))
        checkpoints = sum(
            int(name) for parts, folders, _ in depths if len(parts) == 2 and parts[0] == "checkpoints"
            for name in folders if name.isdigit()
        )  # fmt: skip
        finished = sum(
            len(files)
            for parts, _, files in depths
            if parts[:1] in (("evaluations",), ("message_caches",))
            or (parts[:1] == ("checkpoints",) and "final" in parts)
        )
        return rollouts + checkpoints + 5 * finished

    def _place(self) -> str:
        """Stage and what is going on in it, seen from outside: for example `rlvr, sampling`."""
        stages = _stages(self.run_dir)
        lines = " ".join(process.line for process in self.processes())
        # os.walk passes over folders that go away meanwhile.
        names = (name for _, folders, files in os.walk(self.run_dir) for name in [*folders, *files])
        writing = [name for name in names if name.startswith(".") and name.endswith(".writing")]
        if writing:
            doing = "exporting" if ".final.writing" in writing else "saving"
        elif "VllmEngine.advance" in lines or "HfEngine.advance" in lines:
            doing = "sampling"
        elif "Engine.load_weights" in lines:
            doing = "publishing"
        elif "LearnerActor.call" in lines:
            doing = "learning"
        elif "ray::" not in lines:
            doing = "starting"
        else:
            doing = "else"
        return f"{stages}, {doing}"


def command(run_dir: Path, overrides: Sequence[str]) -> list[str]:
    """The command that starts and continues a run."""
    return [sys.executable, "-m", "rl.cli", "run", RECIPE, "--run-dir", str(run_dir), *overrides]


def _processes(mark: bytes, folder: str) -> Iterator[Process]:
    """Those that inherited the mark, or have a file in the folder open: a title is written over the environment."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0") or _has_open(entry, folder):
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    if line:  # a zombie has none
                        yield Process(int(entry.name), line)


def _has_open(process: Path, folder: str) -> bool:
    return any(os.readlink(file).startswith(folder) for file in (process / "fd").iterdir())


def _stages(run_dir: Path) -> str:
    """The stage that a run is in."""
    with contextlib.suppress(OSError, ValueError):
        lines = (run_dir / "recipe.yaml").read_text()
        names = [
            line.strip(" :\n")
            for line in lines[lines.index("\nstages:") :].splitlines()
            if line[:2] == "  " and line[2:3] not in (" ", "-", "")
        ]
        done = []
        with contextlib.suppress(OSError):
            done = list(json.loads((run_dir / "state.json").read_text())["stages"])
        current = next((name for name in names if name not in done), "end")
        measuring = (run_dir / "checkpoints" / current / "outcome.json").exists()
        return f"{current} (measuring)" if measuring else current
    return "before the first stage"


# ---------------------------------------------------------------- what two runs have in common


def differences(straight: Path, disturbed: Path) -> list[str]:
    """How two finished runs differ, other than in times and in restarts of engines."""
    found: list[str] = []
    for name in sorted({str(path.relative_to(run)) for run in (straight, disturbed) for path in _compared(run)}):
        a, b = straight / name, disturbed / name
        if not (a.exists() and b.exists()):
            found.append(f"{name}: only in {'the straight' if a.exists() else 'the disturbed'} run")
        elif name.endswith(".safetensors"):
            found += [f"{name}: {problem}" for problem in _unequal_tensors(a, b)]
        elif content(a) != content(b):
            found.append(f"{name}: {_first_difference(content(a), content(b))}")
    for path in disturbed.rglob("*"):
        if path.suffix in (".writing", ".old", ".removing", ".damaged", ".partial"):
            found.append(f"left in the run directory: {path}")
    return found


def _compared(run: Path) -> Iterator[Path]:
    yield from (run / "metrics.jsonl", run / "state.json")
    for pattern in (
        "rollouts/*/*.jsonl",
        "message_caches/*",
        "evaluations/*",
        "checkpoints/*/final/*.safetensors",
        "final/*.safetensors",
    ):
        yield from run.glob(pattern)


def content(path: Path) -> Any:
    """A file of JSON or JSON lines without what a clock or a restarted engine gives."""
    text = path.read_text()
    rows = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else [json.loads(text)]
    return [_timeless(row) for row in rows]


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if not _is_clock(k)}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def _is_clock(key: str) -> bool:
    parts = ("time", "seconds", "per_s", "runtime", "engine_restarts", "checksum", "files")
    return any(part in key for part in parts)


def _first_difference(a: list[Any], b: list[Any]) -> str:
    if len(a) != len(b):
        return f"{len(a)} and {len(b)} lines"
    one, two = next((x, y) for x, y in zip(a, b) if x != y)
    keys = (
        [key for key in one if one.get(key) != two.get(key)] if isinstance(one, dict) and isinstance(two, dict) else []
    )
    return f"{[(key, one.get(key), two.get(key)) for key in keys[:3]]}"[:600]


def _unequal_tensors(a: Path, b: Path) -> list[str]:
    one, two = load_file(a), load_file(b)
    return [
        name
        for name in sorted(one.keys() | two.keys())
        if name not in one or name not in two or not torch.equal(one[name], two[name])
    ]


def straight_run(run_dir: Path, overrides: Sequence[str]) -> float:
    """A run that nobody disturbs; its seconds."""
    start = time.monotonic()
    done = subprocess.run(
        command(run_dir, overrides),
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return time.monotonic() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="a folder that does not exist yet")
    parser.add_argument("--learner-ranks", type=int, default=2, help="1: the learner is in the driver's process")
    parser.add_argument("overrides", nargs="*")
    parsed = parser.parse_args()
    parsed.out.mkdir(parents=True)
    overrides = (*SMALL, f"learner.ranks={parsed.learner_ranks}", "learner.cpus=0.5", *parsed.overrides)
    targets = [*TARGETS, *SIGNALS, *["driver", "engine", "learner"] * 2, *["reward"] * 3]
    if parsed.learner_ranks == 1:
        targets = [name for name in targets if name != "learner"]
    seconds = straight_run(parsed.out / "straight", overrides)
    print(f"the straight run took {seconds:.0f} s", flush=True)
    start, rng = time.monotonic(), random.Random(parsed.seed)
    runs: list[Chaos] = []
    found: list[str] = []
    while (done := sum(run.num_kills for run in runs)) < parsed.kills and not found:
        chaos = Chaos(
            parsed.out / f"disturbed_{len(runs)}", overrides, targets, rng, lambda text: print(text, flush=True), done
        )
        chaos.run(parsed.kills - done)
        runs.append(chaos)
        found = [*chaos.problems, *differences(parsed.out / "straight", chaos.run_dir)]
        print(f"run {len(runs)} of {chaos.num_kills} kills: {len(found)} differences and problems", flush=True)
    summary = {
        "kills": sum(run.num_kills for run in runs),
        "runs": len(runs),
        "kills_by_target": dict(sorted(sum((run.kills for run in runs), Counter()).items())),
        "places": dict(sorted(sum((run.places for run in runs), Counter()).items())),
        "driver_exit_codes": dict(sum((run.exits for run in runs), Counter())),
        "slowest_end_of_a_driver_s": round(max(run.slowest_end_s for run in runs), 1),
        "straight_s": round(seconds, 1),
        "disturbed_s": round(time.monotonic() - start, 1),
        "differences_and_problems": found,
    }
    print(json.dumps(summary, indent=1))
    (parsed.out / "summary.json").write_text(json.dumps(summary, indent=1))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
