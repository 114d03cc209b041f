"""What Ray's own failures become: one message, whatever Ray raises."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rl.cluster import RayRanks, ray_cluster
from rl.errors import RunFailed
from rl.recipe import RaySection

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]


def test_a_rank_that_rays_memory_monitor_kills_is_a_rank_that_died(monkeypatch):
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.001")  # of this machine's memory: always above
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    with ray_cluster(RaySection(object_store_gb=0.1), num_cpus=1):
        import ray

        class Busy:
            def update(self):
                time.sleep(900)

        rank = ray.remote(num_cpus=1)(Busy).remote()
        with pytest.raises(RunFailed, match="a learner rank died during update"):
            RayRanks._results([rank.update.remote()], "update")


def test_a_ray_that_does_not_start_is_told_in_one_message(monkeypatch):
    import ray

    def init(**settings):
        raise Exception("The current node timed out during startup.")  # as it does where the raylet is killed

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(RunFailed, match=r"Ray did not start: The current node timed out.*same command"):
        with ray_cluster(RaySection(), num_cpus=1):
            pass


# A process of its own: it is the driver of the cluster that loses its node.
_LOSES_ITS_NODE = """
import os, signal, psutil
from rl.cluster import ray_cluster
from rl.engine_pool import EnginePool, PoolSettings
from rl.errors import RunFailed
from rl.recipe import RaySection
from rollouts.engine import EngineStart

class Busy:
    def ready(self):
        return EngineStart(0.0, 0.0, 0.0, 0.0)

with ray_cluster(RaySection(object_store_gb=0.1), num_cpus=1):
    import ray
    settings = PoolSettings(
        replicas=1, capacity=1, deal="load", max_restarts=100, start_timeout_s=3600.0, answer_timeout_s=3600.0
    )
    pool = EnginePool(lambda index: ray.remote(num_cpus=1)(Busy).remote(), settings)
    pool.wait_ready()
    for child in psutil.Process().children(recursive=True):
        if "raylet/raylet" in " ".join(child.cmdline()):
            os.kill(child.pid, signal.SIGKILL)
    pool._replace(0, "it was killed along with its node")  # as every engine is whose node is gone
    try:
        pool.wait_ready()
    except RunFailed as error:
        print(error, flush=True)
"""


def test_engines_do_not_wait_for_a_node_that_is_gone():
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-c", _LOSES_ITS_NODE], cwd=root, capture_output=True, text=True, timeout=500,
        env=os.environ | {"PYTHONPATH": str(root)},
    )  # fmt: skip
    assert "no node of the Ray cluster lives any more" in done.stdout, done.stderr
