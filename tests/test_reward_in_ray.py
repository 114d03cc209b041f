"""A reward pool inside a real Ray actor, asked from the actor's own threads, and left behind when the actor dies."""

import os
import sys
import time
from pathlib import Path

import pytest

from rl.cluster import ray_cluster
from rl.recipe import RaySection

pytestmark = [pytest.mark.engine, pytest.mark.timeout(180)]

FUNCTIONS = Path(__file__).parent / "data" / "reward_functions.py"


@pytest.fixture(scope="module")
def ray():
    with ray_cluster(RaySection(object_store_gb=0.1), num_cpus=2):
        import ray

        yield ray


@pytest.fixture(scope="module")
def scorer(ray):
    class Scorer:
        """What a user's rollout actor may do: hold a pool of its own, and call a reward as a plain function."""

        def __init__(self, spec, num_threads):
            from concurrent.futures import ThreadPoolExecutor

            from rewards.worker import RewardPool

            self._pool = RewardPool(spec, timeout_s=5.0, num_workers=2, value_range=(-10.0, 100.0))
            self._threads = ThreadPoolExecutor(num_threads)

        def statuses(self, completions):
            results = self._pool.score(["q"] * len(completions), completions, {})
            return [(result.value, str(result.status)) for result in results]

        def sums_of_many_threads(self, num_rows):
            ask = self._threads.submit
            jobs = [ask(self._pool.score, ["q"] * num_rows, [str(n)] * num_rows, {}) for n in range(8)]
            return [sum(result.value for result in job.result()) for job in jobs]

        def judge_off_the_main_thread(self, completions, solution):
            from rewards.math_answer import math_reward

            return self._threads.submit(math_reward, completions=completions, solution=solution).result()

        def pid(self):
            return os.getpid()

    path = os.pathsep.join(sys.path)
    actor = ray.remote(num_cpus=1)(Scorer).options(runtime_env={"env_vars": {"PYTHONPATH": path}})
    return actor.remote(f"{FUNCTIONS}:obey", 8)


def test_a_pool_in_an_actor_fails_only_the_bad_rows(ray, scorer):
    rows = ["1", "hang", "2", "raise", "die", "nan", "3"]
    assert ray.get(scorer.statuses.remote(rows)) == [
        (1.0, "ok"), (None, "timeout"), (2.0, "ok"), (None, "error"), (None, "error"), (None, "invalid"), (3.0, "ok"),
    ]  # fmt: skip


def test_many_threads_of_an_actor_share_its_pool(ray, scorer):
    assert ray.get(scorer.sums_of_many_threads.remote(50)) == [50.0 * n for n in range(8)]


def test_mathematics_is_judged_in_an_actor_off_its_main_thread_also_by_sympy(ray, scorer):
    answers = [r"\boxed{\frac24}", r"\boxed{\sum_{k=1}^{5} k}", r"\boxed{7}"]
    assert ray.get(scorer.judge_off_the_main_thread.remote(answers, ["0.5", "15", "8"])) == [1.0, 1.0, 0.0]


def test_workers_die_with_an_actor_that_is_killed(ray, scorer):
    workers = descendants(ray.get(scorer.pid.remote()))
    assert workers
    ray.kill(scorer)
    deadline = time.monotonic() + 300
    while (left := [pid for pid in workers if is_running(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []


def descendants(pid: int) -> list[int]:
    """Every process that `pid` started, directly or not."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:  # it has just ended
                continue
    found, frontier = [], [pid]
    while frontier:
        children = [child for child, parent in parents.items() if parent in frontier]
        found += children
        frontier = children
    return found


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
