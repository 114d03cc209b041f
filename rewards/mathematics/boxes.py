r"""The answer in a box: the last `\boxed{}` that is not only mentioned, or the last of several that belong together."""

from __future__ import annotations

import re

from rewards.mathematics.extracted import Extracted
from rewards.mathematics.phrase import from_phrase
from rewards.mathematics.prose import reduce_prose

_BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![a-zA-Z])|(?<![a-zA-Z\\])boxed(?=\{)")
_BOX_GAP = re.compile(
    r"[\s$(){}\[\]\\]*(?:[\w$\\{}()=]+\s+){0,3}?[^.!?\n]{0,12}?(?:,|;|\band\b|\bor\b)[^.!?]{0,24}", re.S
)
_NOT_JOINED = re.compile(
    r"\b(?:so|then|but|wait|actually|instead|finally|hence|thus|therefore|no|not|final|step|now|get|is|"
    r"maybe|fails?|failed|works?|guess|tr(?:y|ied)|reflection|rather|later|next|after|gives|correct(?:ed|ing|"
    r"ion)?|mistake|error|oops|sorry|revis\w+)\b",
    re.I,
)
# A box that shows a format, or is denied, is no answer.
_ONLY_MENTIONED = re.compile(
    r"(?:\b(?:for example|for instance|e\.g\.)[^.!?\n$]*|\bsuch as|\b(?:respond|reply) with|\blike this|\bformat(?:ted)?(?: as| like| is)?|"
    r"\b(?:something|looks?) like|\bnot(?: equal to)?|\bnever|n't)[\s:,$\\(\[\"'`]*$",
    re.I,
)
_TAKEN_BACK = re.compile(r"[\s$.,)\]\\]*(?:(?:is|was)\s+(?:not\b|wrong|incorrect|false)|\?)", re.I)
_LEAD = re.compile(r"^\\text\s*\{[^{}]*\b(?:is|are)\s*:?\s*\}\s*(?=\S)")


def boxes(text: str) -> list[tuple[int, int, str | None]]:
    r"""(start, end, content) of every outermost \boxed; content None for one that is never closed."""
    found: list[tuple[int, int, str | None]] = []
    position = 0
    while (match := _BOX.search(text, position)) is not None:
        start = match.end()
        while start < len(text) and text[start] in " \t\n":
            start += 1
        if start < len(text) and text[start] == "{":
            end = matching_brace(text, start)
            content = None if end is None else text[start + 1 : end]
            if end is None and text.rstrip(" .$").endswith("\\}"):  # closed by an escaped brace
                content = text.rstrip(" .$")[start + 1 : -2]
            position = len(text) if end is None else end + 1
        else:
            bare = re.compile(r"[^\s$,;]*").match(text, start)
            content = bare.group().rstrip(".") if bare else ""
            position = max(start, bare.end() if bare else start)
        found.append((match.start(), position, content))
    return found


def in_open_box(text: str) -> str:
    """What follows the opening of the first box, where the last one is never closed; else nothing."""
    opened = _BOX.search(text)
    return text[opened.end() :].lstrip(" {") if opened and boxes(text)[-1][2] is None else ""


def matching_brace(text: str, start: int) -> int | None:
    r"""Position of the brace that closes the one at `start`; \{ and \} do not count."""
    depth = 0
    position = start
    while position < len(text):
        char = text[position]
        if char == "\\":
            position += 2
            continue
        depth += (char == "{") - (char == "}")
        if depth == 0:
            return position
        position += 1
    return None


def from_box(text: str) -> Extracted | None:
    found = boxes(text)
    if not found:
        return None
    if found[-1][2] is None:
        return Extracted("", "unfinished_box")
    if _ONLY_MENTIONED.search(text[max(0, found[-1][0] - 40) : found[-1][0]]) or _TAKEN_BACK.match(
        text[found[-1][1] :]
    ):
        return Extracted("", "mentioned")
    phrase = from_phrase(text[found[-1][1] :])
    if phrase is not None and re.search(r"[\d\\]", phrase.text) and len(phrase.text) < 100:
        return Extracted(phrase.text, "phrase_after_box")
    parts = [_spoken(found[-1][2].strip())]
    for (_, end, content), (start, _, _) in zip(found[-2::-1], found[::-1]):
        gap = text[end:start]
        is_joined = len(gap) < 60 and (_BOX_GAP.fullmatch(gap) or gap.strip(" $") == "") and not _NOT_JOINED.search(gap)
        if content is None or not is_joined:
            break
        parts.append(content.strip())
    distinct = list(dict.fromkeys(reversed(parts)))
    return Extracted(" , ".join(distinct) if len(distinct) > 1 else parts[0], "box")


def _spoken(content: str) -> str:
    r"""What a sentence in a box says: \text{The answer is 7} says 7."""
    sentence = re.fullmatch(r"\\text\s*\{([^{}]*\bis\b[^{}]*\d[^{}]*)\}", content)
    return reduce_prose(sentence.group(1)) if sentence else _LEAD.sub("", content)
