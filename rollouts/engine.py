"""What the loop needs from whatever samples tokens, and what the pool needs from one engine in an actor.

`Engine` is many requests in, generations out as they finish; rl/engine_pool.py implements it over actors.
`EngineActor` is one engine that is driven in short calls; vllm_engine.py and hf_engine.py implement it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rollouts.shared_weights import SharedWeights
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
class Begun:
    """The first tokens of a response that is not finished. A counts them."""

    token_ids: NDArray[np.int64]
    """[A]"""
    logprobs: NDArray[np.float32]
    """[A] nats, under the distribution that each was sampled from"""
    versions: NDArray[np.int32]
    """[A] weight updates that the policy had seen when it sampled the token"""


NOT_BEGUN = Begun(np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.int32))


@dataclass(frozen=True)
class Request:
    """One response to sample."""

    prompt_token_ids: NDArray[np.int64]
    """[T_prompt], placeholders of images expanded"""
    sampling: Sampling
    images: PromptImages | None = None
    """None for a prompt of text"""
    begun: Begun = field(default=NOT_BEGUN)
    """tokens that are sampled already; the response goes on after them"""

    @property
    def token_ids(self) -> NDArray[np.int64]:
        """[T_prompt + A] all that the next token depends on."""
        return np.concatenate([self.prompt_token_ids, self.begun.token_ids])

    @property
    def remaining(self) -> Sampling:
        """The sampling with the tokens that are left."""
        left = self.sampling.max_tokens - len(self.begun.token_ids)
        return self.sampling if left == self.sampling.max_tokens else replace(self.sampling, max_tokens=left)


class RequestRefused(RuntimeError):
    """An engine cannot answer a request; it can answer others."""

    def __init__(self, reason: str, index: int | None = None) -> None:
        """`index`: of the request among those that were asked; None where it is told already which it is."""
        super().__init__(reason)
        self.index = index


class PromptMismatch(RequestRefused):
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
    versions: NDArray[np.int32]
    """[A] weight updates that the policy had seen when it sampled the token"""


@dataclass(frozen=True)
class GivenUp:
    """In place of a generation: a request that no engine can answer."""

    reason: str
    breaks: int = 0
    """engines that broke while they had it"""
    allowed: bool = False
    """whether the recipe lets a stage go on without it"""


@dataclass(frozen=True)
class Paused:
    """A stream that was ended early, by index of the request."""

    finished: Mapping[int, Generation]
    """ended before the engines heard of the pause, and not delivered yet"""
    begun: Mapping[int, Begun]
    """what every other undelivered request has so far"""


class Generates(Protocol):
    """The least that an engine does."""

    def generate(self, requests: Sequence[Request], *, seed: int) -> list[Generation]:
        """One generation per request, in order. The same requests, weights and seed give the same tokens."""
        ...


class Engine(Generates, Protocol):
    """Generates responses with the newest weights that it was given."""

    def stream(self, requests: Sequence[Request], *, seed: int) -> Iterator[tuple[int, Generation | GivenUp]]:
        """(index of the request, its generation), each once, as they finish. Closing the iterator drops the rest."""
        ...

    def pause(self) -> Paused:
        """Ends the stream that is under way."""
        ...

    def load_weights(self, weights: Mapping[str, NDArray[np.float32]], version: int) -> None:
        """Replaces all weights (names of the transformers state dict) and forgets every cached prefix."""
        ...

    def sleep(self) -> None:
        """Frees device memory where the engine can, until weights are loaded again."""
        ...


@dataclass(frozen=True)
class Progress:
    """What one call of an engine brought."""

    finished: Sequence[tuple[int, Generation]]
    """by the number that the request was added with"""
    failed: Sequence[tuple[int, str]]
    """requests that the engine refuses, and why; the others go on"""
    began: float
    """when the engine took the call, seconds since the epoch"""
    ended: float


@dataclass(frozen=True)
class EngineStart:
    """How an engine in a process of its own came up, in seconds since the epoch."""

    process: float
    """the operating system started the process"""
    constructed: float
    """Ray had it ready, and the engine was to be made"""
    imported: float
    """its libraries were there"""
    ready: float
    """its model was loaded"""


class EngineActor(Protocol):
    """One engine, driven in calls that are short, so that one which does not answer can be told from a busy one."""

    def ready(self) -> EngineStart:
        """Returns once the model is loaded."""
        ...

    def advance(self, new: Sequence[tuple[int, Request]], *, seed: int | None) -> Progress:
        """Takes requests under numbers of the caller's, and samples for a moment, with those taken before.

        Args:
            seed: where given, nothing is under way; the same calls then give the same tokens.
        """
        ...

    def give_back(self, numbers: Sequence[int]) -> list[tuple[int, Begun]]:
        """Gives up these requests: what each has so far. Those that are finished are left out."""
        ...

    def pause(self) -> list[tuple[int, Begun]]:
        """Gives up all requests: what each has so far."""
        ...

    def load_weights(self, weights: SharedWeights | Mapping[str, NDArray[np.float32]], version: int) -> None:
        """See `Engine.load_weights`. No request is under way."""
        ...


def sampled_alone(engine: EngineActor, requests: Sequence[Request], *, seed: int) -> list[Generation]:
    """What one engine gives for requests that it has for itself; see `Engine.generate`.

    Raises:
        RequestRefused: the engine refuses a request.
    """
    found: dict[int, Generation] = {}
    new: list[tuple[int, Request]] = list(enumerate(requests))
    while len(found) < len(requests):
        progress = engine.advance(new, seed=None if not new else seed)
        if progress.failed:
            raise RequestRefused(progress.failed[0][1])
        found.update(progress.finished)
        new = []
    return [found[index] for index in range(len(requests))]


def joined(begun: Begun, new: Begun) -> Begun:
    """One after the other."""
    if not len(begun.token_ids):
        return new
    return Begun(
        np.concatenate([begun.token_ids, new.token_ids]),
        np.concatenate([begun.logprobs, new.logprobs]),
        np.concatenate([begun.versions, new.versions]),
    )


def finished(request: Request, new: Begun, text: str, reason: FinishReason, tokenizer: Any) -> Generation:
    """The generation of a request, from the tokens that were sampled last and what it had begun with.

    Args:
        text: of the new tokens; that of a continued response is decoded from all of them, since characters and stop
            texts may lie across the seam. Tokens after such a stop are cut off.
        tokenizer: decodes continued responses.
    """
    all_of_it = joined(request.begun, new)
    if all_of_it is not new:
        text, length = cut_at_stop(tokenizer, all_of_it.token_ids, request.sampling.stop)
        if length is not None:
            reason = FinishReason.STOP
            all_of_it = Begun(*(getattr(all_of_it, name)[:length] for name in ("token_ids", "logprobs", "versions")))
    return Generation(all_of_it.token_ids, all_of_it.logprobs, text, reason, all_of_it.versions)


def cut_at_stop(tokenizer: Any, ids: NDArray[np.int64], stops: Sequence[str]) -> tuple[str, int | None]:
    """(text before the first stop text, number of tokens until that is complete; None where there is none)."""
    text = tokenizer.decode(ids, skip_special_tokens=True)
    found = [(text.index(stop), stop) for stop in stops if stop in text]
    if not found:
        return text, None
    start, stop = min(found)
    length = next(n for n in range(1, len(ids) + 1) if stop in tokenizer.decode(ids[:n], skip_special_tokens=True))
    return text[:start], length
