"""A behaviour term: the response is in the language of its prompt.

Scripts are told apart by their letters; languages that share the Latin script by their commonest short words.
Where neither tells, nothing is claimed: a short or formal text passes.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rewards.completions import completion_text

_MAX_CHARS = 50_000
_NOT_LANGUAGE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|\$[^$]*\$|\\[a-zA-Z]+|https?://\S+|<[^<>]{0,40}>", re.S)
_SCRIPTS = ("LATIN", "CYRILLIC", "ARABIC", "HANGUL", "DEVANAGARI", "GREEK", "HEBREW", "THAI", "KANA", "CJK")
# Short words that are common in one of these languages and rare in the others.
_WORDS = {
    "en": "the and is are of you that with this have for was what not it your we they be from",
    "de": "der die das und ist nicht ein eine ich sie mit auf wir den dem zu auch wird sind wie",
    "fr": "le les des et est une vous dans que pour pas avec sur nous qui du je ce sont plus",
    "es": "el los las y es una que por con para no se del está como más su son pero qué",
    "it": "il che di è un una per non con sono della gli questo come più anche si nel ma ho",
    "pt": "o os as e é um uma que não com para do da em você mais são se por foi",
}
_LANGUAGES_OF: dict[str, set[str]] = {}
for _language, _text in _WORDS.items():
    for _word in _text.split():
        _LANGUAGES_OF.setdefault(_word, set()).add(_language)
# A language is told by this many of its words, and by this many times those of the next one.
_ENOUGH_WORDS, _AHEAD = 3, 1.5


def same_language_reward(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
    """The share of the response's letters in the prompt's script; 0.0 where both languages are told and differ.

    None where the prompt has no letters.
    """
    return [_score(_last_words(prompt), completion_text(answer)) for prompt, answer in zip(prompts, completions)]


def _score(prompt: str, response: str) -> float | None:
    asked, given = scripts(prompt), scripts(response)
    if not asked:
        return None
    if not given:
        return 1.0
    wanted = _family(asked.most_common(1)[0][0])
    languages = language_of(prompt), language_of(response)
    if None not in languages and languages[0] != languages[1]:
        return 0.0
    return sum(count for script, count in given.items() if _family(script) == wanted) / given.total()


def scripts(text: str) -> Counter[str]:
    """Letters by script, without code, mathematics, links and tags."""
    text = _NOT_LANGUAGE.sub(" ", text[:_MAX_CHARS])
    found: Counter[str] = Counter()
    for char, count in Counter(filter(str.isalpha, text)).items():
        name = unicodedata.name(char, "")
        if name.startswith(("HIRAGANA", "KATAKANA")):
            name = "KANA"
        found[next((script for script in _SCRIPTS if name.startswith(script)), "OTHER")] += count
    return found


def language_of(text: str) -> str | None:
    """One of the six languages of Latin script that this file knows, or None where its words do not tell."""
    words = re.findall(r"[^\W\d_]+", _NOT_LANGUAGE.sub(" ", text[:_MAX_CHARS]).lower())
    votes: Counter[str] = Counter()
    for word in words:
        for language in _LANGUAGES_OF.get(word, ()):
            votes[language] += 1
    if not votes:
        return None
    (first, count), *others = votes.most_common(2)
    second = others[0][1] if others else 0
    return first if count >= _ENOUGH_WORDS and count >= _AHEAD * second else None


def _family(script: str) -> str:
    """Japanese mixes kana and CJK."""
    return "CJK" if script == "KANA" else script


def _last_words(prompt: Any) -> str:
    """The text of a plain prompt, or of the last user turn: a conversation may change its language."""
    if isinstance(prompt, str):
        return prompt
    turns = [turn for turn in prompt or [] if isinstance(turn, dict) and turn.get("role", "user") == "user"]
    return completion_text({**turns[-1]}) if turns else ""
