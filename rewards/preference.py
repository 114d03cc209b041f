"""A learned preference reward: a sequence classifier with one output scores prompt and completion.

The model may be one or several (an ensemble), in this process or behind vLLM's /classify; its scores are normalised,
pessimism about what the ensemble disagrees on is subtracted, and the result is clipped:

    z_m    = (score_m - mean_m) / std_m
    reward = clamp(mean over m of z_m  -  pessimism * std over m of z_m, -clip, clip)

Source of the ensemble: Coste et al. 2023, https://arxiv.org/abs/2310.02743 (uncertainty-weighted optimisation).
"""

from __future__ import annotations

import json
import math
import statistics
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewards.classify_server import ServerScorer
from rewards.scale import RunningScale, Scale
from rewards.sequence_scorer import Scorer, SequenceScorer, row_tokens

# In the folder of a preference model: mean and std of its scores on held-out responses.
NORMALISATION = "normalisation.json"


def preference_reward(
    *,
    model: str | Sequence[str],
    mean: float | None = None,
    std: float | None = None,
    reference: str | None = None,
    running: bool = False,
    clip: float | None = None,
    pessimism: float = 0.0,
    batch_tokens: int = 16_384,
    max_length: int | None = None,
    device: str | None = None,
    dtype: str = "auto",
    offload: bool = False,
    url: str | None = None,
    served_name: str | None = None,
    timeout_s: float = 60.0,
) -> PreferenceReward:
    """A reward function that runs the classifier in the directory `model`; it loads at the first call.

    Args:
        model: directory of an AutoModelForSequenceClassification with num_labels=1 and its tokenizer. Several, or a
            directory of such directories named member_0, member_1, ..., are an ensemble.
        mean, std: of the scores on some reference data, in the model's units. Not given: those of the file
            normalisation.json in the directory, or 0 and 1 where there is none.
        reference: JSONL file of {"prompt", "completion"}; mean and std are those of the model's scores on it.
        running: mean and std are those of all scores of this process so far. They change while a run goes on and start
            anew with every process, so equal responses do not get equal rewards.
        clip: bound of the reward; None for none.
        pessimism: standard deviations over the ensemble that are subtracted.
        batch_tokens: padded tokens of one forward pass at most; a longer row has one of its own.
        max_length: tokens of a row at most, None for what the model can read; a longer row loses its beginning,
            since the score is read at its end, and counts in the metric preference/truncated.
        device: "cpu", "cuda:0", ...; None for a GPU if there is one.
        dtype: of weights and compute, such as "bfloat16"; "auto" for that of the file.
        offload: keep the weights in main memory between calls.
        url: address of a vLLM server with the model, see rewards.classify_server; `model` then needs only a tokenizer.
        served_name: the model's name on that server; not given: `model`.
        timeout_s: of one request to the server.

    Raises:
        ValueError: an option has no meaning, alone or beside another one.
    """
    models = [model] if isinstance(model, str) else list(model)
    if not models or not all(isinstance(path, str) for path in models):
        raise ValueError(f"model {model!r}: a directory or a list of directories is expected")
    positive = {"batch_tokens": batch_tokens, "timeout_s": timeout_s, "std": std, "clip": clip}
    if not all(value is None or value > 0 for value in positive.values()):
        raise ValueError(f"batch_tokens {batch_tokens}, timeout_s {timeout_s}, std {std}, clip {clip} must be positive")
    if sum([mean is not None or std is not None, reference is not None, running]) > 1:
        raise ValueError("mean and std, reference, and running exclude each other")
    if not (pessimism >= 0 and math.isfinite(pessimism)):
        raise ValueError(f"pessimism {pessimism} must be at least 0")
    if url is not None and len(models) > 1:
        raise ValueError("url: one server serves one model; an ensemble needs the models here")

    def open_scorer(path: str) -> Scorer:
        if url is None:
            return SequenceScorer(path, device=device, batch_tokens=batch_tokens, dtype=dtype, offload=offload)
        name = served_name or path
        return ServerScorer(url, name=name, tokenizer_path=path, batch_tokens=batch_tokens, timeout_s=timeout_s)

    scale = None if mean is None and std is None else Scale(mean or 0.0, std or 1.0)
    return PreferenceReward(
        models,
        open_scorer,
        scale=scale,
        reference=reference,
        running=running,
        clip=clip,
        pessimism=pessimism,
        max_length=max_length,
    )


