"""The same engine on a transformers model: for machines where vLLM is not installed, and for very small models."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from transformers import ProcessorMixin

from rollouts.decoding import Decoded, decode
from rollouts.decoding_attention import use_decoding_attention
from rollouts.engine import (
    Begun,
    EngineStart,
    Generation,
    Progress,
    PromptMismatch,
    Request,
    Sampling,
    finished,
    sampled_alone,
)
from rollouts.load_model import file_names, load_model
from rollouts.processing import inputs_of, load_processing, media_token_ids, tokenizer_of
from rollouts.shared_weights import SharedWeights
from rollouts.trajectory import NO_INPUTS, FinishReason, ModelInputs


class HfEngine:
    """Implements `rollouts.engine.EngineActor`."""

    def __init__(self, model: str, *, max_num_seqs: int, device: str, trust_remote_code: bool = False) -> None:
        constructed = time.time()
        loaded: Any = load_model(model, trust_remote_code=trust_remote_code)
        self._model = loaded.to(device).eval()
        self._own_names = {own: name for name, own in file_names(loaded, loaded.state_dict()).items()}
        use_decoding_attention(self._model)
        self._processing = load_processing(model, trust_remote_code=trust_remote_code)
        self._tokenizer: Any = tokenizer_of(self._processing)
        self._never_sampled = media_token_ids(loaded.config)
        self._max_num_seqs = max_num_seqs
        self._version = -1
        self._waiting: dict[int, Request] = {}
        process = psutil.Process().create_time()
        self._start = EngineStart(process, constructed, constructed, time.time())

    def ready(self) -> EngineStart:
        """See `EngineActor.ready`; the libraries are imported with this module."""
        return self._start

    def generate(self, requests: Sequence[Request], *, seed: int) -> list[Generation]:
        """See `Generates`."""
        return sampled_alone(self, requests, seed=seed)

    def stream(self, requests: Sequence[Request], *, seed: int) -> Iterator[tuple[int, Generation]]:
        """See `Engine.stream`: all at the end."""
        yield from enumerate(self.generate(requests, seed=seed))

    def advance(self, new: Sequence[tuple[int, Request]], *, seed: int | None) -> Progress:
        """See `EngineActor.advance`: one batch of requests of like length and equal sampling, to its end."""
        began = time.time()
        if seed is not None:
            torch.manual_seed(seed)
        self._waiting.update(new)
        batch = self._next_batch()
        done: list[tuple[int, Generation]] = []
        failed: list[tuple[int, str]] = []
        if batch:
            requests = [self._waiting.pop(number) for number in batch]
            try:
                found = self._generate_batch(requests, requests[0].remaining)
            except PromptMismatch as error:
                failed = [(number, str(error)) for number in batch]
            else:
                done = [
                    (number, finished(request, *one, self._tokenizer))
                    for number, request, one in zip(batch, requests, found)
                ]
        return Progress(done, failed, began, time.time())

    def _next_batch(self) -> list[int]:
        """Numbers of the requests that are answered next: the shortest, and others with the same sampling."""
        by_length = sorted(self._waiting, key=lambda number: (len(self._waiting[number].token_ids), number))
        if not by_length:
            return []
        first = self._waiting[by_length[0]].remaining
        return [number for number in by_length if self._waiting[number].remaining == first][: self._max_num_seqs]

    def pause(self) -> list[tuple[int, Begun]]:
        """See `EngineActor.pause`."""
        return self.give_back(list(self._waiting))

    def give_back(self, numbers: Sequence[int]) -> list[tuple[int, Begun]]:
        """See `EngineActor.give_back`: none has more than it came with, since a batch is never interrupted."""
        return [(number, self._waiting.pop(number).begun) for number in numbers if number in self._waiting]

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

    def _generate_batch(
        self, requests: Sequence[Request], sampling: Sampling
    ) -> list[tuple[Begun, str, FinishReason]]:
        found = decode(
            self._model,
            [request.token_ids for request in requests],
            sampling,
            end=frozenset([self._tokenizer.eos_token_id]),
            stops=functools.partial(self._stops, sampling.stop) if sampling.stop else None,
            model_inputs=self._model_inputs(requests),
            never=self._never_sampled,
        )
        return [self._ended(one, sampling) for one in found]

    def _stops(self, stop: Sequence[str], token_ids: NDArray[np.int64]) -> bool:
        """Whether the newest token completes a stop text. A token is a byte at least, a character four at most."""
        longest = max(map(len, stop))
        tail = self._tokenizer.decode(token_ids[-4 * longest - 4 :])
        return any(text in tail for text in stop)

    def _ended(self, decoded: Decoded, sampling: Sampling) -> tuple[Begun, str, FinishReason]:
        ids = decoded.token_ids
        text = self._tokenizer.decode(ids, skip_special_tokens=True)
        stopped = bool(len(ids)) and ids[-1] == self._tokenizer.eos_token_id
        for stop in sampling.stop:
            if stop in text:
                text, stopped = text.split(stop)[0], True
        reason = FinishReason.STOP if stopped else FinishReason.LENGTH
        return Begun(ids, decoded.logprobs, np.full(len(ids), self._version, np.int32)), text, reason

    def load_weights(self, weights: SharedWeights | Mapping[str, NDArray[np.float32]], version: int) -> None:
        """See `EngineActor.load_weights`."""
        arrays = weights.tensors() if isinstance(weights, SharedWeights) else weights.items()
        own = self._own_names
        tensors = {own.get(k, k): torch.from_numpy(x if x.flags.writeable else x.copy()) for k, x in arrays}
        result = self._model.load_state_dict(tensors, strict=False)
        if result.unexpected_keys or set(result.missing_keys) - {"lm_head.weight"}:  # which is tied where it is missing
            raise RuntimeError(f"weights of another model: {[*result.unexpected_keys, *result.missing_keys][:5]}")
        self._version = version

    def sleep(self) -> None:
        """Nothing to free."""

    def wake(self) -> None:
        """Nothing to take back."""
