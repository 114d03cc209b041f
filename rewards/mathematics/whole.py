"""A response that is nothing but its answer: a line of mathematics, a word or two, or a sentence of one word's news."""

from __future__ import annotations

import re

from rewards.mathematics.doubt import CHINESE_DENIAL
from rewards.mathematics.ending import LISTED
from rewards.mathematics.extracted import Extracted
from rewards.mathematics.prose import MATH_SPAN
from rewards.mathematics.words import canonical_words

_OPENING_LINE = re.compile(r"[\W_]{0,4}((?i:yes|no|true|false)|[A-J](?=[)*_.!]{0,3}\n))[)*_.!]{0,3}\s*\n\s*\n")
_OPENING_WORD = re.compile(r"[\W_]{0,4}(yes|no|true|false)[*_]{0,2}[,.;:!](?=\s|$)", re.I)
_COUNTED = re.compile(
    r"(?:(?:Hence|Thus|So|Therefore),? )?(?:[Tt]here (?:are|is|were)|[Ww]e (?:get|"
    r"have)) (?:exactly )?([a-z]+(?:-[a-z]+)?)"
    r"(?: of (?:them|these|those)|(?: such)? [a-z]+)?\."
)
_ALIGNED = re.compile(  # one derivation line by line
    r"(?:\\\[|\$\$)?\s*\\begin\{(?:aligned|"
    r"align\*?)\}((?:\s*[^&\\=<>]*&?\s*=[^&=<>]*?\\\\)(?:\s*&\s*=[^&=<>]*?\\\\)*\s*&\s*=[^&=<>]*)"
    r"\\end\{(?:aligned|align\*?)\}\s*(?:\\\]|\$\$)?[\s.]*",
    re.S,
)
_NAMES = re.compile(r"^\$?([a-z])\$? (?:equals|is equal to|is) (?=\$?-?\d)")
_LAST_OF_STEPS = re.compile(
    r"^[^\n=]*[\d)+*/^-][^\n=]*=[^\n]*\n(?:[^\n]*=[^\n]*\n)*(?=\s*\$?[a-z] ?=[^\n=]*$)"
)  # x + 3 = 7, then x = 4
_COUNTED_ALONE = re.compile(r"([A-Za-z]+(?:-[a-z]+)?) [a-z]{2,}s\.?")  # five apples
_STEPS = re.compile(  # 3x = 108, below it x = 36
    r"(?:\\\[|\$\$)?\s*\\begin\{(?:aligned|"
    r"align\*?)\}\s*[^&\\=<>]*[\d+*/^-][^&\\=<>]*&?\s*=(?:[^=<>]*=){0,9}[^=<>]*?\\\\"
    r"\s*([a-z]\s*&?\s*=[^&=<>\\]*(?:\\[a-z]+[^&=<>\\]*)*)\\end\{(?:aligned|align\*?)\}\s*(?:\\\]|\$\$)?[\s.]*",
    re.S,
)
_DENIED_AFTER = re.compile(r"\d.*\b(?:fails?|does(?:n't| not)|is(?:n't| not)|wrong|incorrect)\b", re.S)
_NUMBER_GLOSSED = re.compile(r"^(\$?-?\d[\d.,/]*(?: [a-z]+)?) \([^()]*[a-z]{3,}[^()]*\)\.?$")  # 104 (8 rows of 13)
_REPLY = re.compile(r"^(?:A(?:ns)?\.?|[A-Z]{2,5}):\s+(?=[-$]?\d[^:]*$)")  # the A of question and answer, GCD: 11
_WINNER = re.compile(  # Alice won; Bob is the tallest
    r"(?:(?:So|Thus|Hence|Therefore),?\s)?(?!(?:The|This|That|It|He|She|There|Here|What|Which)\b)([A-Z][a-z]+)\s"
    r"(?:wins|won|is\sthe\s(?:(?:most|least)\s[a-z]+|[a-z]+est|winner|first|last)(?:\s[a-z]+)?)\."
)
_SAYS_WORD = re.compile(
    r"(?:(?:So|Thus|Hence|Therefore),?\s)?(?:[Tt]he|[Tt]his|[Tt]hat|[Ii]t|[Hh]e|[Ss]he)(?:\s(?:[a-z]+\s){0,3}|"
    r"(?='s))(?:(?:'s|is|is\s(?:facing|heading|going)|will\sbe|(?:falls|lands)\son)\s(?:an?\s)?(?=\w+\.|(?:not|"
    r"neither)\s)|(?=(?:con|di)verges))"
    r"((?:not\s|neither\s)?[A-Za-z]+)\."
)  # The function is even.
_SENTENCE_WORDS = re.compile(
    r"\b(?:so|then|thus|hence|we|it|is|the|let|therefore|get|gives|now|are|there|this|that|which|must|should|"
    r"will|be|I'd|I'll|I'm)\b",
    re.I,
)
_BEGINS_IN_WORDS = re.compile(
    r"(?!(?:sqrt|sin|cos|tan|log|ln|exp|pi|all|any|real|infinity|two|undefined|minus|"
    r"negative)\b)(?:[AaI]\s+)?[A-Za-z]{2,}[a-z]*,?\s+(?![=<>])"
)
_CHINESE_SENTENCE = re.compile(
    r"^[\u4e00-\u9fff].*\d|[\u4e00-\u9fff]{2,}[，,。][\u4e00-\u9fff]|[\u4e00-\u9fff]{3,}.*\d"
)


