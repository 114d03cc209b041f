"""The answer that a sentence announces: "the answer is ...", "so 6 is the answer", "B is correct"; also in Chinese."""

from __future__ import annotations

import re

from rewards.mathematics.ending import LISTED
from rewards.mathematics.extracted import Extracted
from rewards.mathematics.prose import NOT_AN_ANSWER, reduce_prose, stated_answer

_NOUN = r"(?:answer|result|solution|option|choice|conclusion)"
_PHRASE = re.compile(
    rf"""(?:
      (?:\b(?:final|correct|right)[ ])?(?:\b|(?<=_))(?:{_NOUN}s?|ans)\b\.?[*_"'\]\)]*
        (?:[ ](?:to|for|of|in|that)\b[^.,:\n=]{{0,60}}?)?\s*
        (?:\b(?:is|are|equals)\b|\b(?:would|should|must|will)[ ]be\b|=|:|：|->|→|⇒|\bas\b[ ]follows:?)[*_]*\s*[:：]?
    | ^\W{{0,4}}(?:final[ ])?\banswer[ ][–—][ ]
    | (?:最终)?答案】?(?:应该|应)?\s*(?:是|为|就是|等于)?\s*[:：]?
    | (?:结果|解|值)\s*(?:是|为|等于)\s*[:：]?
    | (?<!不)选(?:择|项)?\s*[:：]?\s*(?=[(（]?(?-i:[A-J]))
    | \bit[ ](?:must|should|has[ ]to)[ ]be[ ]+(?=\(?(?-i:[A-J])\)?(?:[,.]|\s*\Z))
    | \b(?:so|thus|hence|therefore)[, ]+(?=\(?(?-i:[A-J])\)?[.!]*\s*\Z)
    | \b(?:choose|select|pick)[ ](?:option|choice|answer)?
    | \b(?:réponse|respuesta|resposta|antwort|risposta)(?:[ ](?:finale?|correcta?))?\s*(?:est|es|é|è|ist|:)\s*:?
    | 答え\s*(?:は|:|：)
    | ^答\s*[:：](?=[^\u4e00-\u9fff]*\d)
    | (?:正确)?(?:选项|选择)\s*(?:是|为)\s*
    | \b(?:I(?:[ ]would|'d|'ll|[ ]will)?[ ](?:say|go[ ]with|pick|choose)|my[ ](?:choice|pick)[ ]is)[ ]+
      (?:(?:option|choice|answer)[ ])?(?=\(?(?-i:[A-J])\)?(?:[ ]here)?\W*$)
    | ^\W{{0,4}}ans\.[ ](?=[-$(\\]*\d)
    | \banswer[ ](?=[(]?[A-J][).\s])
    | \banswer[ ]*(?=\$|\\\(|\\\[)
    | ^\W{{0,12}}(?:final[ ])?answer\W{{0,6}}\n
    | \b(?:think|so|thus|hence|therefore)[ ,]+(?:it's|it[ ]is|it[ ]must[ ]be)[ ]+(?=\(?[A-J]\)?\W*$)
    )[ \t*_]*""",
    re.X | re.I | re.M,
)
_WEAK_PHRASE = re.compile(r"\W*(?:result|solution|conclusion|option|choice|结果|解|值)", re.I)
_MAX_AFTER_WEAK = 400  # characters: "the solution is ..." far above the end is a step on the way
_CHOICE_PROSE = re.compile(
    r"(?:\b(?:option|choice|answer|statement)\s*\**|^|\b(?:so|thus|hence|therefore|believe|think)[, ]+|,[ ]+)"
    r"\**\(?([A-J])\)?\**\s+(?:is|are|as|would be|must be)\b(?:(?!\bnot\b|n't|\bfalse\b|\bincorrect\b|\bwrong\b)[^.\n]){0,40}?"
    r"\b(?:correct|right|answer|true|best)|"
    r"^\W*(?:(?:so|thus|hence|therefore),?\s+)?only\s+\(?([A-J])\)?\s+(?:is|holds|works|fits|satisfies)\b|"
    r"^\(?([A-J])(?:\)|[.。:,])?\s*(?:不是|因为|非|(?:not|because|since|as|it|non)\b)",
    re.I,
)
_ANSWER_AFTER = re.compile(  # so 6 is the answer
    r"(?<![\w,./])((?:\$[^$\n]{1,200}\$|\\\(.+?\\\)|[-\u2212]?\$?\d[\d,./]{0,30})"
    r"(?:\s*%|\s[a-z]+)?|(?<=[ ])(?!This|That|It|Which|Here|What)[A-Z][a-z]+)\s+(?:is|as)\s+(?:the|our|"
    r"my)\s+(?:final\s+|correct\s+|only\s+)?(?:answer|solution|(?<=as the )(?:result|total|value))\b|"
    r"(?:^|\n|(?<=[.!]\s))(\$?-?\d[\d,./]*\$?)\s+is\s+correct\s*[.!]?\s*$"
)
_UNSURE = re.compile(
    r"\b(?:not (?:so |very )?(?:sure|certain|convinced|clear)|unsure|doubt|unlikely|(?:don't|do not) (?:think|"
    r"believe))\b[^.!?\n]*$",
    re.I,
)
_NONE_OF = re.compile(r"\b(?:no|without|one|another)\s+(?:[a-z]+\s+)?$", re.I)  # there are no solutions for x = 5
_CORRECTION = re.compile(r"(?:[.!?—]|\n)\s*(?:wait|hmm|actually|oops|sorry|correction|no),?\b(.*)", re.I | re.S)


def from_phrase(text: str) -> Extracted | None:
    before = next(reversed(list(_ANSWER_AFTER.finditer(text))), None)
    choice = next(reversed(list(_CHOICE_PROSE.finditer(text))), None)
    if choice is not None and choice.group(3) and LISTED.search(text, choice.end()):
        choice = None  # A. It rises; B. It falls
    for match in reversed(list(_PHRASE.finditer(text))):
        if choice is not None and choice.end() > match.end():
            break
        if _WEAK_PHRASE.match(match.group()) and len(text) - match.end() > _MAX_AFTER_WEAK:
            continue
        if before is not None and before.end() > match.start():
            break
        lead = text[max(0, match.start() - 60) : match.start()]
        if _UNSURE.search(lead):
            return Extracted("", "hedge")
        if _NONE_OF.search(lead):
            continue
        candidate = stated_answer(text[match.end() :])
        if candidate and not NOT_AN_ANSWER.match(candidate):
            is_kept = not _is_corrected(candidate, text[match.end() :])
            return Extracted(candidate, "phrase") if is_kept else Extracted("", "hedge")
    if before is not None:
        return Extracted(reduce_prose(before.group(1) or before.group(2)), "phrase")
    return Extracted(next(filter(None, choice.groups())), "choice_phrase") if choice else None


def _is_corrected(candidate: str, rest: str) -> bool:
    """Whether second thoughts follow an answer and end with another number: "It is 23. Wait, no, it's 29." """
    correction = _CORRECTION.search(rest)
    numbers = re.findall(r"\d[\d.,/]*(?<=\d)", correction.group(1)) if correction else []
    return bool(numbers) and numbers[-1] not in candidate
