"""Whatever way a driver ends, no process and no temporary file of it stays."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

DRIVER = """
import os, subprocess, sys, time
from rl.guardian import guarded
with guarded() as folder:
    (folder / "spilled").write_text("x")
    detached = [sys.executable, "-c", "import os, time; os.setsid(); time.sleep(600)"]
    grandparent = [sys.executable, "-c", f"import subprocess, time; subprocess.Popen({detached!r}); time.sleep(600)"]
    children = [subprocess.Popen(command) for command in (detached, grandparent)]
    hidden = {"STEPLADDER_TEST": os.environ["STEPLADDER_TEST"]}  # no mark, but a file of the run
    children.append(subprocess.Popen(detached, env=hidden, stdout=(folder / "log").open("w")))
    print(folder, flush=True)
    how = sys.stdin.readline().strip()
    if how == "raise":
        raise SystemExit(3)
    if how == "kill":
        os.kill(os.getpid(), 9)
    if how == "exit":
        os._exit(0)
"""


def with_environment(text):
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and text in (entry / "environ").read_text(errors="replace"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("how", ["end", "raise", "exit", "kill"])
def test_nothing_stays_behind(how, tmp_path):
    own = f"STEPLADDER_TEST={tmp_path}"
    environment = os.environ | {"STEPLADDER_TEST": str(tmp_path)}
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    folder = Path(driver.stdout.readline().strip())
    assert (folder / "spilled").exists()
    end = time.monotonic() + 300
    while len(with_environment(own)) < 6 and time.monotonic() < end:  # driver, guardian, three children, a grandchild
        time.sleep(0.02)
    assert len(with_environment(own)) == 6
    driver.communicate(how + "\n", timeout=300)
    assert driver.returncode == {"end": 0, "raise": 3, "exit": 0, "kill": -signal.SIGKILL}[how]
    end = time.monotonic() + 300
    while (with_environment(own) or folder.exists()) and time.monotonic() < end:
        time.sleep(0.02)
    assert with_environment(own) == []
    assert not folder.exists()
