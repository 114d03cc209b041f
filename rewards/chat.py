"""What the rewards that ask a chat endpoint share: the address and key, the prompt's template, the answer's text."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rewards.completions import completion_text
from rewards.http import JsonPoster, RemoteRewardError

if TYPE_CHECKING:
    from jinja2 import Template


def chat_poster(
    url: str, timeout_s: float, attempts: int, backoff_s: float, max_concurrent: int, api_key_env: str | None
) -> JsonPoster:
    """Posts to the chat completions of an OpenAI-compatible server.

    Args:
        url: base address of the server, such as "http://localhost:8000/v1".
        api_key_env: name of the environment variable that holds the key.
    """
    key = os.environ.get(api_key_env, "") if api_key_env else ""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return JsonPoster(url.rstrip("/") + "/chat/completions", timeout_s, attempts, backoff_s, max_concurrent, headers)


def sandboxed(template: str) -> Template:
    """A Jinja template that can touch nothing but its arguments; a name that it is not given is an error."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    environment = SandboxedEnvironment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)
    return environment.from_string(template)


def said(answer: Any, url: str) -> str | None:
    """The text of a chat completion; None where the model said nothing.

    Raises:
        RemoteRewardError: it is not a chat completion.
    """
    try:
        text: str | None = answer["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        raise RemoteRewardError(f"{url}: not a chat completion: {str(answer)[:300]}") from None
    return text


def question_text(prompt: str | Sequence[Mapping[str, Any]]) -> str:
    """A prompt as one text, each turn of a conversation after its role."""
    return prompt if isinstance(prompt, str) else "\n\n".join(_turn(message) for message in prompt)


def _turn(message: Mapping[str, Any]) -> str:
    return f"{message.get('role', 'user')}: {completion_text(dict(message))}"
