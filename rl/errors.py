"""How a run ends other than well. The command line turns these into one message and an exit code."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake in what the user gave; nothing was started or overwritten. Exit code 2."""


class RunFailed(RuntimeError):
    """The run cannot go on; what was computed is saved. Exit code 1."""


class Interrupted(RuntimeError):
    """The user or the cluster asked the run to stop; the state is saved. Exit code 130."""


def last_line(error: BaseException) -> str:
    """The last line of an error's text, which of Ray's long ones is the one that tells."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
