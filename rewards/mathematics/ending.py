r"""What a response that never states its answer ends with: "So she has 3 * 4 = 12 eggs." ends with 12."""

from __future__ import annotations

import re

from rewards.mathematics.doubt import ATTEMPT, BOUND, CHINESE_DENIAL, CONCLUDED, GIVES_UP, HEDGE, NOT_IT, STEP
from rewards.mathematics.prose import DENIED, MATH_SPAN, SPAN_JOIN, leading_spans, only_number, reduce_prose
from rewards.mathematics.words import canonical_words

Found = tuple[str, str]  # (text, the rule that found it); an empty text when the end denies it, hedges, or breaks off

_MAX_SENTENCE = 2_000  # characters, of the end
_MAX_TAIL = 200  # characters in which an answer without dollar signs is looked for
_IT_IS = re.compile(r" it is[.! ]{0,4}$")  # so 24 it is
_HOPE = re.compile(r"\s*I hope[^.]*\.?\s*$")
_VERIFICATION = re.compile(
    r"(?<=[\s.!。])(?:let(?:'s| us| me) (?:verify|check|double)|verification|"
    r"check(?:ing)?:|to (?:verify|check)|验证|检验).*$",
    re.I | re.S,
)
_SENTENCES = re.compile(r"(?<=[^\d\s][.!?])(?<!i\.e\.)(?<!e\.g\.)\s+|(?<=\d[.!?])\s+(?=[A-Z])|(?<=[。！？])(?=.)")
_GLOSSED = re.compile(  # the minimum is $3$ when $a=1$ and $b=2$
    r"^(.*\b(?:is|are|equals)\s+(?:\$[^$]+\$|\\\(.+?\\\)|[-−]?\d[\d,./]*(?<=\d)))\s*,?\s+"
    r"(?:when|where|at|if|for|since|because|attained|achieved)\b.*$",
    re.S,
)
_FOR_SOME = re.compile(  # $x + C$ for some constant $C$
    r"^(.*(?:\$[^$]+\$|\\\(.+?\\\)))\s*,?\s*(?:for (?:some|any|all|every|each)|where)\b[^=\d]*$", re.S
)
_IN_BRACKETS = re.compile(r"\s+\([^()]{0,80}[a-zA-Z]{3,}[^()]{0,80}\)(?=\W{0,4}$)")
_ROUGHLY = re.compile(  # 2/3, i.e. about 66.7%
    r",?\s*\(?\s*(?:(?:i\.e\.|that is|or|which is)[,\s]*)?(?:\babout|\bapproximately|\broughly|≈)"
    r"\s*\$?[\d.,]+\s*\\?%?\$?[^\d$]*$",
    re.I,
)
_BOLD = re.compile(r"\*\*\s*([^*\n]{0,80}?\d[^*\n]{0,40}?)\s*\*\*[^\d$\\*]{0,40}$")
_PLAIN = r"[-−+]?[$€£¥]?\d+(?:\.\d+)?(?:/\d+)?"
_SEVERAL = re.compile(rf"\b(?:are|is)\s+({_PLAIN}(?:,\s*{_PLAIN})*,?\s*(?:and|or)\s+{_PLAIN}(?:\s?\\?%)?)\W*$")
_NUMBER = (
    r"\d+(?:\s?:\s?\d+)+(?:\s*[AaPp]\.?[Mm]\b\.?)?|"
    r"[-−+]?[$€£¥]?\\?[$]?(?:\d*√\(?\d+\)?|\d[\d,. ]*\d(?:\s?π)?|\d(?:\s?π)?|\.\d+|"
    r"\\frac\s*\{[^{}]*\}\s*\{[^{}]*\})(?:\s*/\s*\d+)?"
    r"(?:\s*(?:\\?%|°|(?!(?:of|on|for|from|to|at)\b)[a-zA-Z²³$€]+(?:\^?\d)?)){0,3}[万亿]?"
)
_TUPLE = r"[(\[{][^()\[\]{}$]{0,60}?\d[^()\[\]{}$]{0,60}[)\]}]"
_ENDING = re.compile(
    rf"(?:^|[\s=:(（$€£¥*_\u4e00-\u9fff])({_NUMBER}|{_TUPLE})"
    r"\s*(?:[\u4e00-\u9fff]{0,12}|[(（][\u4e00-\u9fff]{1,4}[)）]|(?:of|on|for|from|to|at) [a-z ]{1,40})[.。!*)_\s]*$"
)
_EXPRESSION = re.compile(  # we get x^2 - 4
    r"(?:^|=|:|\b(?:get|gives?|obtain|is|are|equals?|becomes?|be)\b)\s*"
    r"([-+]?(?:[a-z](?![a-z])|[\d.√π()^*/ ]|(?<=[\w)]) ?[-+] ?(?=[\w(√π]))*"
    r"[-+*/^](?:[a-z](?![a-z])|[\d.√π()^*/ +-])+?)[.。!]?\s*$"
)
_COMPUTED = re.compile(  # 48 + 24 = 72 clips in April and May
    r"[\d)]\s*[-−+*/×÷]\s*[$(]*[\d.][^=]{0,80}=\s*([$€£¥]?\d[\d,]*(?:\.\d+)?(?:/\d+)?)"
    r"(?:[\s\u0080-\uffff][^\d=$\\]*)?\W*$"
)
_CONCLUSION = re.compile(
    r"\W*(?:therefore|thus|hence|so|in total|in conclusion|finally|consequently|altogether)\b", re.I
)

