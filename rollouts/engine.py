"""What the loop needs from whatever samples tokens. vllm_engine.py and hf_engine.py implement it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rollouts.trajectory import FinishReason, PromptImages


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn."""

    temperature: float
    """divides the logits; 0 means greedy"""
    top_p: float
    """nucleus mass in (0, 1]; 1 keeps every token"""
    top_k: int
    """number of tokens kept; 0 keeps every token"""
    max_tokens: int
    """upper bound of sampled tokens per response, the stop token included"""
    stop: tuple[str, ...] = ()
    """texts that end a response, beside the model's end-of-sequence token"""


@dataclass(frozen=True)
class Request:
    """One response to sample."""

    prompt_token_ids: NDArray[np.int64]
    """[T_prompt], placeholders of images expanded"""
    sampling: Sampling
    images: PromptImages | None = None
    """None for a prompt of text"""


class PromptMismatch(RuntimeError):
    """An engine made other tokens of a prompt with images than the trainer: what was sampled would be misread."""


@dataclass(frozen=True)
class Generation:
    """What came back for one request. A counts sampled tokens."""

    token_ids: NDArray[np.int64]
    """[A] sampled tokens, the end-of-sequence token included where it was sampled"""
    logprobs: NDArray[np.float32]
    """[A] nats, under the distribution after temperature, top-k and top-p"""
    text: str
    """the sampled tokens as text, without special tokens"""
    finish_reason: FinishReason
    policy_version: int


class Engine(Protocol):
    """Generates responses with the newest weights that it was given."""

    def generate(self, requests: Sequence[Request], *, seed: int) -> list[Generation]:
        """One generation per request, in order. The same requests, weights and seed give the same tokens."""
        ...

    def load_weights(self, weights: Mapping[str, NDArray[np.float32]], version: int) -> None:
        """Replaces all weights (names of the transformers state dict) and forgets every cached prefix."""
        ...

    def sleep(self) -> None:
        """Frees device memory where the engine can; weights must be loaded again after `wake`."""
        ...

    def wake(self) -> None:
        """Takes the memory back."""
        ...
