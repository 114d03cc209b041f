"""Prompts in, trajectories out: tokenization, requests to an engine, and what came back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rollouts.engine import Engine, Generation, Request, Sampling
from rollouts.processing import Processing, encoded, encoded_with_images
from rollouts.trajectory import NO_INPUTS, ModelInputs, Prompt, PromptContent, PromptImages, Trajectory, images_of


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
    engine: Engine, prompts: Sequence[TokenizedPrompt], *, samples_per_prompt: int, sampling: Sampling, seed: int
) -> list[Trajectory]:
    """`samples_per_prompt` trajectories of every prompt; those of one prompt are adjacent."""
    asked = [prompt for prompt in prompts for _ in range(samples_per_prompt)]
    requests = [Request(prompt.token_ids, sampling, prompt.images) for prompt in asked]
    generations = engine.generate(requests, seed=seed)
    return [_trajectory(prompt, generation) for prompt, generation in zip(asked, generations)]


def _trajectory(prompt: TokenizedPrompt, generation: Generation) -> Trajectory:
    num_prompt, num_sampled = len(prompt.token_ids), len(generation.token_ids)
    return Trajectory(
        prompt=prompt.prompt,
        token_ids=np.concatenate([prompt.token_ids, generation.token_ids]),
        action_mask=np.repeat([False, True], [num_prompt, num_sampled]),
        rollout_logprobs=np.concatenate([np.zeros(num_prompt, np.float32), generation.logprobs]),
        completion=generation.text,
        finish_reason=generation.finish_reason,
        policy_version=generation.policy_version,
        model_inputs=prompt.model_inputs,
    )
