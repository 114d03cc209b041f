"""The same engine on transformers' generate: slower, for machines where vLLM is not installed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from rollouts.engine import Generation, Request, Sampling
from rollouts.trajectory import FinishReason


class HfEngine:
    """Implements `rollouts.engine.Engine`."""

    def __init__(self, model: str, *, max_num_seqs: int, device: str, trust_remote_code: bool = False) -> None:
        start = time.monotonic()
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            model, dtype=torch.float32, trust_remote_code=trust_remote_code
        )
        self._model = loaded.to(device).eval()
        self._tokenizer: Any = AutoTokenizer.from_pretrained(model, trust_remote_code=trust_remote_code)
        self._max_num_seqs = max_num_seqs
        self._version = -1
        self._start_s = time.monotonic() - start

    def ready(self) -> float:
        """Returns once the model is loaded: the seconds that it took."""
        return self._start_s

    def generate(self, requests: Sequence[Request], *, seed: int) -> list[Generation]:
        """See `Engine.generate`. Requests of like length and equal sampling share a batch."""
        torch.manual_seed(seed)
        by_sampling: dict[Sampling, list[int]] = {}
        for index in sorted(range(len(requests)), key=lambda i: len(requests[i].prompt_token_ids)):
            by_sampling.setdefault(requests[index].sampling, []).append(index)
        found: dict[int, Generation] = {}
        for sampling, indices in by_sampling.items():
            for start in range(0, len(indices), self._max_num_seqs):
                batch = indices[start : start + self._max_num_seqs]
                prompts = [requests[index].prompt_token_ids for index in batch]
                found.update(zip(batch, self._generate_batch(prompts, sampling)))
        return [found[index] for index in range(len(requests))]

    @torch.no_grad()
    def _generate_batch(self, prompts: Sequence[NDArray[np.int64]], sampling: Sampling) -> list[Generation]:
        width = max(map(len, prompts))
        device = self._model.device
        ids = torch.full((len(prompts), width), self._pad_id(), dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):  # padded on the left, so that sampling starts in one column
            ids[row, width - len(prompt) :] = torch.from_numpy(prompt)
            mask[row, width - len(prompt) :] = 1
        out = self._model.generate(
            ids.to(device),
            attention_mask=mask.to(device),
            generation_config=self._configuration(sampling),
            tokenizer=self._tokenizer if sampling.stop else None,
        )
        # `scores` are the logits after temperature, top-k and top-p: what was sampled from.
        logprobs = torch.stack([step.log_softmax(-1) for step in out.scores], 1)  # [B, A, V]
        sampled = out.sequences[:, width:]
        chosen = logprobs.gather(-1, sampled[..., None])[..., 0]
        return [self._generation(row, scores, sampling) for row, scores in zip(sampled.cpu(), chosen.cpu())]

    def _configuration(self, sampling: Sampling) -> GenerationConfig:
        greedy = sampling.temperature == 0
        return GenerationConfig(
            do_sample=not greedy,
            temperature=None if greedy else sampling.temperature,
            top_p=None if greedy else sampling.top_p,
            top_k=None if greedy else sampling.top_k,
            max_new_tokens=sampling.max_tokens,
            stop_strings=list(sampling.stop) or None,
            eos_token_id=self._tokenizer.eos_token_id,
            pad_token_id=self._pad_id(),
            return_dict_in_generate=True,
            output_scores=True,
        )

    def _generation(self, row: torch.Tensor, scores: torch.Tensor, sampling: Sampling) -> Generation:
        ends = (row == self._tokenizer.eos_token_id).nonzero()
        length = int(ends[0]) + 1 if len(ends) else len(row)
        text = self._tokenizer.decode(row[:length], skip_special_tokens=True)
        stopped = bool(len(ends))
        for stop in sampling.stop:
            if stop in text:
                text, stopped = text.split(stop)[0], True
                length = self._length_up_to(row, stop)
        reason = FinishReason.STOP if stopped else FinishReason.LENGTH
        return Generation(row[:length].numpy(), scores[:length].numpy(), text, reason, self._version)

    def _length_up_to(self, row: torch.Tensor, stop: str) -> int:
        """Number of tokens until the stop text is complete; what generate wrote after it is padding."""
        return next(n for n in range(1, len(row) + 1) if stop in self._tokenizer.decode(row[:n]))

    def _pad_id(self) -> int:
        pad = self._tokenizer.pad_token_id
        return int(self._tokenizer.eos_token_id if pad is None else pad)

    def load_weights(self, weights: Mapping[str, NDArray[np.float32]], version: int) -> None:
        """See `Engine.load_weights`."""
        tensors = {name: torch.from_numpy(np.array(x)) for name, x in weights.items()}
        if "lm_head.weight" not in tensors:
            tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
        self._model.load_state_dict(tensors)
        self._version = version

    def sleep(self) -> None:
        """Nothing to free."""

    def wake(self) -> None:
        """Nothing to take back."""

