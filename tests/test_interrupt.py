"""Signals: the first asks to stop, the second stops, and a library that takes the handler away changes no exit."""

import os
import signal
import sys

import pytest

from rl.errors import Interrupted
from rl.interrupt import InterruptRequest


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
