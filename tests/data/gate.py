"""A reward that holds a run up at a known point, so that a test can kill something there on any machine."""

import time
from pathlib import Path


def gate(prompts, completions, *, folder: str = "", **columns):
    """0.0 for every row, once the caller's note in the folder is gone.

    Nothing is held up where there is no folder, or where it is open; and no row that comes alone, as the rows of a
    killed worker do.
    """
    if Path(folder).is_dir() and not (Path(folder) / "open").exists() and len(completions) > 1:
        note = Path(folder) / f"{time.time_ns()}.waiting"
        note.touch()
        while note.exists():
            time.sleep(0.02)
    return [0.0 for _ in completions]
