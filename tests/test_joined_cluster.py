"""A Ray cluster that runs already: joined where the recipe names it, left alone where not."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from ray.util import get_node_ip_address
from test_pipeline import ONLY_RLVR, ROOT, SMALL, metrics

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0", "RAY_AUTH_MODE": "token"}
USER_ENVIRONMENT = {name: value for name, value in ENVIRONMENT.items() if name != "RAY_AUTH_MODE"}
RAY = Path(sys.executable).with_name("ray")


@pytest.fixture(scope="module")
def address():
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    # A short folder of its own: sockets in it have names of at most 107 bytes, and other clusters are not disturbed.
    folder = tempfile.mkdtemp(prefix="r")
    head = subprocess.Popen(
        [RAY, "start", "--head", "--block", f"--port={port}", "--num-cpus=4", "--include-dashboard=false",
         f"--temp-dir={folder}", "--object-store-memory=200000000"],
        env=ENVIRONMENT, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    yield f"{get_node_ip_address()}:{port}"
    head.terminate()
    head.wait(timeout=300)
    shutil.rmtree(folder, ignore_errors=True)


def run(run_dir, *overrides, **environment):
    command = [sys.executable, "-m", "rl.cli", "run", "recipes/quickstart.yaml", "--run-dir", str(run_dir)]
    return subprocess.run(
        [*command, *SMALL, *ONLY_RLVR, *overrides],
        capture_output=True, text=True, cwd=ROOT, timeout=300, env={**USER_ENVIRONMENT, **environment},
    )  # fmt: skip


def actors(address):
    """Actors that are alive in the cluster, of any driver."""
    code = (
        f"import ray; ray.init(address='{address}', logging_level='ERROR');"
        "from ray._private.state import actors; print('alive', sum(a['State'] == 'ALIVE' for a in actors().values()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, timeout=300)
    return done.stdout.strip()


def test_a_running_cluster_is_joined_with_two_engines_and_two_learner_ranks(address, tmp_path):
    deadline = time.monotonic() + 300
    while actors(address) != "alive 0":
        assert time.monotonic() < deadline, "the cluster did not start"
    machines = ["engine.replicas=2", "engine.cpus=0.5", "learner.ranks=2", "learner.cpus=0.5"]
    done = run(tmp_path / "run", f"ray.address={address}", *machines)
    assert done.returncode == 0, done.stderr
    rows = metrics(tmp_path / "run", "rlvr")
    assert len(rows) == 3 and all(row["rollout_gap_mean"] < 1e-3 for row in rows)
    assert actors(address) == "alive 0"  # the cluster lives on, without our actors


def test_a_cluster_that_the_recipe_does_not_name_is_left_alone(address, tmp_path):
    done = run(tmp_path / "run", "evaluations={}", "stages.rlvr=null", "stages.sft.phases.0.steps=1",
               RAY_ADDRESS=address)  # fmt: skip
    assert done.returncode == 0, done.stderr