_ADJUNCT = re.compile(  # he is 45 miles from home after 4 hours
    r"^(.*\d.*\w),?\s+(?:at the end of|by the end of|after)\s+(?:(?:the|these|those|all)\s+)?\d+\s+[a-z]+\W*$|"
    r"^(.*\d.*?[a-z]),?\s+after\s+[a-z]+ing\b[^=]*$"
)
_RATE = re.compile(  # she bakes 18 cakes in 3 hours
    r"^((?:.*[,;]\s*(?:so|thus|hence|therefore|"
    r"which means)\b)?[^\d=<>+*/^\\:$]*[$€£¥]?\d[\d,]*(?:\.\d+)?(?:\s+[a-z]+){1,5}?)"
    r"\s+(?:in|for|within|during|at|across|among|to\s+[a-z]+)\s+(?:the|these|those|all|every|each|"
    r"a total of)?\s*\$?\d[\d,.]*\s+[a-z]+\W*$"
)
_TOTAL = re.compile(  # pays a total of $64 for 16 glasses
    r"\btotals? (?:of|is|comes to|amounts to)\s+([$€£¥]?\d[\d,]*(?:\.\d+)?)(?=\s+(?:[a-z]+\s+)?(?:for|in|over|from)\s"
    r"[^\d]*\d+[^\d]*$)"
)
_CHOICE = re.compile(r"(?:^\W*|\b(?:option|choice|answer|is)\s+\(?|\()([A-J])\)?[.!*_\s]*$")
_CHOICE_DENIED = re.compile(
    r"\b(?:eliminat\w+|exclud\w+|rul\w+ out|reject\w*|discard\w*|wrong|incorrect|contradict\w*|except|than|and|or|"
    r"not)\b[^,;]*$|[A-J]\)?,\s*$"
)
_OPENING_CHOICE = re.compile(r"[\s*_]*\(?([A-J](?=[.)])|[B-Jb-j](?=:))[).:]\)?[*\s]+(?=[A-Za-z]{3})")
LISTED = re.compile(r"(?:^|\s|\()[A-Ja-j][).:]\s")

_ONE_QUANTITY = re.compile(
    r"(?!.*\b(?:not|no|never|than|least|most|steps?|questions?|problems?|equations?|cases?|parts?|if|would|need|first|"
    r"let|given)\b)(?!.*n't\b)[^\d$<>≤≥≠=\\]*(?:[$€£¥]\d[\d,]*(?:\.\d+)?|\d[\d,]*(?:\.\d+)?(?= [a-z]))(?! ?[-+*/^])"
    r"[^\d$<>≤≥≠=\\]*"
)

_SEVERAL_LETTERS = re.compile(r"\bare\s+(\(?[A-J]\)?(?:,?\s+and\s+\(?[A-J]\)?|,\s*\(?[A-J]\)?)+)\W*$")
_ASSIGNED = r"[a-z] ?= ?[-−]?\d+(?:\.\d+)?(?:/\d+)?"
_ASSIGNMENTS = re.compile(rf"(?<![\w$])({_ASSIGNED}(?:(?:,? and|,? or|,) {_ASSIGNED})+)\W*$")  # p = 3 and q = -1
_LETTER = re.compile(r"\(([A-J])\)|\b(?:[Oo]ption|[Cc]hoice|[Aa]nswer|[Oo]nly) ([A-J])\b")


