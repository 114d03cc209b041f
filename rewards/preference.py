"""A learned preference reward: a sequence classifier with one output scores prompt and completion.

Rows are written as TRL's RewardTrainer writes them for training (text: prompt + completion + end-of-sequence token,
tokenized together; messages: the chat template), so that a model scores what it was trained on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rewards.completions import completion_text


def preference_reward(
    *,
    model: str,
    batch_tokens: int = 16_384,
    mean: float = 0.0,
    std: float = 1.0,
    clip: float | None = None,
    device: str | None = None,
    max_length: int | None = None,
) -> PreferenceReward:
    """A reward function that runs the classifier in the directory `model`; it loads at the first call.

        reward = clamp((score - mean) / std, -clip, clip)

    Args:
        model: directory of an AutoModelForSequenceClassification with num_labels=1 and its tokenizer.
        batch_tokens: padded tokens of one forward pass at most; a longer row has one of its own.
        mean, std: of the scores on some reference data, in the model's units; std above 0.
        clip: bound of the normalized reward; None for none.
        device: "cpu", "cuda:0", ...; None for a GPU if there is one.
        max_length: tokens of a row at most, None for what the model can read; a longer row loses its beginning,
            since the score is read at its end, and counts in the metric preference/truncated.
    """
    if batch_tokens < 1 or not std > 0 or (clip is not None and not clip > 0):
        raise ValueError(f"batch_tokens {batch_tokens}, std {std} and clip {clip} must be positive")
    return PreferenceReward(model, batch_tokens, mean, std, clip, device, max_length)


class PreferenceReward:
    """What preference_reward returns: a reward function that holds a model."""

    __name__ = "preference"  # TRL asks a reward for its name

    def __init__(
        self,
        model: str,
        batch_tokens: int,
        mean: float,
        std: float,
        clip: float | None,
        device: str | None,
        max_length: int | None,
    ) -> None:
        self._path = model
        self._batch_tokens = batch_tokens
        self._mean, self._std, self._clip = mean, std, clip
        self._device = device
        self._max_length = max_length
        self._scorer: SequenceScorer | None = None
        self._lock = threading.Lock()

    def warm_up(self) -> None:
        """Load the model; the first call does so too."""
        with self._lock:
            if self._scorer is None:
                self._scorer = SequenceScorer(self._path, self._device, self._batch_tokens, self._max_length)

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
        assert self._scorer is not None
        reasons = finish_reason if isinstance(finish_reason, (list, tuple)) else [finish_reason] * len(completions)
        rows = [
            self._scorer.token_ids(prompt, completion, finished=reason != "length")
            for prompt, completion, reason in zip(prompts, completions, reasons, strict=True)
        ]
        rows, num_truncated = self._scorer.truncate(rows)
        scores = self._scorer.score(rows)
        if log_metric is not None and rows:
            log_metric("preference/truncated", num_truncated / len(rows))
            log_metric("preference/raw_score", sum(scores) / len(scores))
        return [self._normalize(score) for score in scores]

    def _normalize(self, score: float) -> float:
        value = (score - self._mean) / self._std
        return value if self._clip is None else max(-self._clip, min(self._clip, value))


class SequenceScorer:
    """A sequence classifier and its tokenizer."""

    def __init__(self, path: str, device: str | None, batch_tokens: int, max_length: int | None) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        if not (Path(path) / "config.json").is_file():
            raise FileNotFoundError(f"preference reward: {path!r} is not the directory of a model (no config.json)")
        self._torch = torch
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.tokenizer: Any = AutoTokenizer.from_pretrained(path, local_files_only=True)
        classifier = AutoModelForSequenceClassification.from_pretrained(path, dtype="auto", local_files_only=True)
        self.model: Any = classifier.to(device).eval()
        if self.model.config.num_labels != 1:
            raise ValueError(f"preference reward: {path!r} has num_labels {self.model.config.num_labels}, expected 1")
        text_config = self.model.config.get_text_config()
        self._pad_token_id: int | None = text_config.pad_token_id
        self._batch_tokens = batch_tokens
        self._max_length = max_length or getattr(text_config, "max_position_embeddings", None)

    def token_ids(self, prompt: Any, completion: Any, *, finished: bool = True) -> list[int]:
        """Tokens of one row, as RewardTrainer makes them."""
        if isinstance(prompt, str):
            text = prompt + completion_text(completion)
            eos = self.tokenizer.eos_token
            if finished and eos and not text.endswith(eos):
                text += eos
            return list(self.tokenizer(text=text)["input_ids"])
        answer = [{"role": "assistant", "content": completion}] if isinstance(completion, str) else list(completion)
        encoded = self.tokenizer.apply_chat_template([*prompt, *answer], tokenize=True, return_dict=True)
        return list(encoded["input_ids"])

    def truncate(self, rows: list[list[int]]) -> tuple[list[list[int]], int]:
        """Rows of at most max_length tokens, their ends kept, and how many lost something."""
        limit = self._max_length
        if limit is None:
            return rows, 0
        return [row[-limit:] for row in rows], sum(len(row) > limit for row in rows)

    def score(self, rows: Sequence[Sequence[int]]) -> list[float]:
        """The classifier's output for each row of tokens, in order."""
        scores = [0.0] * len(rows)
        with self._torch.inference_mode():
            for batch in length_buckets([len(row) for row in rows], self._batch_tokens):
                values = self._forward([rows[i] for i in batch]).float().tolist()
                for i, value in zip(batch, values):
                    scores[i] = value
        return scores

    def _forward(self, rows: Sequence[Sequence[int]]) -> Any:
        """[B] scores; padded on the right whatever the tokenizer prefers, as in training."""
        torch = self._torch
        if any(len(row) == 0 for row in rows):
            raise ValueError("preference reward: a row has no tokens at all")
        width = max(len(row) for row in rows)
        pad = self._pad_token_id if self._pad_token_id is not None else 0
        device = self.model.device
        ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], device=device)  # [B, T]
        lengths = torch.tensor([len(row) for row in rows], device=device)  # [B]
        mask = (torch.arange(width, device=device) < lengths[:, None]).long()  # [B, T]
        if self._pad_token_id is not None:
            return self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, 0]
        # Without a padding token the model refuses batches; read its last real token ourselves.
        backbone = getattr(self.model, self.model.base_model_prefix)
        hidden = backbone(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state  # [B, T, D]
        return self.model.score(hidden[torch.arange(len(rows), device=device), lengths - 1])[:, 0]


def length_buckets(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Row numbers in batches of similar length, each at most `batch_tokens` tokens when padded, longest first."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    batch: list[int] = []
    for i in order:
        if batch and (len(batch) + 1) * lengths[batch[0]] > batch_tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
