"""A preference reward model: a backbone and a scalar head, trained by TRL on pairs of responses."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rewards.preference import NORMALISATION, Scale
from rewards.sequence_scorer import SequenceScorer, row_tokens, without_progress_bars
from rl.errors import RunFailed
from rl.recipe import LoraSection, PreferenceModelStage
from rl.reward_model.pairs import Pair, PairSplit
from rl.reward_model.quality import PairScores, quality, write_calibration

if TYPE_CHECKING:
    from peft import LoraConfig
    from trl import RewardConfig

OnLog = Callable[[int, int, Mapping[str, float]], None]

_SCORE_BATCH_TOKENS = 16_384


def train_preference_model(
    stage: PreferenceModelStage, *, start: str, pairs: PairSplit, folder: Path, seed: int, on_log: OnLog
) -> dict[str, float]:
    """Trains with TRL's RewardTrainer (Bradley-Terry loss) and writes a sequence classifier with one label.

    Of a stage with several members, member m > 0 has the seed `seed + m`, and each goes into a folder member_<m>.

    Args:
        start: folder or hub name of the model that the backbone starts from; a reward model brings its head.
        folder: where model, tokenizer, score statistics and calibration are written.
        on_log: called with (step, total steps, numbers) after every logged step of all members in turn.

    Returns:
        `loss` of training, and what `rl.reward_model.quality.quality` says of the held-out pairs: means over members.

    Raises:
        RunFailed: no pair fits into max_length.
    """
    folders = [folder] if stage.members == 1 else [folder / f"member_{m}" for m in range(stage.members)]
    numbers: list[dict[str, float]] = []
    scores: list[PairScores] = []
    for member, own in enumerate(folders):
        own.mkdir(parents=True, exist_ok=True)
        loss = _train_member(stage, start, pairs, own, seed + member, on_log)
        scores.append(_held_out_scores(own, pairs.held_out))
        numbers.append({**loss, **quality(scores[-1])})
    write_calibration(folder, PairScores.mean(scores))
    together = {name: sum(own[name] for own in numbers) / len(numbers) for name in numbers[0]}
    if stage.members > 1:
        served = PairScores.mean([own.normalised() for own in scores])  # as the reward over all members sees them
        together["ensemble_accuracy"] = quality(served)["accuracy"]
    return together


def _train_member(
    stage: PreferenceModelStage, start: str, pairs: PairSplit, folder: Path, seed: int, on_log: OnLog
) -> dict[str, float]:
    """One model in its folder; the loss and how many pairs were too long."""
    from transformers import EarlyStoppingCallback, PrinterCallback, set_seed
    from trl import RewardTrainer

    set_seed(seed)  # the new head is random
    with without_progress_bars():
        model, tokenizer = load_classifier(start)
    training, num_too_long = _dataset(tokenizer, pairs.training, stage.max_length)
    callbacks: list[Any] = [_report_to(on_log)]
    validation = None
    if stage.early_stop is not None:
        validation, _ = _dataset(tokenizer, pairs.validation, stage.max_length)
        callbacks.append(EarlyStoppingCallback(stage.early_stop.patience, stage.early_stop.min_improvement))
    with _scratch(folder / "trainer") as scratch, _without_dataset_bars(), without_progress_bars():
        trainer = RewardTrainer(
            model=model,
            args=training_config(stage, scratch, seed),
            train_dataset=training,
            eval_dataset=validation,
            processing_class=tokenizer,
            callbacks=callbacks,
            peft_config=_lora_config(stage.lora) if stage.lora is not None else None,
        )
        trainer.remove_callback(PrinterCallback)
        trained = trainer.train()
    trained_model: Any = trainer.model
    merged = trained_model.merge_and_unload() if stage.lora is not None else trained_model
    with without_progress_bars():
        merged.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {
        "loss": float(trained.training_loss),
        "steps": float(trained.global_step),
        "pairs_too_long": float(num_too_long),
    }


def load_classifier(start: str) -> tuple[Any, Any]:
    """(a sequence classifier with one output, its tokenizer); a head of another size is replaced by a new one."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from trl.trainer.reward_trainer import suppress_seqcls_warning

    start = str(Path(start).expanduser()) if start.startswith("~") else start
    tokenizer = AutoTokenizer.from_pretrained(start)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    with suppress_seqcls_warning():
        model = AutoModelForSequenceClassification.from_pretrained(
            start, num_labels=1, dtype="float32", ignore_mismatched_sizes=True
        )
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def training_config(stage: PreferenceModelStage, folder: Path, seed: int) -> RewardConfig:
    """The stage in TRL's words."""
    from trl import RewardConfig

    stopping: dict[str, Any] = {}
    if stage.early_stop is not None:
        every = stage.early_stop.evaluate_every
        stopping = {
            "eval_strategy": "steps",
            "eval_steps": every,
            "save_steps": every,
            "save_total_limit": 1,
            "save_only_model": True,
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
        use_cpu=not _cuda_available(),
        logging_steps=10,
        save_strategy="steps" if stopping else "no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **stopping,
    )


