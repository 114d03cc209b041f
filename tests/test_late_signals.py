"""A signal that comes while the process of a command is already ending."""

import os
import subprocess
import sys

import pytest

# The process still lives after main has returned.
SCRIPT = """
import os, signal, sys
from rl.cli import main
sys.argv = ["stepladder", "validate", "no_such_recipe.yaml"]
code = main()
os.kill(os.getpid(), signal.{name})
sys.exit(code)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_the_exit_code_still_says_what_came_of_the_command(name):
    script = SCRIPT.format(name=name)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, env=dict(os.environ)
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
