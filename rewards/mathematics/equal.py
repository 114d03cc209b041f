r"""Decides whether an answer is the reference answer: exactly and cheaply first, sympy last.

Rules in order, each final when it applies: equal text, integers, choices, words, then trees (compare.py) of both,
with units, percent and degree signs taken off, and math-verify for what has no tree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from rewards.mathematics.clean import clean, join_thousands, text_content
from rewards.mathematics.extract import MAX_ANSWER_CHARS
from rewards.mathematics.matrix import by_components
from rewards.mathematics.node import Node, TooLarge, Unparsable
from rewards.mathematics.rewrite import as_mathematics
from rewards.mathematics.slow import Undecided, is_worth_asking, verify_slow
from rewards.mathematics.words import same_choice, same_words

_INTEGER = re.compile(r"[-+]?\d+")
_AT_END = r"(?=\s*(?:$|[,;)\]}]|(?:\\text\s*\{\s*)?(?:and|or)\b))"  # of the answer or of an item
_DEGREE = re.compile(
    r"\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ)\s*(?:\\(?:text|mathrm)\s*\{\s*[CFK]\s*\}|[CFK]\b)?" + _AT_END
)
_SCALE = re.compile(r"(?<=\\circ)\s*\}?\s*(?:\\(?:text|mathrm)\s*\{\s*([CFK])\s*\}|([CFK])\b)")
_DEGREE_WORD = re.compile(
    r"\s*(?:\\(?:text|mathrm)\s*\{\s*deg(?:ree)?s?\.?\s*\}|\bdeg(?:ree)?s?\b\.?)\s*(?:Celsius|Fahrenheit)?" + _AT_END,
    re.I,
)
_PERCENT_WORD = re.compile(
    r"\s*(?:\\(?:text|mathrm)\s*\{\s*(?:percent|percentage|pct|%)\s*\}|\b(?:percent|percentage|pct)\b)", re.I
)
_MODULUS = re.compile(
    r"\s*(?:\\pmod|\(\s*\\?(?:bmod|mod|text\s*\{\s*mod\s*\}|mathrm\s*\{\s*mod\s*\}))\s*\{?\s*(\w+)\s*\}?\s*\)?\s*$"
)
_DECIMAL_COMMA = re.compile(r"([-+]?\d+),(\d+)")
_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2},\d{3}")
_IDENTICAL_IS_WRONG = re.compile(r"(?:/|\\div)\s*0(?![.\d])|\\frac\s*(?:\{[^{}]*\}|\d)\s*(?:\{\s*0\s*\}|0)")


@dataclass(frozen=True)
class Verdict:
    """Whether an answer is right, and by which rule; `right` None when it could not be decided in time."""

    right: bool | None
    rule: str


@lru_cache(maxsize=65_536)
def same_answer(gold: str, pred: str, *, simplified: bool = False, timeout_s: float = 5.0) -> Verdict:
    """Compare a candidate with a reference answer, both as extracted.

    Args:
        simplified: an answer with arithmetic left to do (2/4, 1 + 1, sqrt(8)) is wrong though it is equal.
        timeout_s: of the slow path, in seconds; 0: it is not asked, and what it might know counts as different.
    """
    if not gold.strip() or not pred.strip():
        return Verdict(False, "empty")
    if len(pred) > MAX_ANSWER_CHARS or len(gold) > MAX_ANSWER_CHARS:
        return Verdict(False, "refused")
    whole = _both_integers(gold, pred)
    if whole is not None:
        return Verdict(whole, "integers")
    if _MONEY.fullmatch(gold):
        pred = _RATE.sub(r"\1", pred)
    first, second = clean(by_components(gold, pred)), clean(by_components(pred, gold))
    if not first or not second:
        return Verdict(False, "empty")
    if _DEGREE.search(first) and _NO_ANGLE.search(second):
        return Verdict(False, "units")
    try:
        return _decide(first, second, simplified, timeout_s)
    except TooLarge:
        return Verdict(False, "refused")
    except RecursionError:
        return Verdict(False, "refused")


_NO_ANGLE = re.compile(  # what degrees are not, nor convert to here
    r"\d\s*\\?(?:text|mathrm)?\s*\{?\s*(?:ft|cm|mm|km|m|feet|inches|meters|miles|rad|radians?)\s*\}?$"
)
_MONEY = re.compile(r"\s*\$?\s*\\?\$\s*\d[\d.,]*\s*\$?\s*")
_RATE = re.compile(r"^(\s*\\?\$\s*\d[\d.,]*)\s+(?:per|an?|each)(?:\s+[a-z]+)?\s*\.?\s*$")  # $3 per pound, for $3


def _both_integers(gold: str, pred: str) -> bool | None:
    a, b = gold.strip(" $"), pred.strip(" $")
    if _INTEGER.fullmatch(a) and _INTEGER.fullmatch(b) and a.isascii() and b.isascii():
        return _canonical_integer(a) == _canonical_integer(b)
    return None


def _canonical_integer(text: str) -> str:
    digits = text.lstrip("+-").lstrip("0") or "0"
    return "-" + digits if text.startswith("-") and digits != "0" else digits


def _decide(gold: str, pred: str, simplified: bool, timeout_s: float) -> Verdict:
    if _IDENTICAL_IS_WRONG.search(pred):
        return Verdict(False, "undefined")
    if _squeeze(gold) == _squeeze(pred) or _squeeze(text_content(gold)) == _squeeze(text_content(pred)):
        return Verdict(True, "equal_text") if not simplified else _check_simplified(pred, Verdict(True, "equal_text"))
    choice = same_choice(gold, pred)
    if choice is not None:
        return Verdict(choice, "choice")
    words = same_words(gold, pred)
    if words is not None:
        return Verdict(words, "words")
    gold, pred = as_mathematics(gold), _without_gloss(as_mathematics(pred))
    unparsed = False
    for first, second in _readings(gold, pred):
        try:
            if _same_trees(first, second):
                return _check_simplified(second, Verdict(True, "tree")) if simplified else Verdict(True, "tree")
        except Unparsable:
            unparsed = True
    if unparsed and timeout_s > 0 and is_worth_asking(gold, pred):
        return _ask_slow(gold, pred, timeout_s)
    return Verdict(False, "unparsable" if unparsed else "tree")


def _squeeze(text: str) -> str:
    """Without the spaces that mean nothing; those between two digits do."""
    return re.sub(r"(?<!\d) | (?!\d)", "", text)


def _ask_slow(gold: str, pred: str, timeout_s: float) -> Verdict:
    try:
        return Verdict(verify_slow(gold, pred, timeout_s), "math_verify")
    except Undecided:
        return Verdict(None, "timeout")


_GLOSS = re.compile(r"(.*\d.*?)(?:,\s+|\s*\()(?:or|that is,?|i\.e\.,?|which is)\s+(.*\d[^()]*)\)?")


def _without_gloss(text: str) -> str:
    """ "5/6 hours, or 50 minutes" as 5/6 hours: the same quantity twice is not two candidates."""
    match = _GLOSS.fullmatch(text)
    return match[1] if match and same_answer(match[1], match[2]).right else text


def _readings(gold: str, pred: str) -> Iterator[tuple[str, str]]:
    """Pairs to compare, the plainest first: signs and units that only one side writes are forgiven."""
    gold, pred = _PERCENT_WORD.sub("%", gold), _PERCENT_WORD.sub("%", pred)
    gold, pred = _DEGREE_WORD.sub(r"^\\circ", gold), _DEGREE_WORD.sub(r"^\\circ", pred)
    ours, theirs = _SCALE.search(gold), _SCALE.search(pred)
    if ours and theirs:
        if ours[ours.lastindex or 0] != theirs[theirs.lastindex or 0]:
            return
        gold, pred = _DEGREE.sub(r"^\\circ", gold), _DEGREE.sub(r"^\\circ", pred)
    ours, theirs = _MODULUS.search(gold), _MODULUS.search(pred)
    if ours and theirs and ours[1].strip() != theirs[1].strip():
        return
    if ours and theirs:
        residues = _residues(gold, pred, ours[1])
        if residues is not None:
            yield residues
            return
    gold, pred = _MODULUS.sub("", gold), _MODULUS.sub("", pred)
    joined = join_thousands(gold), join_thousands(pred)
    yield joined
    if joined[1] != pred and re.search(r",|;", joined[0]):
        yield joined[0], pred
    if joined[0] != gold and re.search(r",\s|;|\band\b|\{", pred):
        yield gold, pred
    yield from _decimal_commas(gold, pred)
    if "_" in gold and "_" not in pred and re.search(r"[a-zA-Z]\d", pred):
        yield joined[0], re.sub(r"(?<![a-zA-Z\\])([a-zA-Z])(\d+)", r"\1_{\2}", joined[1])
    yield from _forgiven_signs(*joined)


def _residues(gold: str, pred: str, modulus: str) -> tuple[str, str] | None:
    """The two least residues of x = 5 (mod 8) and x = 13 (mod 8); None where they are not integers."""
    both = [
        re.fullmatch(r"(?:[a-z]\s*(?:\\equiv|=)\s*)?(-?\d{1,18})", _MODULUS.sub("", text).strip())
        for text in (gold, pred)
    ]
    if not modulus.isdigit() or int(modulus) == 0 or both[0] is None or both[1] is None:
        return None
    return str(int(both[0][1]) % int(modulus)), str(int(both[1][1]) % int(modulus))


def _decimal_commas(gold: str, pred: str) -> Iterator[tuple[str, str]]:
    """ "2,74" as 2.74 where the other side is a decimal with a point."""
    ours, theirs = _DECIMAL_COMMA.fullmatch(gold), _DECIMAL_COMMA.fullmatch(pred)
    if theirs and re.fullmatch(r"[-+]?\d+\.\d+", gold) and not _THOUSANDS.fullmatch(pred):
        yield gold, f"{theirs[1]}.{theirs[2]}"
    if (
        ours
        and re.fullmatch(r"[-+]?\d+\.\d+", pred)
        and (len(ours[2]) > 1 or ours[1].lstrip("+-") == "0")
        and not _THOUSANDS.fullmatch(gold)
    ):
        yield f"{ours[1]}.{ours[2]}", pred


_SMALL = re.compile(r"\s*[-+]?(?:0?\.\d|\\frac|\d+\s*/)")


def _forgiven_signs(gold: str, pred: str) -> Iterator[tuple[str, str]]:
    for sign in (re.compile(r"\s*%"), _DEGREE):
        stripped = sign.sub("", gold), sign.sub("", pred)
        if sign is not _DEGREE and stripped[1] != pred and _SMALL.match(gold):
            continue  # a percent sign is no decoration of 2/7
        if (stripped[0] == gold) != (stripped[1] == pred):
            yield stripped


def _same_trees(gold: str, pred: str) -> bool:
    from rewards.mathematics.compare import same_answer as same_tree

    (gold_text, gold_tree), (pred_text, pred_tree) = _trees(gold, pred)
    if pred_tree is None and "=" in pred and not re.search(r"[=<>]|\\[lg]e", gold):  # lcm(1, ..., 10) = 2520
        (gold_text, gold_tree), (pred_text, pred_tree) = _trees(gold, pred.rpartition("=")[2].strip())
    if gold_tree is None or pred_tree is None:
        raise Unparsable(gold_text if gold_tree is None else pred_text)
    return same_tree(gold_tree, pred_tree)


def _trees(gold: str, pred: str) -> tuple[tuple[str, Node | None], tuple[str, Node | None]]:
    from rewards.mathematics.units import conversion, join_compound, split_unit

    gold, pred = _SHARED_UNIT.sub("", join_compound(gold)), _SHARED_UNIT.sub("", join_compound(pred))
    (gold_core, gold_unit, gold_sure), (pred_core, pred_unit, pred_sure) = split_unit(gold), split_unit(pred)
    if not gold_sure and pred_unit is None and not (_is_plain_number(pred) and _is_spaced(gold)):
        gold_core, gold_unit = gold, None
    if not pred_sure and gold_unit is None and not (_is_plain_number(gold) and _is_spaced(pred)):
        pred_core, pred_unit = pred, None
    factor = conversion(gold_unit, pred_unit)
    if pred_unit and pred_unit.dimensions in _TIMES_OF_DAY and (":" in gold_core) != (":" in pred_core):
        factor = None
    gold_tree, pred_tree = _parse(gold_core), _parse(pred_core)
    if factor is None:
        return (gold, gold_tree), (pred, _NEVER)
    if factor != 1 and pred_tree is not None:
        pred_tree = Node("mul", (pred_tree, Node("num", (), str(factor), factor)))
    return (gold, gold_tree), (pred, pred_tree)


_SHARED_UNIT = re.compile(  # 6 cm, 8 cm is 6, 8 cm
    r"(?<=\d)\s*\\(?:text|mathrm)\s*\{\s*([a-zA-Z ]+?)\s*\}"
    r"(?=\s*(?:,|and\b|or\b)[^a-zA-Z]*\d\s*\\(?:text|mathrm)\s*\{\s*\1\s*\}\s*$)"
)
_TIMES_OF_DAY = ((("morning", 1),), (("afternoon", 1),))
_NEVER = Node("text", (), "a unit that contradicts the reference")


def _is_spaced(text: str) -> bool:
    """Whether the last letter stands apart, "3 m": more likely metres than a factor m."""
    return bool(re.search(r"\s[a-zA-Z]$", text))


def _is_plain_number(text: str) -> bool:
    return bool(re.fullmatch(r"[-+]?[\d.,/\s]*\d[\d.,/\s]*|\\frac\s*\{\d+\}\s*\{\d+\}", text.strip()))


@lru_cache(maxsize=16_384)
def _parse(text: str) -> Node | None:
    from rewards.mathematics.tree import parse

    try:
        return parse(text)
    except Unparsable:
        return None


def _check_simplified(pred: str, verdict: Verdict) -> Verdict:
    from rewards.mathematics.simplified import is_simplified
    from rewards.mathematics.units import split_unit

    tree = _parse(split_unit(join_thousands(pred))[0])
    if tree is None or is_simplified(tree.args[-1] if tree.kind == "rel" else tree):
        return verdict
    return Verdict(False, "not_simplified")
