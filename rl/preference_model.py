"""A preference reward model: the policy's backbone and a scalar head, trained by TRL on pairs of responses."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rewards.preference import preference_reward
from rl.recipe import PreferenceModelStage
from rl.scoring import NORMALISATION
from rollouts.rows import Row


def train_preference_model(
    stage: PreferenceModelStage,
    *,
    policy: Path,
    pairs: Sequence[Row],
    held_out: Sequence[Row],
    folder: Path,
    seed: int,
    on_log: Callable[[int, int, Mapping[str, float]], None],
) -> dict[str, float]:
    """Trains with TRL's RewardTrainer (Bradley-Terry loss) and writes a sequence classifier with one label.

    Args:
        policy: a transformers model; the backbone starts from it.
        pairs: rows with `chosen`, `rejected` and usually `prompt`.
        held_out: rows with other prompts, for `accuracy`.
        folder: where model and tokenizer are written.
        on_log: called with (step, total steps, numbers) after every logged step.

    Returns:
        `loss` of the last step, `accuracy` on held-out pairs and its standard error.
    """
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
    from trl import RewardConfig, RewardTrainer

    tokenizer = AutoTokenizer.from_pretrained(policy)
    model = AutoModelForSequenceClassification.from_pretrained(policy, num_labels=1)
    model.config.pad_token_id = tokenizer.pad_token_id

    class Report(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):  # type: ignore[no-untyped-def]
            numbers = {name: float(x) for name, x in (logs or {}).items() if isinstance(x, int | float)}
            on_log(state.global_step, state.max_steps, numbers)

    config = RewardConfig(
        output_dir=str(folder),
        num_train_epochs=stage.epochs,
        per_device_train_batch_size=stage.batch_size,
        learning_rate=stage.learning_rate,
        max_length=stage.max_length,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        weight_decay=0.0,
        seed=seed,
        data_seed=seed,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=not _cuda_available(),
        logging_steps=10,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    trainer = RewardTrainer(
        model=model,
        args=config,
        train_dataset=Dataset.from_list(_pair_columns(pairs)),
        eval_dataset=Dataset.from_list(_pair_columns(held_out)),
        processing_class=tokenizer,
        callbacks=[Report()],
    )
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    trained = trainer.train()
    numbers = trainer.evaluate()
    trainer.save_model(str(folder))
    tokenizer.save_pretrained(folder)
    accuracy = float(numbers["eval_accuracy"])
    mean, std = _score_statistics(folder, held_out)
    (folder / NORMALISATION).write_text(json.dumps({"mean": mean, "std": std}))
    return {
        "score_mean": mean,
        "score_std": std,
        "loss": float(trained.training_loss),
        "accuracy": accuracy,
        "accuracy_standard_error": math.sqrt(accuracy * (1 - accuracy) / len(held_out)),
    }


def _score_statistics(folder: Path, rows: Sequence[Row]) -> tuple[float, float]:
    """Mean and standard deviation of the scores of held-out responses: what makes the reward's scale known."""
    score = preference_reward(model=str(folder))
    prompts = [row.get("prompt", "") for row in rows]
    scores = [
        float(x)
        for side in ("chosen", "rejected")
        for x in score(prompts, [row[side] for row in rows])
        if x is not None
    ]
    return statistics.fmean(scores), max(statistics.pstdev(scores), 1e-6)


def _pair_columns(rows: Sequence[Row]) -> list[Mapping[str, object]]:
    names = ("prompt", "chosen", "rejected")
    return [{name: row[name] for name in names if name in row} for row in rows]


def _cuda_available() -> bool:
    import torch

    return torch.cuda.is_available()