def ending(text: str) -> Found:
    """What the response ends with, and by which rule."""
    sentence = CONCLUDED.sub("So ", _last_sentence(text))
    if GIVES_UP.search(text[-200:]) or CHINESE_DENIAL.search(sentence):
        return "", "hedge"
    if HEDGE.search(re.sub(r"\$[^$]*\$", "", re.sub(r"\beither \$(?=[a-z] ?=)", "$", sentence))):
        return "", "hedge"
    sentence = re.sub(r"\*\*([A-Za-z]+)(\.?)\*\*(?=\.?$)", r"\1\2", sentence)
    if STEP.match(sentence) or ATTEMPT.match(sentence):
        return "", "hedge"
    sentence = _FOR_SOME.sub(r"\1", sentence)
    sentence = _IN_BRACKETS.sub("", _GLOSSED.sub(r"\1", sentence))
    without = _ROUGHLY.sub("", sentence)
    sentence = without if re.search(r"\d", without) else sentence
    sentence = _RATE.sub(r"\1", _ADJUNCT.sub(r"\1\2", sentence))
    for rule in (
        _choice,
        _letters,
        _assignments,
        _total,
        _spans,
        _bold,
        _several,
        _day,
        _works,
        _expression,
        _number,
        _computed,
        _conclusion,
        _only_letter,
        _spelled,
        _word,
    ):
        found = rule(sentence)
        if found is not None:
            return found
    return opening_choice(text)


def opening_choice(text: str) -> Found:
    """The letter that a response opens with: "B. The lid keeps the heat in"; nothing where it lists several."""
    match = _OPENING_CHOICE.match(text) if len(text) < 400 else None
    if match is None or LISTED.search(text, match.end()):
        return "", "none"
    return match.group(1).upper(), "choice"


def _last_sentence(text: str) -> str:
    text = _IT_IS.sub("", _HOPE.sub("", text))
    without = _VERIFICATION.sub("", text)
    text = without if re.search(r"\d", without) else text
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        return ""
    last = " ".join(lines[-3:]) if re.match(r"\s*(?:\\\]|\$\$)\s*$", lines[-1]) else lines[-1]
    return _SENTENCES.split(last.strip()[-_MAX_SENTENCE:])[-1]


def _spans(sentence: str) -> Found | None:
    """The mathematics between dollar signs at the end, at most six words before it."""
    spans = list(MATH_SPAN.finditer(sentence))
    if not spans:
        return None
    if DENIED.search(sentence[: spans[-1].start()]):
        return "", "denied"
    tail = sentence[spans[-1].end() :]
    if len(tail.split()) > 6 or re.search(r"\d", tail):
        return None
    start = len(spans) - 1
    while start > 0 and SPAN_JOIN.fullmatch(sentence[spans[start - 1].end() : spans[start].start()]):
        start -= 1
    return leading_spans(sentence[spans[start].start() :]), "last_expression"


def _choice(sentence: str) -> Found | None:
    """The letter of a multiple choice at the end: "the only one that fits is option C", "rather (C)"."""
    match = _CHOICE.search(sentence[-_MAX_TAIL:])
    if match is None:
        return None
    before = sentence[-_MAX_TAIL:][: match.start()]
    return ("", "denied") if _CHOICE_DENIED.search(before) else (match.group(1), "choice")


def _letters(sentence: str) -> Found | None:
    """The letters of "the correct statements are A, C, and D"."""
    match = _SEVERAL_LETTERS.search(sentence[-_MAX_TAIL:])
    return (match.group(1), "choice") if match else None


def _assignments(sentence: str) -> Found | None:
    match = _ASSIGNMENTS.search(sentence[-_MAX_TAIL:])
    return (match.group(1), "last_expression") if match else None


def _total(sentence: str) -> Found | None:
    match = _TOTAL.search(sentence[-_MAX_TAIL:].replace("\\$", "$"))
    return (match.group(1), "last_expression") if match else None


def _bold(sentence: str) -> Found | None:
    sentence = sentence[-_MAX_TAIL:]
    match = _BOLD.search(sentence)
    if match is None or DENIED.search(sentence[: match.start()]):
        return None
    return reduce_prose(match.group(1)), "last_expression"


def _several(sentence: str) -> Found | None:
    match = _SEVERAL.search(sentence[-_MAX_TAIL:])
    return (match.group(1), "last_expression") if match else None


def _expression(sentence: str) -> Found | None:
    match = _EXPRESSION.search(sentence[-_MAX_TAIL:])
    if match is None or not re.search(r"[a-z√π]", match.group(1)):
        return None
    return match.group(1).strip(), "last_expression"


