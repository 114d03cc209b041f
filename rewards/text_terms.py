"""Small terms that people add to a reward: format, length, repetition, language."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

from rewards.completions import completion_text, per_row

THINK_FORMAT = r"\s*<think>(?:(?!</?think>).)*</think>(?:(?!</?think>).)*\S(?:(?!</?think>).)*"
_MAX_PATTERN_CHARS = 50_000

# Unicode blocks that tell languages apart, as the names of their letters begin.
_SCRIPTS = {
    "en": "LATIN", "fr": "LATIN", "de": "LATIN", "es": "LATIN", "zh": "CJK", "ru": "CYRILLIC", "ar": "ARABIC",
    "ko": "HANGUL", "hi": "DEVANAGARI", "el": "GREEK", "he": "HEBREW", "th": "THAI",
}  # fmt: skip


def format_reward(
    *, pattern: str = THINK_FORMAT, right: float = 1.0, wrong: float = 0.0
) -> Callable[..., list[float | None]]:
    """A reward of `right` for completions that match `pattern` as a whole (dots match newlines), else `wrong`.

    The default asks for one closed <think> part and something after it. A pattern that backtracks without end is
    stopped by the pool's timeout.
    """
    compiled = re.compile(pattern, re.S)

    def format(completions: Sequence[Any], **columns: Any) -> list[float | None]:
        texts = map(completion_text, completions)
        return [right if len(t) <= _MAX_PATTERN_CHARS and compiled.fullmatch(t) else wrong for t in texts]

    return format


def soft_overlong_reward(*, max_tokens: int, buffer_tokens: int) -> Callable[..., list[float | None]]:
    """0 up to max_tokens - buffer_tokens, then linearly down to -1 at max_tokens, -1 beyond.

    Source: DAPO, https://arxiv.org/abs/2503.14476, eq. 13.
    """
    if not 0 < buffer_tokens <= max_tokens:
        raise ValueError(f"buffer_tokens {buffer_tokens} must lie in (0, max_tokens = {max_tokens}]")

    def soft_overlong(
        completions: Sequence[Any], completion_ids: Sequence[Sequence[int]], **columns: Any
    ) -> list[float | None]:
        over = [len(ids) - (max_tokens - buffer_tokens) for ids in completion_ids]
        return [-min(1.0, max(0.0, tokens / buffer_tokens)) for tokens in over]

    return soft_overlong


def repetition_reward(*, ngram: int = 4, max_penalty: float = -1.0) -> Callable[..., list[float | None]]:
    """max_penalty times the share of n-grams that repeat an earlier one; 0 for texts shorter than `ngram` words.

    Words are separated by white space; Chinese and Japanese text counts by character.
    Source: the penalty of https://arxiv.org/abs/2502.03373, appendix C.2.
    """
    if ngram < 1 or max_penalty > 0:
        raise ValueError(f"ngram {ngram} must be at least 1 and max_penalty {max_penalty} at most 0")

    def repetition(completions: Sequence[Any], **columns: Any) -> list[float | None]:
        return [max_penalty * repeated_share(completion_text(c), ngram) for c in completions]

    return repetition


def repeated_share(text: str, ngram: int) -> float:
    """The share of n-grams that are not the first of their kind, in [0, 1)."""
    words = re.findall(r"[\u3040-\u30ff\u4e00-\u9fff]|[^\s\u3040-\u30ff\u4e00-\u9fff]+", text.lower())
    grams = [tuple(words[i : i + ngram]) for i in range(len(words) - ngram + 1)]
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0


def language_reward(*, language: str = "en") -> Callable[..., list[float | None]]:
    """The share of letters that are of the script of `language`, or of the row's column `language`; in [0, 1].

    Mathematics, code and digits count for no language: letters of LaTeX commands and of code blocks are left out. A
    text without letters scores 1.0.
    """
    script_of(language)

    def language_consistency(
        completions: Sequence[Any], language: Any = language, **columns: Any
    ) -> list[float | None]:
        languages = per_row("language", language, len(completions))
        return [script_share(completion_text(c), script_of(code)) for c, code in zip(completions, languages)]

    return language_consistency


def script_of(language: str) -> str:
    """The script that a language is written in.

    Raises:
        ValueError: an unknown language code.
    """
    try:
        return _SCRIPTS[language]
    except (KeyError, TypeError):
        raise ValueError(f"language {language!r} is unknown; allowed are {', '.join(sorted(_SCRIPTS))}") from None


def script_share(text: str, script: str) -> float:
    """The share of letters of one script."""
    text = re.sub(r"```.*?(?:```|\Z)|\$[^$]*\$|\\[a-zA-Z]+|<[^<>]{0,40}>", " ", text, flags=re.S)
    letters = [char for char in text if char.isalpha()]
    if not letters:
        return 1.0
    return sum(unicodedata.name(char, "").startswith(script) for char in letters) / len(letters)
