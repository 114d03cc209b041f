"""The types that flow from a prompt to a finished trajectory. Frozen; nothing starts as None."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray


class Message(TypedDict):
    """One turn of a conversation."""

    role: str
    content: str


PromptContent = str | list[Message]


class FinishReason(StrEnum):
    """Why a response ended: the policy stopped it, or the token limit cut it."""

    STOP = "stop"
    LENGTH = "length"


def prompt_id_of(content: PromptContent) -> str:
    """16 hex digits of a hash of the content: equal prompts have equal ids, whatever source or seed they came from."""
    text = content if isinstance(content, str) else json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Prompt:
    """One problem: what the policy sees, and the columns that only rewards see."""

    prompt_id: str
    """hash of the content; the key by which held-out problems are kept out of training"""
    content: PromptContent
    """text as it is fed to a base model, or the messages of a conversation"""
    columns: Mapping[str, object]
    """the row's other columns, passed to rewards by name"""
    origin: str
    """label of the source in the recipe, for metrics by source"""
    reward_names: tuple[str, ...] = ()
    """labels of the rewards that score this prompt; empty means every reward of the stage"""

    @property
    def last_user_text(self) -> str:
        """The text of a plain prompt, or of the last user turn of a conversation."""
        if isinstance(self.content, str):
            return self.content
        return next((turn["content"] for turn in reversed(self.content) if turn["role"] == "user"), "")


@dataclass(frozen=True)
class Trajectory:
    """One response of the policy, token by token. T counts prompt and response."""

    prompt: Prompt
    token_ids: NDArray[np.int64]
    """[T] exactly what the engine saw and sampled; text is never tokenized again"""
    action_mask: NDArray[np.bool_]
    """[T] True where the policy sampled the token"""
    rollout_logprobs: NDArray[np.float32]
    """[T] nats, log-probability under the distribution that was sampled from; 0 where action_mask is False"""
    completion: str
    """the response as text, without the stop token"""
    finish_reason: FinishReason
    policy_version: int
    """number of weight updates that the sampling policy had seen"""

    @property
    def num_sampled_tokens(self) -> int:
        """How many tokens the policy sampled."""
        return int(self.action_mask.sum())

    @property
    def truncated(self) -> bool:
        """True when the token limit cut the response."""
        return self.finish_reason is FinishReason.LENGTH
