"""Prompts in, trajectories out: tokenization, requests to an engine, and what came back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from rollouts.engine import Engine, Generation, Request, Sampling
from rollouts.trajectory import Prompt, PromptContent, Trajectory


def encode(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> NDArray[np.int64]:
    """Token ids [T_prompt] of a prompt."""
    return encode_content(tokenizer, prompt.content)


def encode_content(tokenizer: PreTrainedTokenizerBase, content: PromptContent) -> NDArray[np.int64]:
    """Token ids [T_prompt]: plain text as it is, a conversation through the model's chat template."""
    if isinstance(content, str):
        ids = tokenizer(content)["input_ids"]
    else:
        turns: Any = content
        encoded: Any = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)
        ids = encoded["input_ids"]
    return np.asarray(ids, dtype=np.int64)


@dataclass(frozen=True)
class TokenizedPrompt:
    """A prompt as the engine sees it."""

    prompt: Prompt
    token_ids: NDArray[np.int64]
    """[T_prompt]"""


def tokenized(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> TokenizedPrompt:
    """The prompt with its token ids."""
    return TokenizedPrompt(prompt, encode(tokenizer, prompt))


def collect(
    engine: Engine, prompts: Sequence[TokenizedPrompt], *, samples_per_prompt: int, sampling: Sampling, seed: int
) -> list[Trajectory]:
    """`samples_per_prompt` trajectories of every prompt; those of one prompt are adjacent."""
    asked = [prompt for prompt in prompts for _ in range(samples_per_prompt)]
    generations = engine.generate([Request(prompt.token_ids, sampling) for prompt in asked], seed=seed)
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
    )
