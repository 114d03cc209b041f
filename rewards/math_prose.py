r"""Answers that stand in sentences: what follows "the answer is", and what a response ends with."""

from __future__ import annotations

import re

NOT_AN_ANSWER = re.compile(
    r"(?:helpful|correct|right|wrong|clear|above|below|as follows|in the form|not\b|given\b|unknown\b|"
    r"therefore\b|that\b|found\b|obtained\b|what\b|based\b|incorrect|to\s+(?:find|the)|your\b|here\b)",
    re.I,
)
_SENTENCE_END = re.compile(r"(?<=[^\s.])[.。!！?？](?=\s+[^\d\s]|\s*$)|(?<=[^\d\s])[.。](?=\s)|[。]|\bI hope\b|\n\s*\n")
MATH_SPAN = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+?)\$|\$\n([^$]{1,2000}?)\n\$|"
    r"\$([^$]{0,2000}?\\begin\{[^$]{1,2000}?)\$|\\\[(.+?)\\\]|\\\((.+?)\\\)", re.S)
_SPAN_JOIN = re.compile(r"\s*(?:,|;|\band\b|\bor\b|, and|, or)\s*")
_HEDGE = re.compile(
    r"\b(?:either|maybe|perhaps|possibly|might|could be|not sure|guess)\b|\?|"
    r"^\W*(?:if|unless|let|suppose|assume|given)\b",
    re.I,
)
_AFTERTHOUGHT = re.compile(
    r"\s*(?:[,;]?\s*(?:because|since)\b|,\s*(?:not|which|as|so|where|but|it|and (?:we|this|it|so))\b).*$|[,，]\s*(?:而)?(?:不是|非).*$|"
    r"\s+\([^()]*[a-zA-Z]{3,}[^()]*\)$",
    re.I | re.S,
)
_LEAD_IN = re.compile(
    r"^(?:for sure|definitely|certainly|surely|approximately|about|around|roughly|exactly|simply|just|therefore|thus|then|indeed|clearly|now)\b[,:\s]*", re.I
)
_NUMBER = re.compile(r"[-+]?[$€£]?\d[\d,]*(?:\.\d+)?(?:/\d+)?(?:\s*\\?%)?")
_CONCLUSION = re.compile(
    r"\W*(?:therefore|thus|hence|so|in total|in conclusion|finally|consequently|altogether)\b", re.I
)
_ENDING = re.compile(
    r"(?:^|[\s=:(（$€£¥*_\u4e00-\u9fff])"
    r"([-−+]?[$€£¥]?\\?[$]?(?:\d*√\(?\d+\)?|\d[\d,. ]*\d|\d|\.\d+|\\frac\s*\{[^{}]*\}\s*\{[^{}]*\})(?:\s*/\s*\d+)?"
    r"(?:\s*(?:\\?%|°|[a-zA-Z²³$€]+(?:\^?\d)?)){0,3}[万亿]?|[(\[][^()\[\]$]{0,60}?\d[^()\[\]$]{0,60}[)\]])"
    r"\s*[\u4e00-\u9fff]{0,12}[.。!*)_\s]*$"
)
_DENIED = re.compile(r"\b(?:not|never|isn't|wasn't|cannot be|can't be)(?:\s+(?:equal to|exactly|simply))?[\s$(*]*$", re.I)
_COMPUTED = re.compile(  # 48 + 24 = 72 clips in April and May
    r"[\d)]\s*[-−+*/×÷]\s*[$(]*[\d.][^=]{0,80}=\s*([$€£¥]?\d[\d,]*(?:\.\d+)?(?:/\d+)?)(?:[\s\u0080-\uffff][^\d=$\\]*)?\W*$"
)
_BOLD = re.compile(r"\*\*\s*([^*\n]{0,80}?\d[^*\n]{0,40}?)\s*\*\*[^\d$\\*]{0,40}$")
_GLOSSED = re.compile(  # the minimum is $3$ when $a=1$ and $b=2$
    r"^(.*\b(?:is|are|equals)\s+(?:\$[^$]+\$|\\\(.+?\\\)))\s*,?\s+(?:when|where|at|if|for|since|because|attained|achieved)\b.*$",
    re.S,
)


def stated_answer(rest: str) -> str:
    """The answer at the start of `rest`: adjoining math spans, or the words up to the end of the sentence."""
    rest = rest.lstrip(" \t\n*_:：\"'\\" if rest.lstrip(" *_:：").startswith(('\\"', '"')) else " \t\n*_:：")
    if NOT_AN_ANSWER.match(rest):
        return ""
    spans = _leading_spans(rest)
    if spans:
        return spans
    line = rest.split("\n", 1)[0]
    end = _SENTENCE_END.search(line)
    sentence = line[: end.start()] if end else line
    if end and end.group() in "?？":
        return ""
    return reduce_prose(sentence)


