"""Answers that are words: choices, yes and no, names, "no solution", numbers spelled out."""

from __future__ import annotations

import re

from rewards.mathematics.clean import text_content
from rewards.mathematics.node import normal_words

_CHOICE_ALONE = re.compile(
    r"^[^\w+-]*(?:(?i:(?:(?:therefore|thus|hence|so),?\s+)?(?:the\s+)?(?:answer\s+(?=choice|option))?(?:correct\s+|right\s+|best\s+|final\s+)?(?:answer|option|choice|statement)"
    r"\s*(?:is|:)?)\s*|"
    r"(?:故?选(?:择|项)?|答案(?:是|为)?)\s*:?\s*)?"
    r"\(?\s*([A-Ja-j])\s*(?:\)|\]|\.|:)?\s*(?:is (?:correct|right|true))?\W*$"
)
_CHOICE_WITH_TEXT = re.compile(
    r"^\W*(?:(?:option|choice|answer)\s*)?(?:\(([A-J])\)|([A-J])(?:\s*[.:)]|\s+(?=\()|"
    r"(?<=(?i:option|choice) .),\s+(?!(?:or|and)\b|\(?[A-J]\b)))\s*(?![,)\]])"
    r"(?!(?:is|are|was|isn't|cannot|can't|fails|does|and|or)\b|\(?[A-J]\)?\W*$)(\S.*)$",
    re.S,
)
_LETTERS = re.compile(r"\W*[A-J](?:(?:\W|\band\b)*[A-J])*\W*")
_BOOLEANS = {"yes": "yes", "no": "no", "true": "true", "false": "false", "correct": "true", "incorrect": "false"}
# fmt: off
_SMALL = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)
_SPELLINGS = {
    r"\emptyset": (
        "no solution", "no solutions", "no real solution", "no real solutions", "empty set", "null set", "none",
        "no such values", "no roots", "no real roots", "there are no solutions", "there is no solution",
        "no such number exists", "无解",
    ),
    "undefined": (
        "dne", "does not exist", "undefined", "not defined", "limit does not exist", "doesnt exist", "不存在",
    ),
    r"\mathbb{R}": (
        "all real numbers", "all reals", "all real", "real numbers", "any real number", "all real values",
        "every real number", "全体实数",
    ),
    "infinitely many": (
        "infinitely many", "infinitely many solutions", "infinite solutions", "infinite number of solutions",
        "infinite",
    ),
    r"\infty": ("infinity", "positive infinity", "plus infinity", "无穷", "无穷大"),
    r"-\infty": ("negative infinity", "minus infinity"),
    "yes": ("是",), "no": ("否",), "true": ("正确", "对"), "false": ("错误", "错"),
}
# fmt: on
_CANONICAL = {spelling: words for words, spellings in _SPELLINGS.items() for spelling in spellings}
_NUMBER_WORDS = {word: str(value) for value, word in enumerate(_SMALL)}
_PARTS = {
    "half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8, "ninth": 9,
    "tenth": 10, "eleventh": 11, "twelfth": 12, "thirteenth": 13, "fourteenth": 14, "fifteenth": 15, "sixteenth": 16, "twentieth": 20, "hundredth": 100,
}  # fmt: skip
_TENS = {
    "twenty": "20",
    "thirty": "30",
    "forty": "40",
    "fifty": "50",
    "sixty": "60",
    "seventy": "70",
    "eighty": "80",
    "ninety": "90",
}


def choice_letter(text: str) -> str | None:
    """The letter of a multiple-choice answer that is nothing but a letter, in upper case."""
    match = _CHOICE_ALONE.match(text_content(text))
    return match.group(1).upper() if match else None


def choice_with_text(text: str) -> tuple[str, str] | None:
    """(letter, the rest) of "(B) 12" or "B. twelve"."""
    match = _CHOICE_WITH_TEXT.match(text_content(text))
    return (match.group(1) or match.group(2), match.group(3).strip()) if match else None


