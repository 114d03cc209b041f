r"""Answers that stand in sentences: what follows "the answer is"."""

from __future__ import annotations

import re

NOT_AN_ANSWER = re.compile(
    r"(?:helpful|correct|right|wrong|clear|above|below|as follows|in the form|not\b|given\b|unknown\b|"
    r"therefore\b|that\b|found\b|obtained\b|what\b|based\b|incorrect|to\s+(?:find|the)|your\b|here\b)",
    re.I,
)
_SENTENCE_END = re.compile(r"(?<=[^\s.])[.。!！?？](?=\s+[^\d\s]|\s*$)|(?<=[^\d\s])[.。](?=\s)|[。]|\bI hope\b|\n\s*\n")
MATH_SPAN = re.compile(
    r"\$\$(.+?)\$\$|\$([^$\n]+?)\$|\$\n([^$]{1,2000}?)\n\$|"
    r"\$([^$]{0,2000}?\\begin\{[^$]{1,2000}?)\$|\\\[(.+?)\\\]|\\\((.+?)\\\)",
    re.S,
)
SPAN_JOIN = re.compile(r"\s*(?:[,;]?\s*\b(?:and|or)\b|[,;，；、]|[，；]?(?:和|或|且|与|及)|或者)\s*")
_AFTERTHOUGHT = re.compile(
    r"\s*(?:[,;]?\s*(?:because|since)\b|,\s*(?:not|which|as|so|where|but|it|and (?:we|this|it|so))\b).*$|"
    r"[,，]\s*(?:而)?(?:不是|非).*$|\s*(?:是?正确的?(?:答案|选项)?|选项)$|"
    r",\s*(?:obviously|clearly|of course|indeed|exactly|right|finally)$|"
    r"\s+\([^()]*[a-zA-Z]{3,}[^()]*\)$|\s{0,2}\((?:or(?!\s*[-$\\\d.]+\s*\))|about|i\.e\.|approx\.?|≈|=)[^()]*\)$",
    re.I | re.S,
)
_LEAD_IN = re.compile(
    r"^(?:for sure|still|indeed|actually|really|definitely|certainly|surely|"
    r"approximately|about|around|roughly|exactly|simply|just|therefore|thus|then|indeed|clearly|now)\b[,:\s]*",
    re.I,
)
_NUMBER = re.compile(r"[-+]?[$€£]?\d[\d,]*(?:\.\d+)?(?:/\d+)?(?:\s*\\?%)?")
DENIED = re.compile(
    r"\b(?:not|never|isn't|wasn't|cannot be|can't be)(?:\s+(?:be|equal to|exactly|simply))?[\s$(*]*$", re.I
)  # just before an answer


_WORDS_AND_SPAN = re.compile(r"[A-Za-z][a-z -]{2,40},\s*(\$[^$]+\$|\\\(.+?\\\))")  # two thirds, $\frac23$


def stated_answer(rest: str) -> str:
    """The answer at the start of `rest`: adjoining math spans, or the words up to the end of the sentence."""
    rest = rest.removeprefix("}").lstrip(
        " \t\n*_:：\"'\\" if rest.lstrip(" *_:：").startswith(('\\"', '"')) else " \t\n*_:："
    )
    rest = re.sub(r"^\\n(?=[-$\d\s])\s*", "", rest)  # a new line that was escaped
    if NOT_AN_ANSWER.match(rest):
        return ""
    spans = leading_spans(rest)
    if spans:
        return spans
    line = rest.split("\n", 1)[0]
    end = _SENTENCE_END.search(line)
    sentence = line[: end.start()] if end else line
    if end and end.group() in "?？":
        return ""
    return reduce_prose(sentence)


def leading_spans(rest: str) -> str:
    parts = []
    position = 0
    tail = ""
    while (match := MATH_SPAN.match(rest, position)) is not None:
        parts.append(next(g for g in match.groups() if g is not None))
        position = match.end()
        joint = SPAN_JOIN.match(rest, position)
        after = re.match(
            r"\s*(?:\\?%|(?:percent|degrees|hundred|thousand|million|billion|trillion|dozen)\b)", rest[position:]
        )
        tail = after.group() if after else ""
        if joint is None or not MATH_SPAN.match(rest, joint.end()):
            break
        position = joint.end()
    more = re.match(r"[ ]*[^\s.,;:!?。，；\n]", rest[position:])
    if parts and re.match(
        r"\s*(?:of|times|plus|minus|divided by|multiplied by)\s+[$\\(]*\d", rest[position + len(tail) :]
    ):
        return ""  # $14\%$ of 50
    if parts and re.match(r"\s*[A-Za-z]+,?\s+and\s+(?:\$|\\\()?\d", rest[position:]):
        return ""  # $15$ dollars and $20$ cents
    if parts and more and not tail and re.match(r"\s*[A-Za-z\u4e00-\u9fff]", rest[position:]) is None:
        return ""  # the span is only the beginning, as in "$100 and $200"
    return " , ".join(parts) + tail


def reduce_prose(sentence: str) -> str:
    """The answer in a sentence such as "the largest n is 34", "**x = 5** apples" or "she needs 12 eggs"."""
    text = sentence.strip().strip("*_` ").strip()
    text = _AFTERTHOUGHT.sub("", _LEAD_IN.sub("", text)).strip().strip("\"'* ") or text
    if text.count("}") > text.count("{"):  # of JSON
        text = text.rstrip("\"'} ")
    glossed = _WORDS_AND_SPAN.fullmatch(text)
    if glossed:
        return leading_spans(glossed.group(1))
    pieces = re.split(
        r"\b(?:is|are|equals|be|was|were)\b(?:\s+(?:equal\s+to|approximately|exactly|therefore|thus|just))*\s*:?|"
        r"(?<!不)是|等于",
        text,
    )
    last = pieces[-1].strip()
    if len(pieces) > 1 and last and re.search(r"[\d\\$]|^\(?[a-zA-Z]\)?$", last):
        return leading_spans(last) or (last if _is_short(last) else only_number(last))
    if _OPERATION.search(text):
        return text  # the square root of 45 is not 45
    return text if _is_short(text) else only_number(text)


_OPERATION = re.compile(r"\b(?:root|square|cube) of\b|\b(?:squared|cubed|factorial)\b")


def _is_short(text: str) -> bool:
    return len(re.findall(r"[A-Za-z]{2,}", re.sub(r"\\[a-zA-Z]+|\$[^$]*\$|\{[^{}]*\}", " ", text))) <= 3


def only_number(text: str) -> str:
    """The one number or formula of a sentence; the whole sentence when it has none, nothing when it has several."""
    spans = [next(g for g in match.groups() if g is not None) for match in MATH_SPAN.finditer(text)]
    numbers = _NUMBER.findall(MATH_SPAN.sub(" ", text))
    found = [span for span in spans if not re.fullmatch(r"\s*[a-zA-Z]\s*", span)] + numbers
    if not found:
        return text
    return found[0] if len(found) == 1 else ""
