"""Prompts in, trajectories out: tokenization, requests to an engine, and what came back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rollouts.engine import (
    NOT_BEGUN,
    Begun,
    Engine,
    Generates,
    Generation,
    GivenUp,
    Request,
    RequestRefused,
    Sampling,
)
from rollouts.processing import Processing, encoded, encoded_with_images
from rollouts.trajectory import (
    NO_INPUTS,
    ModelInputs,
    Prompt,
    PromptContent,
    PromptImages,
    Trajectory,
    images_of,
    text_of,
)

_TOLD_CHARACTERS = 300  # of a prompt, in a message about it


def encode_content(tokenizer: Processing, content: PromptContent) -> NDArray[np.int64]:
    """Token ids [T_prompt]: plain text as it is, a conversation through the model's chat template."""
    return encode_request(tokenizer, content)[0]


def encode_request(tokenizer: Processing, content: PromptContent) -> tuple[NDArray[np.int64], PromptImages | None]:
    """Token ids [T_prompt] and the images, which is what an engine needs; None for a prompt of text."""
    if images_of(content):
        return encoded_with_images(tokenizer, content)[:2]
    return encoded(tokenizer, content), None


@dataclass(frozen=True)
class TokenizedPrompt:
    """A prompt as the engine and the learner see it."""

    prompt: Prompt
    token_ids: NDArray[np.int64]
    """[T_prompt]"""
    images: PromptImages | None = None
    model_inputs: ModelInputs = NO_INPUTS


def tokenized(tokenizer: Processing, prompt: Prompt) -> TokenizedPrompt:
    """The prompt with its token ids; its images go through the processor here, once for all samples."""
    if images_of(prompt.content):
        return TokenizedPrompt(prompt, *encoded_with_images(tokenizer, prompt.content))
    return TokenizedPrompt(prompt, encoded(tokenizer, prompt.content))


class Collect(Protocol):
    """Prompts to trajectories."""

    def __call__(
        self,
        engine: Engine,
        prompts: Sequence[TokenizedPrompt],
        *,
        samples_per_prompt: int,
        sampling: Sampling,
        seed: int,
    ) -> list[Trajectory]:
        """`samples_per_prompt` trajectories of every prompt; those of one prompt are adjacent."""
        ...


def collect(
    engine: Generates, prompts: Sequence[TokenizedPrompt], *, samples_per_prompt: int, sampling: Sampling, seed: int
) -> list[Trajectory]:
    """`samples_per_prompt` trajectories of every prompt; those of one prompt are adjacent."""
    asked = [prompt for prompt in prompts for _ in range(samples_per_prompt)]
    requests = [Request(prompt.token_ids, sampling, prompt.images) for prompt in asked]
    try:
        generations = engine.generate(requests, seed=seed)
    except RequestRefused as error:
        raise error if error.index is None else _named(asked[error.index], str(error)) from None
    return [_trajectory(prompt, generation) for prompt, generation in zip(asked, generations)]


@dataclass(frozen=True)
class StartedPrompt:
    """A prompt with what its samples have so far, by number of the sample; at first nothing."""

    prompt: TokenizedPrompt
    finished: Mapping[int, Generation] = field(default_factory=dict)
    begun: Mapping[int, Begun] = field(default_factory=dict)


