"""Words that stand for mathematics, written as mathematics: "3 million", "the square root of 2", "6 to 5"."""

from __future__ import annotations

import re

from rewards.mathematics.clean import clean
from rewards.mathematics.words import canonical_words, choice_with_text

_OPERATIONS = (
    (re.compile(r"(?<=[\d)])_\s*\{\s*([a-z]{3,6})\s*\}"), r"_\\text{\1}"),
    (re.compile(r"(?<=\d)\s+squared$"), r"^2"),
    (re.compile(r"(?<=\d)\s+cubed$"), r"^3"),
    (re.compile(r"(?<=\d)\s+factorial$"), r"!"),
    (re.compile(r"^(?:the )?square root of (\d+)$"), r"\\sqrt{\1}"),
    (re.compile(r"^(?:the )?cube root of (\d+)$"), r"\\sqrt[3]{\1}"),
    (re.compile(r"(?<=\d)\s+x\s+(?=\d)"), r" \\times "),
)
_ABOUT = re.compile(  # 5/6 or about 0.833
    r"(?<=[\d})])\s*[,(]?\s*(?:\\text\s*\{)?\s*(?:,|or|i\.e\.)?\s*\b(?:about|approximately|"
    r"roughly)\s*\}?\s*[\d.,]+[^\d]*$"
)
_AND_A_HALF = re.compile(r"^(\d+) and (?:a|one)[ -]half\b")
_RATIO_WORD = re.compile(r"^(\d+)\s*(?:\\text\s*\{\s*to\s*\}|\bto\b)\s*(\d+)$")
_MULTIPLIERS = {
    "hundred": "100", "thousand": "1000", "million": "10^{6}", "billion": "10^{9}", "trillion": "10^{12}",
    "dozen": "12", "万": "10000", "亿": "10^{8}",
}  # fmt: skip
_MULTIPLIER = re.compile(r"^([-+]?[\d.,]*\d)\s*(?:\\text\s*\{\s*)?(" + "|".join(_MULTIPLIERS) + r")\b\s*\}?(.*)$", re.I)
_INTEGER_QUALIFIER = re.compile(
    r"[\s,;(]*(?:\\text\s*\{\s*)?(?:where|for|with|for any|for all|for every)?\s*\}?\s*(?:integer\s*)?"
    r"([a-z])\s*(?:\\in\s*\\mathbb\s*\{?\s*[ZN]\s*\}?(?:\s*[\^_]\s*\{?\s*[*+]\s*\}?)?|(?:\\text\s*\{)?\s*(?:is|"
    r"are|an|any|\s)*"
    r"\s*integers?\s*\}?)\s*\)?$"
)
_LETTERED = re.compile(r"\s*(?:\(|\\text|[A-J][.)]\s)")  # (B) 12, B. 12
_NAMED = re.compile(  # probability = 3/7
    r"^(?:\\text\s*\{[A-Za-z ]*[a-z]{3,}[A-Za-z ]*\s*:?\s*\}\s*[=:]\s*(?=\S))|^(?!\s*(?:sin|cos|tan|cot|sec|csc|"
    r"log|ln|exp|sqrt|max|min|arc[a-z]*)\b)[A-Za-z ]*[a-z]{3,}[A-Za-z ]*[=:]\s*(?=\S)"
)
_EXCEPT = re.compile(
    r"^(?:\\text\s*\{\s*)?(?:all |any |every )?real(?: number)?s?\s*"
    r"(?:x\s*)?except\s*(?:for\s*)?\}?\s*(?:x\s*=\s*)?([^{}]*)\}?$",
    re.I,
)


def as_mathematics(text: str) -> str:
    """Words that stand for mathematics as mathematics; a choice's letter taken off "(B) 12"."""
    for pattern, form in _OPERATIONS:
        text = pattern.sub(form, text)
    text = _ABOUT.sub("", text)
    text = re.sub(r"(?<=\d)\s*\(\s*\\text\s*\{([a-zA-Z ]+)\}\s*\)$", r" \\text{\1}", text)  # 4 (units)
    text = _AND_A_HALF.sub(r"\1.5", text)
    text = _RATIO_WORD.sub(r"\1:\2", text)
    text = _MULTIPLIER.sub(lambda m: rf"{m[1].replace(',', '')} \cdot {_MULTIPLIERS[m[2].lower()]}{m[3]}", text)
    qualifier = _INTEGER_QUALIFIER.search(text)
    if (
        qualifier and qualifier.start() > 0 and not re.search(r"_\{?n", text)
    ):  # a general solution: the integer's name is free
        name = qualifier[1]
        text = re.sub(rf"(?<![a-zA-Z\\]){name}(?![a-zA-Z])|(?<=\d){name}(?=\\)", r"\\kappa ", text[: qualifier.start()])
    elif qualifier and qualifier.start() > 0:
        text = text[: qualifier.start()]
    text = _NAMED.sub("", text)
    text = _EXCEPT.sub(r"\\mathbb{R} \\setminus \\{\1\\}", text)
    words = canonical_words(text)
    if words is not None and re.match(r"-?(?:\\|\d+(?:\\|$))", words):
        return words
    full = choice_with_text(text)
    if full is not None and re.search(r"\d|\\", full[1]) and _LETTERED.match(text):
        return clean(full[1])
    return text
