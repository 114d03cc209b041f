"""A preference reward model: a backbone and a scalar head, trained by TRL on pairs of responses."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rewards.preference import NORMALISATION
from rewards.scale import Scale
from rewards.sequence_scorer import SequenceScorer, row_tokens, without_progress_bars
from rl.errors import Interrupted, RunFailed
from rl.recipe import LoraSection, PreferenceModelStage
from rl.reward_model.pairs import Pair, PairSplit
from rl.reward_model.quality import PairScores, quality, write_calibration
from rl.reward_model.unfinished import MemberResult, UnfinishedWork

if TYPE_CHECKING:
    from peft import LoraConfig

OnLog = Callable[[int, int, Mapping[str, float]], None]

_SCORE_BATCH_TOKENS = 16_384


def train_preference_model(
    stage: PreferenceModelStage,
    *,
    start: str,
    pairs: PairSplit,
    folder: Path,
    seed: int,
    on_log: OnLog,
    work: UnfinishedWork,
) -> dict[str, float]:
    """Trains with TRL's RewardTrainer (Bradley-Terry loss) and writes a sequence classifier with one label.

    Of a stage with several members, member m > 0 has the seed `seed + m`, and each goes into a folder member_<m>.
    Continues with what is kept in `work`.

    Args:
        start: folder or hub name of the model that the backbone starts from; a reward model brings its head.
        folder: where model, tokenizer, score statistics and calibration are written.
        on_log: called with (step, total steps, numbers) after every logged step; steps of all members in turn are
            counted on.

    Returns:
        `loss` of training, and what `rl.reward_model.quality.quality` says of the held-out pairs: means over members.

    Raises:
        Interrupted: `work` asked to stop; the state is saved.
        RunFailed: no pair fits into max_length, or a checkpoint cannot be written.
    """
    results: list[MemberResult] = []
    for member in range(stage.members):
        before = sum(result.steps for result in results)
        result = work.finished(member)
        if result is None:
            result = _train_member(stage, start, pairs, member, seed + member, _counted_on(on_log, before), work)
        if work.stop_asked():
            raise Interrupted(f"stopped after member {member}; run the same command to continue")
        results.append(result)
    for member in range(stage.members):
        work.hand_over(member, folder if stage.members == 1 else folder / f"member_{member}")
    write_calibration(folder, PairScores.mean([result.scores for result in results]))
    names = results[0].numbers
    together = {name: sum(result.numbers[name] for result in results) / len(results) for name in names}
    if stage.members > 1:  # as the reward over all members sees them
        served = PairScores.mean([result.scores.normalised() for result in results])
        together["ensemble_accuracy"] = quality(served)["accuracy"]
    return together


def _counted_on(on_log: OnLog, before: int) -> OnLog:
    return lambda step, total, numbers: on_log(before + step, before + total, numbers)


def _train_member(
    stage: PreferenceModelStage,
    start: str,
    pairs: PairSplit,
    member: int,
    seed: int,
    on_log: OnLog,
    work: UnfinishedWork,
) -> MemberResult:
    """One model, kept in `work`."""
    from transformers import set_seed

    from rl.reward_model.trainer import ResumableTrainer, early_stopping, training_config

    set_seed(seed)  # the new head is random
    with without_progress_bars():
        model, tokenizer = load_classifier(start)
    training, num_too_long = _dataset(tokenizer, pairs.training, stage.max_length)
    validation = None
    if stage.early_stop is not None:
        validation, _ = _dataset(tokenizer, pairs.validation, stage.max_length)
    with _without_dataset_bars(), without_progress_bars():
        trainer = ResumableTrainer(
            work,
            member,
            on_log,
            model=model,
            args=training_config(stage, work.trainer(member), seed),
            train_dataset=training,
            eval_dataset=validation,
            processing_class=tokenizer,
            callbacks=[early_stopping(stage.early_stop)] if stage.early_stop is not None else [],
            peft_config=_lora_config(stage.lora) if stage.lora is not None else None,
        )
        numbers = trainer.train_on()
    trained: Any = trainer.model
    merged = trained.merge_and_unload() if stage.lora is not None else trained

    def write(folder: Path) -> MemberResult:
        with without_progress_bars():
            merged.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        scores = _held_out_scores(folder, pairs.held_out)
        return MemberResult({**numbers, "pairs_too_long": float(num_too_long), **quality(scores)}, scores)

    return work.finish(member, write)


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