def same_choice(gold: str, pred: str) -> bool | None:
    """Whether two choices agree; None when this is not about choices."""
    gold_letter, pred_letter = choice_letter(gold), choice_letter(pred)
    gold_full, pred_full = choice_with_text(gold), choice_with_text(pred)
    if gold_letter and not _is_lone_lower(gold):
        if pred_letter:
            return gold_letter == pred_letter
        return gold_letter == pred_full[0] if pred_full else None
    if re.fullmatch(r"[A-J]{2,}", text_content(gold)) or re.fullmatch(r"[A-J]{2,}", text_content(pred)):
        sides = [
            sorted(re.findall("[A-J]", side)) for side in map(text_content, (gold, pred)) if _LETTERS.fullmatch(side)
        ]
        if len(sides) == 2 and sides[0] == sides[1]:
            return True  # A and C are AC
    if gold_full and pred_letter:
        return gold_full[0] == pred_letter
    if gold_full and pred_full and gold_full[0] != pred_full[0]:
        return False
    return None


def _is_lone_lower(text: str) -> bool:
    """A lone small letter is a variable, not a choice."""
    return bool(re.fullmatch(r"\s*[a-z]\s*", text))


def canonical_words(text: str) -> str | None:
    """Words in one spelling, or as the mathematics they stand for; None for what is not words."""
    content = text_content(text)
    bare = re.sub(r"[\s.,;:!'\"()*_-]+", " ", content).strip().lower()
    if bare in _CANONICAL:
        return _CANONICAL[bare]
    signed = re.fullmatch(r"(?:negative|minus) ([a-z ]+)", bare)
    if signed and (_spelled_number(signed[1]) or "").isdigit():
        return "-" + _spelled_number(signed[1])
    part = re.fullmatch(r"an? (half|third|quarter|fourth|fifth|sixth|eighth|tenth)", bare)
    if part:
        return _spelled_number("one " + part[1])
    if not bare or re.search(r"[\d\\^=<>+/|{}\[\]]|(?<![a-zA-Z])-|\b[a-zA-Z]!", f"{bare} {content}"):
        return None
    words = normal_words(content)
    return _CANONICAL.get(words) or _spelled_number(words) or words


_SCALES = {"hundred": 100, "thousand": 1_000, "million": 1_000_000}


def _whole_number(words: str) -> int | None:
    """ "nine hundred and ninety nine" as 999; None for words that are not a number below a billion."""
    total, part, last = 0, 0, 10_000_000
    parts = [word for word in words.split(" ") if word != "and"]
    if not parts or words.startswith("and ") or words.endswith(" and"):
        return None
    for word in parts:
        if word in _SCALES:
            if word == "hundred":
                part *= 100
            else:
                total, part = total + part * _SCALES[word], 0
            last = _SCALES[word]
            if part == 0 and total == 0:
                return None
        else:
            value = int(_NUMBER_WORDS.get(word) or _TENS.get(word) or -1)
            room = 10 if last in range(20, 100) and last % 10 == 0 else 100 if last >= 100 else 0
            if value < 0 or value >= room or (value == 0 and len(parts) > 1):
                return None
            part, last = part + value, value
    return total + part


