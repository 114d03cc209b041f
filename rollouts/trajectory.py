"""The types that flow from a prompt to a finished trajectory. Frozen; nothing starts as None."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from rollouts.images import image_digest


class TextPart(TypedDict):
    """A piece of a turn's text."""

    type: Literal["text"]
    text: str


class ImagePart(TypedDict):
    """An image of a turn: a path or a data URL, so that a prompt stays plain JSON."""

    type: Literal["image"]
    image: str


ContentPart = TextPart | ImagePart


class Message(TypedDict):
    """One turn of a conversation: text, or text and images in their order."""

    role: str
    content: str | list[ContentPart]


PromptContent = str | list[Message]


def text_of(turn: Message) -> str:
    """The text of a turn, without its images."""
    content = turn["content"]
    return content if isinstance(content, str) else "".join(p["text"] for p in content if p["type"] == "text")


def with_text(turn: Message, text: str) -> Message:
    """The turn with other text; its images stay, before the text."""
    if isinstance(turn["content"], str):
        return Message(role=turn["role"], content=text)
    images: list[ContentPart] = [part for part in turn["content"] if part["type"] == "image"]
    return Message(role=turn["role"], content=[*images, TextPart(type="text", text=text)])


def appended(turn: Message, text: str) -> Message:
    """The turn with text behind all that it has."""
    content = turn["content"]
    more: ContentPart = TextPart(type="text", text=text)
    return Message(role=turn["role"], content=content + text if isinstance(content, str) else [*content, more])


def images_of(content: PromptContent) -> list[str]:
    """Paths and data URLs of the images of a prompt, in their order."""
    turns: Sequence[Message] = [] if isinstance(content, str) else content
    parts = [part for turn in turns if not isinstance(turn["content"], str) for part in turn["content"]]
    return [part["image"] for part in parts if part["type"] == "image"]


class FinishReason(StrEnum):
    """Why a response ended: the policy stopped it, or the token limit cut it."""

    STOP = "stop"
    LENGTH = "length"


def prompt_id_of(content: PromptContent) -> str:
    """16 hex digits of a hash of the content: equal prompts have equal ids, whatever source or seed they came from.

    Of an image the file's content counts, not its name.
    """
    text = content if isinstance(content, str) else json.dumps(_hashable(content), sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _hashable(turns: Sequence[Message]) -> list[dict[str, object]]:
    contents = [turn["content"] for turn in turns]
    hashable = [content if isinstance(content, str) else list(map(_digested, content)) for content in contents]
    return [{**turn, "content": content} for turn, content in zip(turns, hashable)]


def _digested(part: ContentPart) -> dict[str, str]:
    if part["type"] == "text":
        return {"text": part["text"]}
    return {"image": image_digest(part["image"])}


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
        return next((text_of(turn) for turn in reversed(self.content) if turn["role"] == "user"), "")


@dataclass(frozen=True)
class ImagePiece:
    """A stretch of a prompt that went through the processor: all of it, or one turn of an episode."""

    text: str
    """after the chat template, with one placeholder for each image"""
    files: tuple[bytes, ...]
    """images as they were on disk, encoded"""
    start: int
    """index in the prompt's token ids of the first token of this piece"""


@dataclass(frozen=True)
class PromptImages:
    """The images of a prompt as an engine takes them."""

    pieces: tuple[ImagePiece, ...]
    unexpanded_ids: NDArray[np.int64]
    """the prompt's token ids with one placeholder for each image; the processor repeats each as often as its image has
    tokens"""

    @property
    def files(self) -> tuple[bytes, ...]:
        """All images in their order."""
        return tuple(data for piece in self.pieces for data in piece.files)


@dataclass(frozen=True)
class ModelInputs:
    """What a processor made of a prompt beside its tokens: arguments of the model's forward, by their names."""

    per_token: Mapping[str, NDArray[Any]]
    """[T_prompt], or longer; tokens after the end have 0"""
    per_image: Mapping[str, NDArray[Any]]
    """at least two dimensions; prompts are put together along the first one"""


NO_INPUTS = ModelInputs({}, {})


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
    """the response as text, without the stop token; of an episode the last one"""
    finish_reason: FinishReason
    policy_versions: NDArray[np.int32]
    """[T] weight updates that the policy had seen when it sampled the token; -1 where action_mask is False"""
    model_inputs: ModelInputs = NO_INPUTS
    """of the images of the prompt; samples of one prompt share them"""
    turns: tuple[str, ...] = ()
    """what the policy wrote in each turn of an episode; empty where `completion` is all"""

    @property
    def num_sampled_tokens(self) -> int:
        """How many tokens the policy sampled."""
        return int(self.action_mask.sum())

    @property
    def policy_version(self) -> int:
        """The newest version that sampled one of its tokens; -1 where none is sampled."""
        return int(self.policy_versions.max(initial=-1))

    @property
    def truncated(self) -> bool:
        """True when the token limit cut the response."""
        return self.finish_reason is FinishReason.LENGTH
