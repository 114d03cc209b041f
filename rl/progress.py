"""One stage of training while it runs: what is logged and saved of it, where it continues, when it stops."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping

from rl.checkpoint import StageState, load_checkpoint, save_checkpoint, saved_iterations
from rl.display import Display
from rl.errors import Interrupted, RunFailed
from rl.group import LearnerGroup
from rl.interrupt import InterruptRequest
from rl.recipe import SavingSection
from rl.run_directory import RunDirectory


class StageProgress:
    """Checkpoints and log of one sft or rl stage."""

    def __init__(
        self,
        name: str,
        run: RunDirectory,
        learner: LearnerGroup,
        saving: SavingSection,
        *,
        display: Display,
        interrupt: InterruptRequest,
    ) -> None:
        self._name, self._run, self._learner, self._saving = name, run, learner, saving
        self._display, self._interrupt = display, interrupt
        self._state = StageState(0, {})
        self._saved = True  # `_state` is on the disk, or is the start of the stage
        self._saving_s = 0.0  # spent since the last line of metrics
        self._learning = False  # the weights are no longer those of `_state`

    @property
    def iteration(self) -> int:
        """Index of the iteration that is under way."""
        return self._state.iteration

    def resume(self) -> StageState:
        """The newest good checkpoint of the stage, loaded; or its start. What was logged later is dropped."""
        folder = self._run.checkpoints(self._name)
        state = load_checkpoint(folder, self._learner, on_damage=self._display.message) or StageState(0, {})
        self._run.forget_after(self._name, state.iteration)
        self._state, self._saved, self._learning = state, True, False
        return state

    def roll_back(self) -> StageState:
        """The newest good checkpoint, loaded, with a count that changes the seeds of what follows."""
        failed = self.iteration
        before = self._state.rollbacks
        state = self.resume()
        self._state = dataclasses.replace(state, rollbacks=max(before, state.rollbacks) + 1)
        self._display.message(
            f"[{self._name}] back from iteration {failed} to the checkpoint of iteration {state.iteration}"
        )
        return self._state

    def after(self, index: int, metrics: Mapping[str, float], state: StageState, *, last: bool) -> None:
        """Logs an iteration, saves where it is time, stops where a signal asked for it.

        The metric `time/saving_s` is the time of the checkpoint before this iteration, 0 where there was none.

        Raises:
            Interrupted: a signal came in; the state is saved.
            RunFailed: a checkpoint cannot be written.
        """
        self._run.append_metrics(self._name, index, {**metrics, "time/saving_s": self._saving_s})
        self._saving_s = 0.0
        self._display.iteration(index, metrics)
        self._state = dataclasses.replace(state, rollbacks=self._state.rollbacks)
        self._saved = self._learning = False
        if state.iteration % self._saving.checkpoint_every == 0 and not last:
            self.save()
        self._stop_if_asked()

    def before_learning(self) -> None:
        """Stops where a signal came in while an iteration sampled: that iteration is given up, nothing else.

        Raises:
            Interrupted: the state before the iteration is saved.
        """
        self._stop_if_asked()
        self._learning = True

    def save(self) -> None:
        """A checkpoint of the last iteration that is done.

        Raises:
            RunFailed: it cannot be written; earlier ones are as they were.
        """
        start = time.perf_counter()
        self._run.flush_logs(self._name)
        folder = self._run.checkpoints(self._name)
        save_checkpoint(folder, self._learner, self._state, keep=self._saving.keep_checkpoints)
        self._saved = True
        self._saving_s += time.perf_counter() - start

    def save_start(self) -> None:
        """A checkpoint of the stage's start, where there is none yet: something to roll back to."""
        if not saved_iterations(self._run.checkpoints(self._name)):
            self.save()

    @contextlib.contextmanager
    def saved_when_failing(self) -> Iterator[None]:
        """Saves where the block fails before an iteration learns (a crash in a reward), so that no work is lost."""
        try:
            yield
        except Interrupted:
            raise
        except Exception:
            if not self._saved and not self._learning:
                with contextlib.suppress(RunFailed):  # a dead learner rank, a full disk: the first failure tells
                    self.save()
            raise

    def _stop_if_asked(self) -> None:
        if not self._interrupt.requested:
            return
        if not self._saved:
            self.save()
        raise Interrupted(
            f"stopped after iteration {self._state.iteration} of {self._name}; run the same command to continue"
        )
