"""Signals: the first asks to stop, the second stops, and a library that takes the handler away changes no exit."""

import os
import signal
import subprocess
import sys

import pytest

from rl.errors import Interrupted
from rl.interrupt import InterruptRequest


def test_sigterm_before_a_run_has_begun_is_an_interruption(tmp_path):
    code = (
        "import os, signal, rl.cli, rl.preflight\n"
        "def read_checked(*arguments, **options): os.kill(os.getpid(), signal.SIGTERM)\n"
        "rl.preflight.read_checked = read_checked\n"
        "raise SystemExit(rl.cli.main(['run', 'recipe.yaml']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, "run the same command" in done.stderr) == (130, True)


def test_the_first_signal_asks_and_the_second_stops():
    with InterruptRequest() as interrupt:
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_sigterm_while_ray_starts_is_an_interruption_like_any_other():
    with pytest.raises(Interrupted, match="the same command"), InterruptRequest():
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))  # as ray.init does
        os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(SystemExit), InterruptRequest():
        sys.exit(3)
