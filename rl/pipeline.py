"""The stages of a recipe in order, and how a run ends. Imports no torch: engines start before it is loaded."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from rl.display import Display
from rl.errors import RunFailed, UserError
from rl.interrupt import InterruptRequest
from rl.recipe import Recipe
from rl.recovery import recover
from rl.reporting.report import write_report
from rl.run_directory import open_run_directory
from rl.start import started_parts
from rollouts.engine import RequestRefused
from rollouts.rows import DatasetError
from rollouts.sampler import SamplingError


def run_pipeline(recipe: Recipe, path: Path, display: Display) -> None:
    """Runs the stages that are not done yet, and leaves `final/`.

    Raises:
        UserError: the run directory belongs to another recipe or process.
        RunFailed: the run cannot go on.
        Interrupted: a signal asked it to stop; the state is saved.
    """
    with open_run_directory(path, recipe) as run, InterruptRequest() as interrupt, _files_told_plainly(path):
        for note in run.notes:
            display.message(f"changed since the run began: {note}")
        recover(run, recipe, display.message)
        if run.final.exists():
            display.message(f"{path}: this run is finished; its model is in {run.final}")
        else:
            with started_parts(recipe, run, display, interrupt) as parts:
                from rl.stage_run import export_final, run_stage  # these load torch; Ray has been started

                for name, stage in recipe.stages.items():
                    if name not in run.records():
                        parts.stop_if_asked(f"before {name}")
                        run_stage(parts, name, stage)
                export_final(parts)
                write_report(run.path)
            display.message(f"done: the model is in {run.final}" if run.final.exists() else "done")
        display.table(run.records())


@contextlib.contextmanager
def _files_told_plainly(path: Path) -> Iterator[None]:
    """A run whose files cannot be written, or whose data turn out malformed, ends with a message, not a traceback."""
    try:
        yield
    except DatasetError as error:
        raise UserError(str(error)) from error
    except RequestRefused as error:
        raise RunFailed(str(error)) from error
    except SamplingError as error:
        raise RunFailed(f"engine.server: {error}") from error
    except (OSError, SafetensorError) as error:
        number = _errno(error)
        if number not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO):
            raise
        where = getattr(error, "filename", None) or path
        raise RunFailed(
            f"{where}: cannot be written: {os.strerror(number)}. What was saved before is usable still: "
            f"make room and run the same command to continue"
        ) from error


def _errno(error: OSError | SafetensorError) -> int | None:
    """Number of the system's error, which safetensors only tells in words."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None
