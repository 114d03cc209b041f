"""How a run ends other than well. The command line turns these into one message and an exit code."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake in what the user gave; nothing was started or overwritten. Exit code 2."""


class RunFailed(RuntimeError):
    """The run cannot go on; what was computed is saved. Exit code 1."""


class Interrupted(RuntimeError):
    """The user or the cluster asked the run to stop; the state is saved. Exit code 130."""