def _spelled_number(words: str) -> str:
    """ "twenty five" as 25 and "十二" as 12; empty for other words."""
    if words in _NUMBER_WORDS:
        return _NUMBER_WORDS[words]
    whole = _whole_number(words)
    if whole is not None:
        return str(whole)
    if words in ("half", "quarter"):
        return rf"\frac{{1}}{{{_PARTS[words]}}}"
    if words.endswith(" and half") and words.removesuffix(" and half") in _NUMBER_WORDS:
        return rf"{_NUMBER_WORDS[words.removesuffix(' and half')]}\frac{{1}}{{2}}"
    top, _, part = words.partition(" ")
    if part.rstrip("s") in _PARTS and top in _NUMBER_WORDS:
        return rf"\frac{{{_NUMBER_WORDS[top]}}}{{{_PARTS[part.rstrip('s')]}}}"
    chinese = re.fullmatch(r"([一二两三四五六七八九]?)(十?)([一二三四五六七八九零]?)", words)
    if not chinese or not words:
        return ""
    digits = "零一二三四五六七八九"
    first, ten, last = (chinese[1].replace("两", "二"), chinese[2], chinese[3])
    if not ten:
        return str(digits.index(first or last)) if not (first and last) else ""
    return str(10 * (digits.index(first) if first else 1) + (digits.index(last) if last else 0))


def same_words(gold: str, pred: str) -> bool | None:
    """Whether two answers in words agree; None when at least one of them is not words."""
    first, second = canonical_words(gold), canonical_words(pred)
    if first is None:
        return None
    if first in _BOOLEANS.values() or first in _BOOLEANS:
        return _same_boolean(first, pred)
    if second is None:
        return None
    lettered = choice_with_text(pred)
    if first == second or (lettered and first == canonical_words(lettered[1])):
        return not _is_single_letter_of_other_case(gold, pred)
    if _romans(gold) and _romans(gold) == _romans(pred):
        return True
    if _parts(gold) == _parts(pred) and len(_parts(gold)) > 1:
        return len(_joints(gold) | _joints(pred)) < 2  # Alice and Bob, in any order; not Alice or Bob
    if ("(" in gold) != ("(" in pred):
        return None
    squeezed = [re.sub(r"\W", "", words) for words in (first, second)]
    return True if squeezed[0] == squeezed[1] and len(squeezed[0]) > 1 else None


def _romans(text: str) -> list[str]:
    """The numerals of "I and III only", sorted; nothing for other text."""
    content = re.sub(r"\s+only\W*$", "", text_content(text).strip())
    numerals = re.split(r"\s*,\s*(?:and\s+)?|\s+and\s+", content)
    return sorted(numerals) if all(re.fullmatch(r"[IVX]+", numeral) for numeral in numerals) else []


def _parts(text: str) -> list[str]:
    return sorted(
        map(normal_words, re.split(r",\s*(?:and|or)\s+| and | or |[,;]\s*", text_content(text).strip(" .()")))
    )


def _joints(text: str) -> set[str]:
    return set(re.findall(r"\b(?:and|or)\b", text_content(text)))


def _same_boolean(gold: str, pred: str) -> bool | None:
    """A short text with one such word: "Yes, because ...", "The statement is true."."""
    if canonical_words(pred) in _BOOLEANS.values():
        return canonical_words(pred) == gold
    if canonical_words(pred) in _SPELLINGS and canonical_words(pred) not in _BOOLEANS.values():
        return False  # "no solution" is not "no"
    words = re.findall(r"\w+", text_content(pred).lower())
    if words[:1] == ["no"] and not _SAYS_NO.match(text_content(pred)):
        return False  # no answer
    if len(words) > 2 and words[1] in ("and", "or") and words[2] in _BOOLEANS:
        return False
    if canonical_words(pred) is None and not (words and words[0] in _BOOLEANS):
        return None
    head = words[:1] if words and words[0] in _BOOLEANS else words
    said = {_BOOLEANS[word] for word in head if word in _BOOLEANS}
    return said == {_BOOLEANS[gold]} and len(head) <= 8 and "not" not in head


_SAYS_NO = re.compile(
    r"\W*no\b(?=\W*$|\s*[^\w\s]|\s+(?:because|since|as|it|they|this|that|he|she|the|we|there|i)\b)", re.I
)


def _is_single_letter_of_other_case(gold: str, pred: str) -> bool:
    a, b = text_content(gold).strip(), text_content(pred).strip()
    return len(a) == len(b) == 1 and a != b
