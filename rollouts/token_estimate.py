"""How many tokens a prompt has for a server whose tokenizer is unknown, learned from what the server counts."""

from __future__ import annotations

import math

from rollouts.sampler import Reply
from rollouts.trajectory import PromptContent, images_of, text_of

_MARGIN = 1.15
_PER_TURN = 16  # tokens of a chat template around a turn
_UNKNOWN = 0.5  # tokens per byte before the first reply: more than ordinary text has in any common tokenizer
_IMAGE_TOKENS = 1500  # of an image, before the first reply to a prompt with one
_MIN_BYTES = 200  # of text that a ratio is taken from; shorter ones say more of templates than of text


class TokenEstimate:
    """Tokens per byte of text, and tokens per image, as the replies so far have shown them.

    An estimate stays on the safe side: the largest ratio seen in any reply (at most one token per byte), a sixth more,
    and a turn's share of a chat template on top.
    """

    def __init__(self) -> None:
        self._per_byte: float | None = None
        self._bytes = self._tokens = 0  # of texts too short to be taken one by one
        self._per_image = 0.0

    def learn(self, content: PromptContent, reply: Reply) -> None:
        """Takes in what a server counted."""
        images = images_of(content)
        self._see(len(reply.text.encode()), reply.completion_tokens - 1)
        if not images:
            self._see(_num_bytes(content), reply.prompt_tokens - _template_tokens(content))
            return
        text_tokens = _num_bytes(content) * self._ratio + _template_tokens(content)
        self._per_image = max(self._per_image, (reply.prompt_tokens - text_tokens) / len(images))

    def tokens(self, content: PromptContent) -> int:
        """At most so many tokens, as far as can be told."""
        text = _num_bytes(content) * min(self._ratio * _MARGIN, 1.0)
        per_image = self._per_image * _MARGIN if self._per_image > 0 else _IMAGE_TOKENS
        return math.ceil(text + _template_tokens(content) + per_image * len(images_of(content)))

    @property
    def _ratio(self) -> float:
        return _UNKNOWN if self._per_byte is None else self._per_byte

    def _see(self, num_bytes: int, num_tokens: int) -> None:
        self._bytes, self._tokens = self._bytes + num_bytes, self._tokens + num_tokens
        if self._bytes < _MIN_BYTES:
            return
        ratio = min(max(self._tokens / self._bytes, 0.0), 1.0)
        self._per_byte = ratio if self._per_byte is None else max(self._per_byte, ratio)
        self._bytes = self._tokens = 0


def _num_bytes(content: PromptContent) -> int:
    if isinstance(content, str):
        return len(content.encode())
    return sum(len(text_of(turn).encode()) for turn in content)


def _template_tokens(content: PromptContent) -> int:
    return 1 if isinstance(content, str) else _PER_TURN * (len(content) + 1)