def _leading_spans(rest: str) -> str:
    parts = []
    position = 0
    tail = ""
    while (match := MATH_SPAN.match(rest, position)) is not None:
        parts.append(next(g for g in match.groups() if g is not None))
        position = match.end()
        joint = _SPAN_JOIN.match(rest, position)
        after = re.match(
            r"\s*(?:\\?%|(?:percent|degrees|hundred|thousand|million|billion|trillion|dozen)\b)", rest[position:]
        )
        tail = after.group() if after else ""
        if joint is None or not MATH_SPAN.match(rest, joint.end()):
            break
        position = joint.end()
    more = re.match(r"[ ]*[^\s.,;:!?\n]", rest[position:])
    if parts and more and not tail and re.match(r"\s*[A-Za-z]", rest[position:]) is None:
        return ""  # the span is only the beginning, as in "$100 and $200"
    return " , ".join(parts) + tail


def reduce_prose(sentence: str) -> str:
    """The answer in a sentence such as "the largest n is 34", "**x = 5** apples" or "she needs 12 eggs"."""
    text = sentence.strip().strip("*_` ").strip()
    text = _AFTERTHOUGHT.sub("", _LEAD_IN.sub("", text)).strip().strip("\"'}* ") or text
    pieces = re.split(
        r"\b(?:is|are|equals|be|was|were)\b(?:\s+(?:equal\s+to|approximately|exactly|therefore|thus|just))*\s*:?|(?<!不)是|等于", text
    )
    last = pieces[-1].strip()
    if len(pieces) > 1 and last and re.search(r"[\d\\$]|^\(?[a-zA-Z]\)?$", last):
        return _leading_spans(last) or (last if _is_short(last) else _only_number(last))
    return text if _is_short(text) else _only_number(text)


def _is_short(text: str) -> bool:
    return len(re.findall(r"[A-Za-z]{2,}", re.sub(r"\\[a-zA-Z]+|\$[^$]*\$|\{[^{}]*\}", " ", text))) <= 3


def _only_number(text: str) -> str:
    """The one number or formula of a sentence; the whole sentence when it has none, nothing when it has several."""
    spans = [next(g for g in match.groups() if g is not None) for match in MATH_SPAN.finditer(text)]
    numbers = _NUMBER.findall(MATH_SPAN.sub(" ", text))
    found = [span for span in spans if not re.fullmatch(r"\s*[a-zA-Z]\s*", span)] + numbers
    if not found:
        return text
    return found[0] if len(found) == 1 else ""


def ending(text: str) -> tuple[str, str]:
    """(what the response ends with, by which rule); nothing if it breaks off, hedges, or ends in words."""
    text = re.sub(r"\s*I hope[^.]*\.?\s*$", "", text)
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        return ("", "none")
    last = " ".join(lines[-3:]) if re.match(r"\s*(?:\\\]|\$\$)\s*$", lines[-1]) else lines[-1]
    sentence = re.split(r"(?<=[^\d\s][.!?])\s+|(?<=\d[.!?])\s+(?=[A-Z])", last.strip())[-1]
    if _HEDGE.search(re.sub(r"\$[^$]*\$", "", sentence)):
        return ("", "hedge")
    sentence = _GLOSSED.sub(r"\1", sentence)
    spans = list(MATH_SPAN.finditer(sentence))
    if spans and _DENIED.search(sentence[: spans[-1].start()]):
        return ("", "denied")
    if spans:
        tail = sentence[spans[-1].end() :]
        if len(tail.split()) <= 6 and not re.search(r"\d", tail):
            parts = [next(g for g in spans[-1].groups() if g is not None)]
            for earlier, later in zip(spans[-2::-1], spans[::-1]):
                if not _SPAN_JOIN.fullmatch(sentence[earlier.end() : later.start()]):
                    break
                parts.insert(0, next(g for g in earlier.groups() if g is not None))
            after = re.match(r"\s*(?:\\?%|percent|pct)", tail)
            return (" , ".join(parts) + (after.group() if after else ""), "last_expression")
    bold = _BOLD.search(sentence)
    if bold and not _DENIED.search(sentence[: bold.start()]):
        return (reduce_prose(bold.group(1)), "last_expression")
    match = _ENDING.search(sentence)
    if match and _DENIED.search(sentence[: match.start(1)]):
        return ("", "denied")
    match = match or _COMPUTED.search(sentence)
    if match:
        return (match.group(1).strip(), "last_expression")
    conclusion = _CONCLUSION.match(sentence)
    number = (
        _only_number(sentence[conclusion.end() :])
        if conclusion and sentence.rstrip().endswith((".", "!", "。"))
        else ""
    )
    return (number, "conclusion") if re.search(r"\d", number) else ("", "none")