def _dataset(tokenizer: Any, pairs: Sequence[Pair], max_length: int) -> tuple[Any, int]:
    """(pairs as the trainer takes them, tokenized as they will be scored; how many were left out as too long).

    Raises:
        RunFailed: none is left.
    """
    from datasets import Dataset

    prompts = [pair.prompt for pair in pairs]
    chosen = row_tokens(tokenizer, prompts, [pair.chosen for pair in pairs])
    rejected = row_tokens(tokenizer, prompts, [pair.rejected for pair in pairs])
    rows = [
        {"chosen_ids": better, "rejected_ids": worse, **({} if pair.margin is None else {"margin": pair.margin})}
        for pair, better, worse in zip(pairs, chosen, rejected)
        if max(len(better), len(worse)) <= max_length
    ]
    if not rows:
        raise RunFailed(f"preference_model: all {len(pairs)} pairs are longer than max_length {max_length}")
    return Dataset.from_list(rows), len(pairs) - len(rows)


def _lora_config(section: LoraSection) -> LoraConfig:
    from peft import LoraConfig, TaskType

    return LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=section.rank,
        lora_alpha=section.alpha,
        lora_dropout=section.dropout,
        target_modules=section.target_modules or "all-linear",
        modules_to_save=["score"],
    )


def _report_to(on_log: OnLog) -> Any:
    from transformers import TrainerCallback

    class Report(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):  # type: ignore[no-untyped-def]
            numbers = {name: float(x) for name, x in (logs or {}).items() if isinstance(x, int | float)}
            on_log(state.global_step, state.max_steps, numbers)

    return Report()


@contextlib.contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A folder for the trainer's own checkpoints, gone afterwards."""
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _without_dataset_bars() -> Iterator[None]:
    import datasets

    hidden = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    yield
    if not hidden:
        datasets.enable_progress_bars()


def _held_out_scores(folder: Path, pairs: Sequence[Pair]) -> PairScores:
    """Scores as the reward will give them; also writes the file that makes their scale known."""
    scorer = SequenceScorer(str(folder), device=None, batch_tokens=_SCORE_BATCH_TOKENS)
    prompts = [pair.prompt for pair in pairs]
    sides = [
        scorer.score(row_tokens(scorer.tokenizer, prompts, responses))
        for responses in ([pair.chosen for pair in pairs], [pair.rejected for pair in pairs])
    ]
    if not all(math.isfinite(score) for side in sides for score in side):
        raise RunFailed("preference_model: the model's scores are not finite; lower learning_rate")
    (folder / NORMALISATION).write_text(json.dumps(asdict(Scale.of([*sides[0], *sides[1]]))))
    return PairScores(tuple(sides[0]), tuple(sides[1]))


def _cuda_available() -> bool:
    import torch

    return torch.cuda.is_available()
