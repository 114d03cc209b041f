"""What a chat completion request asks for, checked: nothing is ignored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from rollouts.chat_parts import from_openai
from rollouts.engine import Sampling
from rollouts.trajectory import Message, PromptContent

# What clients send by themselves, with the value that asks for nothing.
_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "n": (1, None),
    "frequency_penalty": (0, None),
    "presence_penalty": (0, None),
    "logit_bias": ({}, None),
    "logprobs": (False, None),
    "top_logprobs": (0, None),
    "tools": ([], None),
    "tool_choice": ("none", "auto", None),
    "parallel_tool_calls": (True, False, None),
    "response_format": ({"type": "text"}, None),
    "user": (),  # says who asks, which changes no answer
    "metadata": (),
    "store": (False, None),
}
_UNDERSTOOD = frozenset(
    {"model", "messages", "stream", "stream_options", "temperature", "top_p", "top_k", "max_tokens",
     "max_completion_tokens", "stop", "seed"}
)  # fmt: skip


class RequestError(ValueError):
    """A request that cannot be answered as it is; HTTP 400, or the given status."""

    def __init__(self, message: str, param: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.param = param
        self.status = status


@dataclass(frozen=True)
class ChatRequest:
    """A request, checked."""

    content: PromptContent
    sampling: Sampling
    seed: int
    stream: bool
    include_usage: bool


def refuse_unknown(body: Mapping[str, Any]) -> None:
    """Raises RequestError where a key asks for what there is not."""
    for key, value in body.items():
        if key in _UNDERSTOOD:
            continue
        if key not in _NEUTRAL:
            raise RequestError(f"{key} is not supported; supported are {', '.join(sorted(_UNDERSTOOD))}", key)
        if _NEUTRAL[key] and value not in _NEUTRAL[key]:
            raise RequestError(f"{key}: {value!r} is not supported; leave it out", key)


def turn_of(turn: object, index: int) -> Message:
    """A turn of text and images; raises RequestError where it is none."""
    key = f"messages.{index}"
    if not isinstance(turn, dict) or turn.get("role") not in ("system", "developer", "user", "assistant"):
        raise RequestError("a turn has a role (system, user or assistant) and a content", key)
    role = "system" if turn["role"] == "developer" else turn["role"]
    try:
        return Message(role=role, content=from_openai(turn.get("content")))
    except ValueError as error:
        raise RequestError(str(error), key) from None


def sampling_of(body: Mapping[str, Any], default: Sampling) -> Sampling:
    """The request's sampling; what it does not say is as in `default`."""
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    key = "max_completion_tokens" if body.get("max_completion_tokens") else "max_tokens"
    stop = body.get("stop") or list(default.stop)
    stop = [stop] if isinstance(stop, str) else stop
    if not isinstance(stop, list) or not all(isinstance(text, str) for text in stop):
        raise RequestError("stop is a text or a list of texts", "stop")
    return replace(
        default,
        temperature=number_in(body, "temperature", float, default.temperature, low=0.0, high=2.0),
        top_p=number_in(body, "top_p", float, default.top_p, low=1e-9, high=1.0),
        top_k=number_in(body, "top_k", int, default.top_k, low=0),
        max_tokens=number_in(body, key, int, default.max_tokens, low=1) if limit else default.max_tokens,
        stop=tuple(stop),
    )


def number_in(
    body: Mapping[str, Any], key: str, kind: type, default: Any, *, low: float | None = None, high: float | None = None
) -> Any:
    """The number under a key, `default` where it is not given."""
    value = body.get(key)
    if value is None:
        return default
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and (kind is float or isinstance(value, int))
    if not fits or (low is not None and value < low) or (high is not None and value > high):
        bounds = f" from {low:g}" if low is not None else ""
        bounds += f" to {high:g}" if high is not None else ""
        raise RequestError(f"{key}: {value!r}; a number{bounds} is allowed", key)
    return kind(value)


def flag_in(body: Mapping[str, Any], key: str) -> bool:
    """The truth value under a key, false where it is not given."""
    value = body.get(key)
    if value not in (None, True, False):
        raise RequestError(f"{key}: {value!r}; true or false is allowed", key)
    return bool(value)
