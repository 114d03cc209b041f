"""A behaviour term: no invented links, DOIs, arXiv numbers or author-year citations.

What a response cites must stand in its prompt or in the row's column `sources`. Nothing is looked up: a citation that
is right but was not given counts as invented, so use the term where sources are given, or none are wanted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from rewards.completions import completion_text

_MAX_CHARS = 100_000
_CODE = re.compile(r"```.*?(?:```|\Z)", re.S)
_DOI = re.compile(r"\b10\.\d{4,9}/[^\s\"'<>\])},;]+", re.I)
_ARXIV = re.compile(r"\barxiv\s*[:.]?\s*(?:org/(?:abs|pdf)/)?(\d{4}\.\d{4,5})", re.I)
_LINK = re.compile(
    r"\b(?:https?://|www\.)[^\s\"'<>\])}]+"
    r"|\b[a-z0-9][a-z0-9-]{0,60}(?:\.[a-z0-9-]{1,60}){0,4}\.(?:com|org|net|edu|gov|io|de|uk|info)\b"
    r"(?:/[^\s\"'<>\])}]*)?",
    re.I,
)
_NAME = r"[A-Z][^\W\d_]+(?:-[A-Z][^\W\d_]+)?"
_YEAR = r"(?:1[5-9]|20)\d\d"
_AUTHOR_YEAR = re.compile(
    rf"\(({_NAME})(?:,? (?:et al\.?|(?:and|&) {_NAME}))?,? ({_YEAR})[a-z]?\)"
    rf"|\b({_NAME}) (?:et al\.?|(?:and|&) {_NAME}) \(({_YEAR})[a-z]?\)"
)


def citations_reward(*, allowed: int = 0, worst: int = 3) -> Callable[..., list[float | None]]:
    """0.0 with at most `allowed` invented citations, then down in equal steps to -1.0 at `allowed + worst`.

    Different citations count once each, so repeating one is no worse, and adding right ones does not make up for it.
    """
    if allowed < 0 or worst < 1:
        raise ValueError(f"allowed {allowed} must be at least 0 and worst {worst} at least 1")

    def citations(
        prompts: Sequence[Any], completions: Sequence[Any], sources: Any = None, **columns: Any
    ) -> list[float | None]:
        given = list(sources) if sources is not None else [None] * len(completions)
        counts = [
            len(invented(completion_text(completion), _given_text(prompt, own)))
            for prompt, completion, own in zip(prompts, completions, given, strict=True)
        ]
        return [-min(1.0, max(0, count - allowed) / worst) for count in counts]

    return citations


def invented(response: str, given: str) -> set[str]:
    """The citations of a response that are not in the given text, each in one normal form."""
    known = cited(given)
    words = set(re.findall(r"[^\W\d_]+|\d+", given))
    return {
        citation
        for citation in cited(response)
        if citation not in known and not (citation.startswith("by ") and set(citation.split()[1:]) <= words)
    }


def cited(text: str) -> set[str]:
    """Links, DOIs, arXiv numbers and author-year citations of a text; code is not looked at."""
    text = _CODE.sub(" ", text[:_MAX_CHARS])
    found = {f"doi {match.group().rstrip('.').lower()}" for match in _DOI.finditer(text)}
    found |= {f"arxiv {number}" for number in _ARXIV.findall(text)}
    for match in _LINK.finditer(text):
        link = _normal_link(match.group())
        if not _DOI.search(link) and not _ARXIV.search(link):
            found.add(link)
    for groups in _AUTHOR_YEAR.findall(text):
        found.add("by " + " ".join(filter(None, groups)))
    return found


def _normal_link(link: str) -> str:
    link = re.sub(r"^(?:https?://)?(?:www\.)?", "", link.rstrip(".,;:!?)*_"), flags=re.I)
    host, slash, rest = link.partition("/")
    return (host.lower() + slash + rest).rstrip("/")


def _given_text(prompt: Any, sources: Any) -> str:
    """Everything that a response may cite from."""
    parts = [prompt] if isinstance(prompt, str) else [completion_text({**turn}) for turn in prompt or []]
    if isinstance(sources, str):
        parts.append(sources)
    elif isinstance(sources, Sequence):
        parts += [str(source) for source in sources]
    return "\n".join(parts)
