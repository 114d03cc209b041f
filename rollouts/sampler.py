"""The asynchronous view of whatever samples text: many requests under way, each answered as soon as it is done.

vllm_sampler.py, batch_sampler.py (any `Engine`) and endpoint.py (an OpenAI-compatible server) implement it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from rollouts.engine import Sampling
from rollouts.trajectory import FinishReason, PromptContent


class SamplingError(RuntimeError):
    """A request has no response; the message says why, and how often it was tried."""


class SamplerUnusable(SamplingError):
    """No request can succeed: the server refuses the key or the model, or the engine died."""


@dataclass(frozen=True)
class Reply:
    """One sampled response."""

    text: str
    """without the stop token; thoughts that a server splits off stand before it in <think></think>"""
    prompt_tokens: int
    completion_tokens: int
    """sampled tokens, thoughts included"""
    finish_reason: FinishReason
    seconds: float
    """from the request to its last token, waiting and retries included"""
    attempts: int = 1
    """requests that it took"""


class Sampler(Protocol):
    """Samples responses to many prompts at the same time."""

    async def sample(self, content: PromptContent, sampling: Sampling, *, seed: int) -> Reply:
        """One response. Cancelling the call ends the request.

        Args:
            seed: of this request. Equal requests with equal seeds give equal responses where the implementation can.

        Raises:
            SamplingError: there is none.
        """
        ...

    def stream(self, content: PromptContent, sampling: Sampling, *, seed: int) -> AsyncIterator[str | Reply]:
        """The same, while it is written: pieces of text, and at the end the whole reply."""
        ...

    def room(self, content: PromptContent) -> int | None:
        """Tokens that the context leaves for a response, below 0 where the prompt alone is too long; None: unknown."""
        ...

    async def close(self) -> None:
        """Ends what is under way and frees the engine."""
        ...