def _number(sentence: str) -> Found | None:
    sentence = sentence[-_MAX_TAIL:]
    match = _ENDING.search(sentence)
    if match is None or re.search(r"[\w)%] ?[-+*/^×÷<>≤≥] ?$|\b[a-z] ?[-+] ?\d+ ?= ?$", sentence[: match.start(1)]):
        return None  # nothing, or only the last term of something, or one side of an equation
    before = sentence[: match.start(1)]
    if DENIED.search(before) or BOUND.search(before):
        return "", "denied"
    if re.search(r"\b(?:minus|negative)\s*$", before):
        is_sign = re.search(r"\b(?:is|was|to|equals|be|at)\s+(?:minus|negative)\s*$", before)
        return (f"-{match.group(1).strip()}", "last_expression") if is_sign else None
    return match.group(1).strip(), "last_expression"


def _computed(sentence: str) -> Found | None:
    match = _COMPUTED.search(sentence[-_MAX_TAIL:])
    return (match.group(1), "last_expression") if match else None


def _conclusion(sentence: str) -> Found | None:
    """The one number of a finished sentence that begins with "therefore" or counts something: "It had 366 pages." """
    match = _CONCLUSION.match(sentence)
    if (
        NOT_IT.search(sentence)
        or not sentence.rstrip().endswith((".", "!", "。"))
        or (match is None and not _ONE_QUANTITY.fullmatch(sentence))
    ):
        return None
    number = only_number(sentence[match.end() if match else 0 :])
    return (number, "conclusion") if re.search(r"\d", number) else None


def _only_letter(sentence: str) -> Found | None:
    """The one choice that a sentence names: "only (B) satisfies both conditions"."""
    letters = [match for match in _LETTER.finditer(sentence) if match]
    if (
        len(letters) != 1
        or "only" not in sentence[: letters[0].start(2) if letters[0].group(2) else letters[0].start()].lower()
        or _CHOICE_DENIED.search(sentence)
    ):
        return None
    return letters[0].group(1) or letters[0].group(2), "choice"


def _spelled(sentence: str) -> Found | None:
    """The number that a sentence ends with in words: "the total is forty-two." """
    match = re.search(
        r"\b(?:is|are|equals|to)\s+(?:(?:exactly|therefore|thus|then|just)\s+)?([a-z]+(?:[- ][a-z]+)?)\.$", sentence
    )
    words = match and canonical_words(match.group(1).replace("-", " "))
    return (words, "last_expression") if words and re.search(r"\d", words) else None


def _day(sentence: str) -> Found | None:
    match = _DAY.search(sentence)
    if match and match.group().lower().startswith("on") and re.search(r"\d", sentence):
        return None  # harvested 45 baskets on Monday
    return (match.group(1) or match.group(2), "last_expression") if match else None


def _works(sentence: str) -> Found | None:
    """The value of "n = 6 works, and no smaller n does." """
    match = _WORKS.match(sentence)
    return (match.group(1), "last_expression") if match else None


_WORKS = re.compile(r"\W*(?:(?:so|thus|only|hence)\s+)?\$?([a-z] ?= ?-?\d[\d./]*)\$?\s+works\b", re.I)


def _word(sentence: str) -> Found | None:
    """The word that a conclusion ends with: "So the winner is Alice.", "we land on Tuesday." """
    match = _NO_SOLUTION.search(sentence)
    if match is None and _CONCLUSION.match(sentence):
        match = re.search(r"\b(?:is|was|be)\s+([A-Za-z]{2,})\.$", sentence)
    match = match or re.search(r"\b(?:is|was)\s+([A-Z][a-z]+)\.$", sentence)  # the tallest is Bob
    return (match.group(1), "last_expression") if match else None


_NO_SOLUTION = re.compile(
    r"\b(?:has|have|is|are)\s+((?:no|infinitely many)\s+(?:real\s+)?(?:solutions?|roots?)|undefined)\.?$", re.I
)
_DAY = re.compile(
    r"\b(?:is|was|be|on)\s+(?:an?\s+)?((?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day|January|February|March|April|"
    r"May|June|"
    r"July|August|September|October|November|December)\.$|"
    r"\b(?:is|was|facing|heading|going|pointing|pointed|due|the|to)\s+((?:(?:north|south)[- ]?)?(?:east|west)|"
    r"north|south)\.$",
    re.I,
)
