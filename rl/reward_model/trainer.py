"""TRL's RewardTrainer, with checkpoints that are whole or passed over, and a training that goes on bit for bit."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import EarlyStoppingCallback, PrinterCallback, TrainerCallback
from trl import RewardConfig, RewardTrainer

from rl.durable import seal
from rl.errors import Interrupted, RunFailed
from rl.recipe import EarlyStopSection, PreferenceModelStage
from rl.reward_model.unfinished import UnfinishedWork

_LOG_EVERY = 10


class ResumableTrainer(RewardTrainer):
    """Trains one member of a stage from its newest checkpoint.

    Checkpoints fall on steps whose numbers were just logged: nothing is then half summed up. They are transformers' own
    and read with `weights_only`, so that nothing in them runs.
    """

    def __init__(
        self, work: UnfinishedWork, member: int, on_log: Callable[[int, int, Mapping[str, float]], None], **options: Any
    ) -> None:
        super().__init__(**options)
        self.remove_callback(PrinterCallback)
        self.add_callback(_Report(on_log))
        self.add_callback(_SaveAndStop(self, work))
        self._work, self._member = work, member

    def train_on(self) -> dict[str, float]:
        """Trains to the end; the loss and the number of steps.

        Raises:
            Interrupted: it was asked to stop; a checkpoint is saved.
            RunFailed: a checkpoint cannot be written.
        """
        newest = self._work.newest_checkpoint(self._member)
        done = self.train(resume_from_checkpoint=None if newest is None else str(newest))
        # The trainer's own mean knows only the steps of this process.
        losses = [row["loss"] for row in self.state.log_history if "loss" in row]
        loss = sum(losses) / len(losses) if losses else done.training_loss
        return {"loss": float(loss), "steps": float(done.global_step)}

    def create_model_card(self, *args: Any, **options: Any) -> None:
        """None: a checkpoint is nobody's to read."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
        self._work.before_saving()
        try:
            super()._save_checkpoint(model, trial)
            seal(folder)
        except (OSError, SafetensorError, RuntimeError) as error:  # torch tells of a full disk by a RuntimeError
            shutil.rmtree(folder, ignore_errors=True)
            raise RunFailed(
                f"{folder}: the checkpoint cannot be written: {error}. Earlier ones are usable still: make room and "
                f"run the same command to continue"
            ) from error


class _SaveAndStop(TrainerCallback):
    def __init__(self, trainer: ResumableTrainer, work: UnfinishedWork) -> None:
        self._trainer, self._work = trainer, work

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Takes up what the trainer forgets: the tokens that were counted, and where the best checkpoint is now."""
        counted = [row["num_tokens"] for row in state.log_history if "num_tokens" in row]
        self._trainer._total_train_tokens = int(counted[-1]) if counted else 0
        best = Path(args.output_dir) / f"checkpoint-{state.best_global_step}"
        if best.is_dir():
            state.best_model_checkpoint = str(best)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step, every = state.global_step, int(args.logging_steps)
        checkpoint_every = -(-self._work.checkpoint_every // every) * every
        if step % every == 0 and (step % checkpoint_every == 0 or self._work.stop_asked()):
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._work.stop_asked():
            raise Interrupted(f"stopped after step {state.global_step}; run the same command to continue")


class _Report(TrainerCallback):
    def __init__(self, on_log: Callable[[int, int, Mapping[str, float]], None]) -> None:
        self._on_log = on_log

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        numbers = {name: float(x) for name, x in (logs or {}).items() if isinstance(x, int | float)}
        if "train_runtime" not in numbers:  # the summary at the end
            self._on_log(state.global_step, state.max_steps, numbers)


def early_stopping(section: EarlyStopSection) -> TrainerCallback:
    """transformers' callback for the section."""
    return EarlyStoppingCallback(section.patience, section.min_improvement)


def training_config(stage: PreferenceModelStage, folder: Path, seed: int) -> RewardConfig:
    """The stage in TRL's words."""
    stopping: dict[str, Any] = {"save_strategy": "no", "logging_steps": _LOG_EVERY, "save_total_limit": 2}
    if stage.early_stop is not None:
        every = stage.early_stop.evaluate_every
        stopping = {
            "eval_strategy": "steps",
            "eval_steps": every,
            "logging_steps": every,
            "save_strategy": "steps",
            "save_steps": every,
            "save_total_limit": 3,  # the best one, this one, and the one before it until this one is whole
            "load_best_model_at_end": True,
            "metric_for_best_model": "eval_loss",
            "greater_is_better": False,
            "per_device_eval_batch_size": stage.batch_size,
        }
    return RewardConfig(
        output_dir=str(folder),
        num_train_epochs=stage.epochs,
        per_device_train_batch_size=stage.batch_size,
        learning_rate=stage.learning_rate,
        max_length=stage.max_length,
        lr_scheduler_type=stage.schedule if stage.schedule != "constant" else "constant_with_warmup",
        warmup_steps=stage.warmup_share,  # below 1 it is a share
        weight_decay=stage.weight_decay,
        center_rewards_coefficient=stage.center_rewards_coefficient or None,
        seed=seed,
        data_seed=seed,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=not torch.cuda.is_available(),
        restore_callback_states_from_checkpoint=True,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **stopping,
    )
