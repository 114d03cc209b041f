"""What Ray's own failures become: one message, whatever Ray raises."""

import time

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