class PreferenceReward:
    """What preference_reward returns: a reward function that holds one or several models."""

    __name__ = "preference"  # TRL asks a reward for its name

    def __init__(
        self,
        models: Sequence[str],
        open_scorer: Callable[[str], Scorer],
        *,
        scale: Scale | None,
        reference: str | None,
        running: bool,
        clip: float | None,
        pessimism: float,
        max_length: int | None,
    ) -> None:
        self._models, self._open_scorer = models, open_scorer
        self._scale, self._reference, self._running = scale, reference, running
        self._clip, self._pessimism, self._max_length = clip, pessimism, max_length
        self._members: list[_Member] = []
        self._lock = threading.Lock()

    def warm_up(self) -> None:
        """Load the models; the first call does so too."""
        with self._lock:
            if not self._members:
                folders = [folder for path in self._models for folder in member_folders(path)]
                self._members = [self._open(folder) for folder in folders]

    def _open(self, folder: str) -> _Member:
        scorer = self._open_scorer(folder)
        if self._running:
            return _Member(scorer, RunningScale())
        scale = self._scale or Scale.stored(Path(folder) / NORMALISATION)
        if self._reference is not None:
            prompts, completions = read_responses(self._reference)
            rows, _ = self._truncated(row_tokens(scorer.tokenizer, prompts, completions), scorer)
            scale = Scale.of(scorer.score(rows))
        return _Member(scorer, scale)

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        *,
        finish_reason: Any = None,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """One reward per completion; a column finish_reason of "length" leaves out the end-of-sequence token."""
        self.warm_up()
        if not completions:
            return []
        reasons = finish_reason if isinstance(finish_reason, (list, tuple)) else [finish_reason] * len(completions)
        finished = [reason != "length" for reason in reasons]
        raw: list[list[float]] = []
        normalised: list[list[float]] = []
        num_truncated = 0
        for member in self._members:
            rows = row_tokens(member.scorer.tokenizer, prompts, completions, finished)
            rows, num_truncated = self._truncated(rows, member.scorer)
            scores = member.scorer.score(rows)
            raw.append(scores)
            normalised.append(member.normalise(scores))
        columns_of_scores = list(zip(*normalised))
        spreads = [statistics.pstdev(scores) for scores in columns_of_scores]
        if log_metric is not None:
            log_metric("preference/truncated", num_truncated / len(completions))
            log_metric("preference/raw_score", statistics.fmean(map(statistics.fmean, raw)))
            if len(self._members) > 1:
                log_metric("preference/ensemble_std", statistics.fmean(spreads))
        return [
            self._clipped(statistics.fmean(scores) - self._pessimism * spread)
            for scores, spread in zip(columns_of_scores, spreads)
        ]

    def _truncated(self, rows: list[list[int]], scorer: Scorer) -> tuple[list[list[int]], int]:
        """Rows of at most max_length tokens, their ends kept, and how many lost something."""
        limit = self._max_length or scorer.max_length
        if limit is None:
            return rows, 0
        return [row[-limit:] for row in rows], sum(len(row) > limit for row in rows)

    def _clipped(self, value: float) -> float:
        return value if self._clip is None else max(-self._clip, min(self._clip, value))


@dataclass(frozen=True)
class _Member:
    """A model of the ensemble."""

    scorer: Scorer
    scale: Scale | RunningScale

    def normalise(self, scores: Sequence[float]) -> list[float]:
        scale = self.scale.update(scores) if isinstance(self.scale, RunningScale) else self.scale
        return [scale(score) for score in scores]


def member_folders(path: str) -> list[str]:
    """The models in a directory: itself, or its member_0, member_1, ..."""
    members = sorted(Path(path).glob("member_*"), key=lambda member: int(member.name.removeprefix("member_")))
    return [str(member) for member in members] or [path]


def read_responses(path: str) -> tuple[list[Any], list[Any]]:
    """Prompts and completions of a JSONL file of reference responses.

    Raises:
        ValueError: names the file and the line that is no such response, or says that there are none.
    """
    prompts, completions = [], []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            prompts.append(row["prompt"])
            completions.append(row["completion"])
        except (ValueError, KeyError, TypeError) as error:
            told = "a JSON object with prompt and completion is expected"
            raise ValueError(f"{path}:{number}: {told}: {error}") from None
    if not prompts:
        raise ValueError(f"{path}: no reference responses")
    return prompts, completions
