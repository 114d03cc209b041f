"""The same engine on a transformers model: for machines where vLLM is not installed, and for very small models."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, ProcessorMixin

from rollouts.decoding import Decoded, decode
from rollouts.engine import Generation, PromptMismatch, Request, Sampling
from rollouts.processing import inputs_of, load_processing, media_token_ids, model_class, tokenizer_of
from rollouts.trajectory import NO_INPUTS, FinishReason, ModelInputs


class HfEngine:
    """Implements `rollouts.engine.Engine`."""

    def __init__(self, model: str, *, max_num_seqs: int, device: str, trust_remote_code: bool = False) -> None:
        start = time.monotonic()
        config = AutoConfig.from_pretrained(model, trust_remote_code=trust_remote_code)
        loaded: Any = model_class(config).from_pretrained(
            model, dtype=torch.float32, trust_remote_code=trust_remote_code
        )
        self._model = loaded.to(device).eval()
        if hasattr(loaded.base_model, "rope_deltas"):  # rotary positions that the model keeps by row of a batch
            raise ValueError(f"{type(loaded).__name__}: engine.kind hf cannot sample from it; use engine.kind vllm")
        self._processing = load_processing(model, trust_remote_code=trust_remote_code)
        self._tokenizer: Any = tokenizer_of(self._processing)
        self._never_sampled = media_token_ids(config)
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
                found.update(zip(batch, self._generate_batch([requests[index] for index in batch], sampling)))
        return [found[index] for index in range(len(requests))]

    def _model_inputs(self, requests: Sequence[Request]) -> list[ModelInputs]:
        """Of the images of each request; samples of one prompt share them."""
        known: dict[int, ModelInputs] = {}
        for request in requests:
            if request.images is not None and id(request.images) not in known:
                assert isinstance(self._processing, ProcessorMixin), "a model without eyes gets no images"
                inputs = inputs_of(self._processing, request.images, request.prompt_token_ids)
                if inputs is None:
                    raise PromptMismatch("the processor makes other tokens of a prompt here than in the trainer")
                known[id(request.images)] = inputs
        return [known.get(id(request.images), NO_INPUTS) for request in requests]

    def _generate_batch(self, requests: Sequence[Request], sampling: Sampling) -> list[Generation]:
        found = decode(
            self._model,
            [request.prompt_token_ids for request in requests],
            sampling,
            end=frozenset([self._tokenizer.eos_token_id]),
            stops=functools.partial(self._stops, sampling.stop) if sampling.stop else None,
            model_inputs=self._model_inputs(requests),
            never=self._never_sampled,
        )
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
        result = self._model.load_state_dict(tensors, strict=False)
        if result.unexpected_keys or set(result.missing_keys) - {"lm_head.weight"}:  # which is tied where it is missing
            raise RuntimeError(f"weights of another model: {[*result.unexpected_keys, *result.missing_keys][:5]}")
        self._version = version

    def sleep(self) -> None:
        """Nothing to free."""

    def wake(self) -> None:
        """Nothing to take back."""
