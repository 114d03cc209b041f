"""A sequence classifier on this machine: from prompts and completions to one score each.

Rows are written as TRL's RewardTrainer writes them for training (text: prompt + completion + end-of-sequence token,
tokenized together; messages: the chat template), so that a model scores what it was trained on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rewards.completions import completion_text


class Scorer(Protocol):
    """Scores rows of tokens, wherever the model is."""

    tokenizer: Any
    max_length: int | None
    """tokens that the model can read, None for no limit"""

    def score(self, rows: Sequence[Sequence[int]]) -> list[float]:
        """The classifier's output for each row, in order."""
        ...


class SequenceScorer:
    """A classifier with one output and its tokenizer, loaded into this process.

    Args:
        path: directory of an AutoModelForSequenceClassification with num_labels=1 and its tokenizer.
        device: "cpu", "cuda:0", ...; None for a GPU if there is one.
        batch_tokens: padded tokens of one forward pass at most; a longer row has one of its own.
        dtype: of weights and compute, such as "bfloat16"; "auto" for that of the file.
        offload: keep the weights in main memory between calls, so that something else can use the device.

    Raises:
        FileNotFoundError: `path` is not the directory of a model.
        ValueError: the model has more than one output.
    """

    def __init__(
        self, path: str, *, device: str | None, batch_tokens: int, dtype: str = "auto", offload: bool = False
    ) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification

        check_model_folder(path)
        self._torch = torch
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._batch_tokens = batch_tokens
        self._offload = offload
        self.tokenizer = load_tokenizer(path)
        with without_progress_bars():
            self.model: Any = AutoModelForSequenceClassification.from_pretrained(
                path, dtype=dtype, local_files_only=True
            )
        if self.model.config.num_labels != 1:
            raise ValueError(f"preference reward: {path!r} has num_labels {self.model.config.num_labels}, expected 1")
        self.model = self.model.to("cpu" if offload else self._device).eval()
        text_config = self.model.config.get_text_config()
        self._pad_token_id: int | None = text_config.pad_token_id
        self.max_length: int | None = getattr(text_config, "max_position_embeddings", None)

    def score(self, rows: Sequence[Sequence[int]]) -> list[float]:
        """The classifier's output for each row of tokens, in order.

        Raises:
            ValueError: a row has no tokens.
        """
        if any(len(row) == 0 for row in rows):
            raise ValueError("preference reward: a row has no tokens at all")
        scores = self._torch.zeros(len(rows))
        if self._offload:
            self.model.to(self._device)
        with self._torch.inference_mode():
            # read back at the end: on a GPU the next batch is prepared while this one is computed
            batches = list(length_buckets([len(row) for row in rows], self._batch_tokens))
            values = [self._forward([rows[i] for i in batch]).float() for batch in batches]
            for batch, value in zip(batches, values):
                scores[batch] = value.cpu()
        if self._offload:
            self.model.to("cpu")
        return [float(x) for x in scores]

    def _forward(self, rows: Sequence[Sequence[int]]) -> Any:
        """[B] scores; padded on the right whatever the tokenizer prefers, as in training."""
        torch = self._torch
        lengths = np.array([len(row) for row in rows])
        mask = np.arange(lengths.max()) < lengths[:, None]  # [B, T]
        padded = np.full(mask.shape, 0 if self._pad_token_id is None else self._pad_token_id, dtype=np.int64)
        padded[mask] = np.concatenate([np.asarray(row, dtype=np.int64) for row in rows])
        ids = torch.from_numpy(padded).to(self._device, non_blocking=True)
        attention = torch.from_numpy(mask.astype(np.int64)).to(self._device, non_blocking=True)
        if self._pad_token_id is not None:
            return self.model(input_ids=ids, attention_mask=attention, use_cache=False).logits[:, 0]
        # Without a padding token the model refuses batches; read its last real token ourselves.
        backbone = getattr(self.model, self.model.base_model_prefix)
        hidden = backbone(input_ids=ids, attention_mask=attention, use_cache=False).last_hidden_state  # [B, T, D]
        last = torch.from_numpy(lengths - 1).to(self._device)
        return self.model.score(hidden[torch.arange(len(rows), device=self._device), last])[:, 0]


def check_model_folder(path: str) -> None:
    """Raises FileNotFoundError where `path` is not the directory of a model."""
    if not (Path(path) / "config.json").is_file():
        raise FileNotFoundError(f"preference reward: {path!r} is not the directory of a model (no config.json)")


@contextlib.contextmanager
def without_progress_bars() -> Iterator[None]:
    """Keeps transformers from drawing on a terminal that somebody else draws on."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    yield
    if shown:
        logging.enable_progress_bar()


def load_tokenizer(path: str) -> Any:
    """The tokenizer in a model's directory."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path, local_files_only=True)


def row_tokens(
    tokenizer: Any, prompts: Sequence[Any], completions: Sequence[Any], finished: Sequence[bool] | None = None
) -> list[list[int]]:
    """Tokens of each prompt and completion, as RewardTrainer makes them.

    Args:
        prompts: text, or messages; messages may be empty where the completion is the whole conversation.
        finished: False where a token limit cut the completion: its text gets no end-of-sequence token.
    """
    finished = [True] * len(prompts) if finished is None else finished
    rows: list[list[int]] = [[]] * len(prompts)
    texts: dict[int, str] = {}
    for i, (prompt, completion, ended) in enumerate(zip(prompts, completions, finished, strict=True)):
        if isinstance(prompt, str):
            texts[i] = _text(tokenizer, prompt, completion, ended)
        else:
            answer = [{"role": "assistant", "content": completion}] if isinstance(completion, str) else [*completion]
            encoded = tokenizer.apply_chat_template([*prompt, *answer], tokenize=True, return_dict=True)
            rows[i] = list(encoded["input_ids"])
    if texts:  # together: a fast tokenizer is several times faster on a list
        for i, ids in zip(texts, tokenizer(text=list(texts.values()))["input_ids"]):
            rows[i] = list(ids)
    return rows


def _text(tokenizer: Any, prompt: str, completion: Any, finished: bool) -> str:
    text = prompt + completion_text(completion)
    eos = tokenizer.eos_token
    return text + eos if finished and eos and not text.endswith(eos) else text


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