class Collection:
    """The samples of many prompts as they are done.

    Iterating gives (index of the prompt, its trajectories), each prompt once and when all of its samples are done.
    After `enough` prompts it ends; what the others have so far is in `rest`. A prompt with a request that no engine can
    answer comes with no trajectories, and is in `dropped`.

    Raises:
        RequestRefused: no engine can answer a request, and the recipe does not let the stage go on without it; or there
            is no prompt that engines can answer.
    """

    def __init__(
        self,
        engine: Engine,
        started: Sequence[StartedPrompt],
        *,
        samples_per_prompt: int,
        sampling: Sampling,
        seed: int,
        enough: int | None = None,
    ) -> None:
        self._engine, self._started, self._seed = engine, started, seed
        self._samples, self._sampling = samples_per_prompt, sampling
        self._enough = len(started) if enough is None else enough
        self._finished = [dict(one.finished) for one in started]
        self.rest: tuple[StartedPrompt, ...] = ()
        self.dropped: dict[int, str] = {}
        """prompts with a sample that no engine can give, by index, and why"""

    def __iter__(self) -> Iterator[tuple[int, list[Trajectory]]]:
        delivered: list[int] = []
        complete = [index for index in range(len(self._started)) if self._is_complete(index)]
        for index in complete[: self._enough]:
            delivered.append(index)
            yield index, self._trajectories(index)
        begun: dict[tuple[int, int], Begun] = {
            (index, sample): own for index, one in enumerate(self._started) for sample, own in one.begun.items()
        }
        if len(delivered) < self._enough:
            asked = [
                (index, sample)
                for index in range(len(self._started))
                for sample in range(self._samples)
                if sample not in self._finished[index]
            ]
            requests = [self._request(index, begun.get((index, sample), NOT_BEGUN)) for index, sample in asked]
            stream = self._engine.stream(requests, seed=self._seed)  # kept: without a reference it would end itself
            for number, generation in stream:
                index, sample = asked[number]
                if isinstance(generation, GivenUp):
                    if index not in self.dropped:
                        self._drop(index, generation)
                        yield index, []
                    continue
                self._finished[index][sample] = generation
                if self._is_complete(index):
                    delivered.append(index)
                    yield index, self._trajectories(index)
                if len(delivered) == self._enough:
                    break
            if len(delivered) + len(self.dropped) < len(self._started):
                paused = self._engine.pause()
                for number, generation in paused.finished.items():
                    self._finished[asked[number][0]][asked[number][1]] = generation
                begun = {asked[number]: own for number, own in paused.begun.items()}
        done = {*delivered, *self.dropped}
        self.rest = tuple(self._left(index, begun) for index in range(len(self._started)) if index not in done)

    def _drop(self, index: int, outcome: GivenUp) -> None:
        error = _named(self._started[index].prompt, outcome.reason)
        self.dropped[index] = str(error)
        if not outcome.allowed or len(self.dropped) == len(self._started):
            raise error

    def _is_complete(self, index: int) -> bool:
        return len(self._finished[index]) == self._samples

    def _request(self, index: int, begun: Begun) -> Request:
        prompt = self._started[index].prompt
        return Request(prompt.token_ids, self._sampling, prompt.images, begun)

    def _trajectories(self, index: int) -> list[Trajectory]:
        own = self._finished[index]
        return [_trajectory(self._started[index].prompt, own[sample]) for sample in range(self._samples)]

    def _left(self, index: int, begun: Mapping[tuple[int, int], Begun]) -> StartedPrompt:
        own = {sample: one for (i, sample), one in begun.items() if i == index and len(one.token_ids)}
        return StartedPrompt(self._started[index].prompt, self._finished[index], own)


def in_chunks(
    complete: Iterable[tuple[int, list[Trajectory]]], num_prompts: int, size: int
) -> Iterator[tuple[int, list[Trajectory]]]:
    """(number of the chunk, trajectories) of `size` prompts that follow each other, as soon as all of them are there.

    What is in a chunk does not depend on the order in which prompts are complete.
    """
    there: dict[int, list[Trajectory]] = {}
    for index, trajectories in complete:
        there[index] = trajectories
        number = index // size
        members = range(number * size, min((number + 1) * size, num_prompts))
        if all(member in there for member in members):
            whole = [one for member in members for one in there[member]]
            if whole:  # not one of prompts that were dropped alone
                yield number, whole


def _named(prompt: TokenizedPrompt, reason: str) -> RequestRefused:
    """The refusal with the prompt that it is about."""
    content = prompt.prompt.content
    text = content if isinstance(content, str) else "\n".join(map(text_of, content))
    told = text if len(text) <= _TOLD_CHARACTERS else f"{text[:_TOLD_CHARACTERS]}..."
    return RequestRefused(f"a prompt of {prompt.prompt.origin} cannot be answered: {reason}. The prompt: {told!r}")


def _trajectory(prompt: TokenizedPrompt, generation: Generation) -> Trajectory:
    num_prompt, num_sampled = len(prompt.token_ids), len(generation.token_ids)
    return Trajectory(
        prompt=prompt.prompt,
        token_ids=np.concatenate([prompt.token_ids, generation.token_ids]),
        action_mask=np.repeat([False, True], [num_prompt, num_sampled]),
        rollout_logprobs=np.concatenate([np.zeros(num_prompt, np.float32), generation.logprobs]),
        completion=generation.text,
        finish_reason=generation.finish_reason,
        policy_versions=np.concatenate([np.full(num_prompt, -1, np.int32), generation.versions]),
        model_inputs=prompt.model_inputs,
    )