def opening_verdict(text: str) -> Extracted | None:
    """The word that a short response opens with: "No, because 7 is odd"."""
    match = _OPENING_LINE.match(text)
    if match is None and len(text) < 400 and "\n\n" not in text:
        match = _OPENING_WORD.match(text)
    return Extracted(match.group(1), "verdict") if match else None


def whole_text(text: str) -> Extracted | None:
    """The text itself, when it is one line of mathematics or a word or two."""
    if not text or len(text) > 400 or "\n\n" in text or CHINESE_DENIAL.search(text):
        return None
    if _DENIED_AFTER.search(text):
        return None  # n = 45 does not work
    display = _ALIGNED.fullmatch(text)
    if display is not None and "=" in (last := display.group(1).strip().split(r"\\")[-1]):
        return Extracted(last.rpartition("=")[2].strip(" &.,"), "whole")
    steps = _STEPS.fullmatch(text)
    if steps is not None:
        return Extracted(steps.group(1).replace("&", ""), "whole")
    if (
        "\n" in text
        and not re.search(r"\\begin|\\\[|\$\$", text)
        and re.search(r"[a-zA-Z]{4,}|[\u4e00-\u9fff]{2,}", text)
    ):
        return None
    if re.search(r"\d|\\", text) and (_SENTENCE_WORDS.search(text) or _CHINESE_SENTENCE.search(text)):
        return None
    option = re.match(r"(?:option|choice) \(?([A-J])\)?[:.)]\s", text, re.I)
    if option is not None and "\n" not in text and len(LISTED.findall(text)) < 2:
        return Extracted(option.group(1), "choice")
    if re.match(r"only (?:option|choice)\b", text, re.I):
        return None
    if re.search(r"\d", text) and _BEGINS_IN_WORDS.match(text):
        return None
    if re.search(r"\d\s*[-+*/]\s*\$?\d.*=.*[a-zA-Z]{3}\W*$", text):
        return None  # 4 + 6 = 10 apples
    outside = MATH_SPAN.sub(" ", text)
    if outside != text and re.search(
        r"[A-Za-z]{2,}|[\u4e00-\u9fff]", re.sub(r"\b(?:and|or|percent|pct|degrees?|[A-Za-z]+\s*$)", "", outside)
    ):
        return None  # words around mathematics: a sentence
    counted = _COUNTED.fullmatch(text)
    if counted and (canonical_words(counted.group(1)) or "").isdigit():
        return Extracted(canonical_words(counted.group(1)) or "", "whole")
    if re.search(r"[a-z]{2,} (?:option|choice) \(?[A-J]\)?\.?$", text):
        return None  # a sentence about a choice
    text = _LAST_OF_STEPS.sub("", _NAMES.sub(r"\1 = ", text))
    counted = _COUNTED_ALONE.fullmatch(text)
    if (
        counted
        and (canonical_words(counted.group(1)) or "").isdigit()
        and not re.search(r"\d", canonical_words(text) or "")
    ):
        return Extracted(canonical_words(counted.group(1)) or "", "whole")
    text = _NUMBER_GLOSSED.sub(r"\1", _REPLY.sub("", text))
    if len(LISTED.findall(text)) > 1:
        return Extracted("", "none")  # A: 3, B: 4
    winner = _WINNER.fullmatch(text)
    if winner:
        return Extracted(winner.group(1), "whole")
    said = _SAYS_WORD.fullmatch(re.sub(r"\*\*(\w+)(\.?)\*\*(?=\.?$)", r"\1\2", text))
    return Extracted(said.group(1) if said else text, "whole") if looks_like_answer(text) else None


def looks_like_answer(text: str) -> bool:
    """Whether a text is an answer and not prose: few words beside its mathematics."""
    bare = re.sub(r"\\(?:text|mathrm|textbf|mbox|operatorname|begin|end)\s*\{[^{}]*\}", " ", text)
    bare = re.sub(r"\\[a-zA-Z]+", " ", bare)
    words = re.findall(r"[^\W\d_]{2,}", bare)
    has_math = bool(re.search(r"[\d\\$]", text))
    return len(words) <= (3 if has_math else 4) and not re.search(r"[?!]|\b[a-z]+\.\s+[A-Z]", text)
