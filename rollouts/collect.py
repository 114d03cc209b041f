"""Prompts in, trajectories out: tokenization, requests to an engine, and what came back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from rollouts.engine import Engine, Generation, Request, Sampling
from rollouts.trajectory import Prompt, Trajectory


def encode(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> NDArray[np.int64]:
    """Token ids [T_prompt]: plain text as it is, a conversation through the model's chat template."""
    if isinstance(prompt.content, str):
        ids = tokenizer(prompt.content)["input_ids"]
    else:
        turns: Any = prompt.content
        encoded: Any = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)
        ids = encoded["input_ids"]
    return np.asarray(ids, dtype=np.int64)


def collect(
    engine: Engine,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    *,
    samples_per_prompt: int,
    sampling: Sampling,
    seed: int,
) -> list[Trajectory]:
    """`samples_per_prompt` trajectories of every prompt; those of one prompt are adjacent."""
    encoded = [(prompt, encode(tokenizer, prompt)) for prompt in prompts]
    pairs = [pair for pair in encoded for _ in range(samples_per_prompt)]
    generations = engine.generate([Request(ids, sampling) for _, ids in pairs], seed=seed)
    return [_trajectory(prompt, ids, generation) for (prompt, ids), generation in zip(pairs, generations)]


def _trajectory(prompt: Prompt, prompt_ids: NDArray[np.int64], generation: Generation) -> Trajectory:
    num_prompt, num_sampled = len(prompt_ids), len(generation.token_ids)
    return Trajectory(
        prompt=prompt,
        token_ids=np.concatenate([prompt_ids, generation.token_ids]),
        action_mask=np.repeat([False, True], [num_prompt, num_sampled]),
        rollout_logprobs=np.concatenate([np.zeros(num_prompt, np.float32), generation.logprobs]),
        completion=generation.text,
        finish_reason=generation.finish_reason,
        policy_version=generation.policy_version,
    )
