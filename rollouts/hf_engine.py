"""The same engine on a transformers model: for machines where vLLM is not installed, and for very small models."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer

from rollouts.decoding import Decoded, decode
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

    def _generate_batch(self, prompts: Sequence[NDArray[np.int64]], sampling: Sampling) -> list[Generation]:
        stops = functools.partial(self._stops, sampling.stop) if sampling.stop else None
        found = decode(self._model, prompts, sampling, end=frozenset([self._tokenizer.eos_token_id]), stops=stops)
        return [self._generation(one, sampling) for one in found]

    def _stops(self, stop: Sequence[str], token_ids: NDArray[np.int64]) -> bool:
        """Whether the newest token completes a stop text. A token is a byte at least, a character four at most."""
        longest = max(map(len, stop))
        tail = self._tokenizer.decode(token_ids[-4 * longest - 4 :])
        return any(text in tail for text in stop)

    def _generation(self, decoded: Decoded, sampling: Sampling) -> Generation:
        ids = decoded.token_ids
        text = self._tokenizer.decode(ids, skip_special_tokens=True)
        stopped = bool(len(ids)) and ids[-1] == self._tokenizer.eos_token_id
        for stop in sampling.stop:
            if stop in text:
                text, stopped = text.split(stop)[0], True
        reason = FinishReason.STOP if stopped else FinishReason.LENGTH
        return Generation(ids, decoded.logprobs, text, reason, self._version)

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
