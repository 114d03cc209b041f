r"""Finds the final answer in a response.

One candidate, by the first rule that fires: the last `\boxed{}`, `#### x`, the last `<answer>` tag, the last answer
phrase ("the answer is ...", also in Chinese), the whole text where it is nothing but an answer, and, where allowed,
the expression that the response ends with. What comes before is never looked at again, right or wrong.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rewards.mathematics.ending import CHINESE_DENIAL, LISTED, ending, opening_choice
from rewards.mathematics.prose import MATH_SPAN, NOT_AN_ANSWER, reduce_prose, stated_answer
from rewards.mathematics.words import canonical_words

MAX_CHARS = 20_000  # of the end of a response; a final answer stands at the end
MAX_ANSWER_CHARS = 2_000

_THINK_OPEN = re.compile(r"<(think|thinking|thought|reasoning)>", re.I)
_THINK_CLOSE = re.compile(r"</(?:think|thinking|thought|reasoning)>", re.I)
_END_TOKEN = re.compile(
    r"<\|(?:im_end|im_start|endoftext|eot_id|end_of_text|end|user|system)\|>|</s>|<eos>|<end_of_turn>"
)
_SPECIAL = re.compile(r"[∎■□✓✔✅🎉]|<\|[^|<>\s]{1,40}\|>|</?s>|<pad>|<bos>|<｜[^｜<>]{1,40}｜>")
_HTML = re.compile(r"</?(?:b|i|em|strong|u|p|br|span|div|center)\b[^<>]{0,80}>", re.I)
_WIDE_STOP = re.compile(r"．(?!\d)")
_CALCULATOR = re.compile(r"<<[^<>\n]{0,80}>>")  # the notes of GSM8K's solutions
_BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![a-zA-Z])|(?<![a-zA-Z\\])boxed(?=\{)")
_BOX_GAP = re.compile(
    r"[\s$(){}\[\]\\]*(?:[\w$\\{}()=]+\s+){0,3}?[^.!?\n]{0,12}?(?:,|;|\band\b|\bor\b)[^.!?]{0,24}", re.S
)
_NOT_JOINED = re.compile(
    r"\b(?:so|then|but|wait|actually|instead|finally|hence|thus|therefore|no|not|final|step|now|get|is|"
    r"maybe|fails?|failed|works?|guess|tr(?:y|ied)|reflection|rather|later|next|after|gives|correct(?:ed|ing|ion)?|mistake|error|oops|sorry|revis\w+)\b",
    re.I,
)
# A box that shows a format, or is denied, is no answer.
_ONLY_MENTIONED = re.compile(
    r"(?:\b(?:for example|for instance|e\.g\.)[^.!?\n$]*|\bsuch as|\blike this|\bformat(?:ted)?(?: as| like| is)?|"
    r"\b(?:something|looks?) like|\bnot(?: equal to)?|\bnever|n't)[\s:,$\\(\[\"'`]*$",
    re.I,
)
_TAKEN_BACK = re.compile(r"[\s$.,)\]\\]*(?:(?:is|was)\s+(?:not\b|wrong|incorrect|false)|\?)", re.I)
_TAG = re.compile(r"[<\[]answer[>\]](.*?)(?:[<\[]/answer[>\]]|\Z)", re.S | re.I)
_ITALIC = re.compile(r"(?<!\w)_{1,2}((?:final |correct )?answers?[ ]?[:：]?)_{1,2}", re.I)  # of markdown
_HASHES = re.compile(r"####[ \t]*([^\n]+)")
_NOUN = r"(?:answer|result|solution|option|choice|conclusion)"
_PHRASE = re.compile(
    rf"""(?:
      (?:\b(?:final|correct|right)[ ])?(?:\b|(?<=_))(?:{_NOUN}s?|ans)\b\.?[*_"'\]\)]*
        (?:[ ](?:to|for|of|in|that)\b[^.,:\n=]{{0,60}}?)?\s*
        (?:\b(?:is|are|equals)\b|\b(?:would|should|must|will)[ ]be\b|=|:|：|->|→|⇒|\bas\b[ ]follows:?)[*_]*\s*[:：]?
    | ^\W{{0,4}}(?:final[ ])?\banswer[ ][–—][ ]
    | (?:最终)?答案】?(?:应该|应)?\s*(?:是|为|就是|等于)?\s*[:：]?
    | (?:结果|解|值)\s*(?:是|为|等于)\s*[:：]?
    | 选(?:择|项)?\s*[:：]?\s*(?=[(（]?(?-i:[A-J]))
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
    r"\**\(?([A-J])\)?\**\s+(?:is|are|as|would be|must be)\b(?:(?!\bnot\b|n't)[^.\n]){0,40}?"
    r"\b(?:correct|right|answer|true|best)|"
    r"^\(?([A-J])(?:\)|[.。:,])?\s*(?:不是|因为|非|(?:not|because|since|as|it|non)\b)",
    re.I,
)


@dataclass(frozen=True)
class Extracted:
    """A candidate answer and the rule that found it; `text` is empty when nothing was found."""

    text: str
    rule: str


def extract_answer(response: str, *, allow_last_expression: bool = True) -> Extracted:
    """The final answer of a response.

    Args:
        response: everything the model wrote.
        allow_last_expression: whether the expression that a response ends with may stand in for a stated answer.
    """
    text = after_thinking(response)
    if text is None:
        return Extracted("", "unfinished_thinking")
    text = _WIDE_STOP.sub("。", drop_special_tokens(text[-MAX_CHARS:])).strip()
    for rule in (_from_box, _from_hashes, _from_tag, _from_phrase, _verdict, _whole_text):
        found = rule(text)
        if found is not None:
            return found
    return Extracted(*ending(text)) if allow_last_expression else Extracted(*opening_choice(text))


def extract_gold(gold: str) -> str:
    """The answer in a dataset's reference: an answer already, or a solution that ends with one."""
    text = drop_special_tokens(gold[-MAX_CHARS:]).strip()
    rules = (_from_box, _from_hashes, _from_tag, _from_phrase if len(text) > 40 or "answer is" in text else _nothing)
    for rule in rules:
        found = rule(text)
        if found is not None and found.text:
            return found.text
    opened = _BOX.search(text)
    return text[opened.end() :].lstrip(" {") if opened and boxes(text)[-1][2] is None else text


def after_thinking(text: str) -> str | None:
    """What follows the last closed thinking part; None when thinking was never closed."""
    end = 0
    for match in _THINK_CLOSE.finditer(text):
        end = match.end()
    if _THINK_OPEN.search(text, end):
        return None
    return text[end:]


def drop_special_tokens(text: str) -> str:
    """The text up to the first end-of-turn token that follows any words, without other special tokens."""
    for match in _END_TOKEN.finditer(text):
        if _SPECIAL.sub("", text[: match.start()]).replace("assistant", "").strip():
            text = text[: match.start()]
            break
    return _ITALIC.sub(r"\1", _CALCULATOR.sub("", _HTML.sub("", _SPECIAL.sub("", text))))


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


def _from_box(text: str) -> Extracted | None:
    found = boxes(text)
    if not found:
        return None
    if found[-1][2] is None:
        return Extracted("", "unfinished_box")
    if _ONLY_MENTIONED.search(text[max(0, found[-1][0] - 40) : found[-1][0]]) or _TAKEN_BACK.match(
        text[found[-1][1] :]
    ):
        return Extracted("", "mentioned")
    phrase = _from_phrase(text[found[-1][1] :])
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


_LEAD = re.compile(r"^\\text\s*\{[^{}]*\b(?:is|are)\s*:?\s*\}\s*(?=\S)")


def _spoken(content: str) -> str:
    r"""What a sentence in a box says: \text{The answer is 7} says 7."""
    sentence = re.fullmatch(r"\\text\s*\{([^{}]*\bis\b[^{}]*\d[^{}]*)\}", content)
    return reduce_prose(sentence.group(1)) if sentence else _LEAD.sub("", content)


def _from_hashes(text: str) -> Extracted | None:
    matches = _HASHES.findall(text)
    if not matches or re.match(r"[A-Za-z\s]{12,}", matches[-1]):  # a markdown heading
        return None
    return Extracted(matches[-1].strip(), "hashes")


def _from_tag(text: str) -> Extracted | None:
    matches = _TAG.findall(text)
    if not matches:
        return None
    inner = matches[-1].strip()
    phrase = _from_phrase(inner)
    return Extracted(phrase.text if phrase else reduce_prose(inner), "tag")


_ANSWER_AFTER = re.compile(  # so 6 is the answer
    r"(?<![\w,./])((?:\$[^$\n]{1,200}\$|\\\(.+?\\\)|[-\u2212]?\$?\d[\d,./]{0,30})"
    r"(?:\s*%|\s[a-z]+)?|(?<=[ ])(?!This|That|It|Which|Here|What)[A-Z][a-z]+)\s+(?:is|as)\s+(?:the|our|my)\s+(?:final\s+|correct\s+|only\s+)?(?:answer|solution|(?<=as the )(?:result|total|value))\b|"
    r"(?:^|\n|(?<=[.!]\s))(\$?-?\d[\d,./]*\$?)\s+is\s+correct\s*[.!]?\s*$"
)


_UNSURE = re.compile(
    r"\b(?:not (?:so |very )?(?:sure|certain|convinced|clear)|unsure|doubt|unlikely|(?:don't|do not) (?:think|believe))\b[^.!?\n]*$",
    re.I,
)
_NONE_OF = re.compile(r"\b(?:no|without)\s+(?:[a-z]+\s+)?$", re.I)  # there are no solutions for x = 5


def _from_phrase(text: str) -> Extracted | None:
    before = next(reversed(list(_ANSWER_AFTER.finditer(text))), None)
    choice = next(reversed(list(_CHOICE_PROSE.finditer(text))), None)
    if choice is not None and choice.group(2) and LISTED.search(text, choice.end()):
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
    return Extracted(choice.group(1) or choice.group(2), "choice_phrase") if choice else None


_CORRECTION = re.compile(r"(?:[.!?—]|\n)\s*(?:wait|hmm|actually|oops|sorry|correction|no),?\b(.*)", re.I | re.S)


def _is_corrected(candidate: str, rest: str) -> bool:
    """Whether second thoughts follow an answer and end with another number: "It is 23. Wait, no, it's 29." """
    correction = _CORRECTION.search(rest)
    numbers = re.findall(r"\d[\d.,/]*(?<=\d)", correction.group(1)) if correction else []
    return bool(numbers) and numbers[-1] not in candidate


def _verdict(text: str) -> Extracted | None:
    """The word that a short response opens with: "No, because 7 is odd"."""
    match = _OPENING_LINE.match(text)
    if match is None and len(text) < 400 and "\n\n" not in text:
        match = _OPENING_WORD.match(text)
    return Extracted(match.group(1), "verdict") if match else None


_OPENING_LINE = re.compile(r"[\W_]{0,4}((?i:yes|no|true|false)|[A-J](?=[)*_.!]{0,3}\n))[)*_.!]{0,3}\s*\n\s*\n")
_OPENING_WORD = re.compile(r"[\W_]{0,4}(yes|no|true|false)[*_]{0,2}[,.;:!](?=\s|$)", re.I)


def _whole_text(text: str) -> Extracted | None:
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
    counted = _COUNTED_ALONE.fullmatch(text)
    if counted and (canonical_words(counted.group(1)) or "").isdigit() and not re.search(r"\d", canonical_words(text) or ""):
        return Extracted(canonical_words(counted.group(1)) or "", "whole")
    text = _NUMBER_GLOSSED.sub(r"\1", _REPLY.sub("", text))
    if len(LISTED.findall(text)) > 1:
        return Extracted("", "none")  # A: 3, B: 4
    winner = _WINNER.fullmatch(text)
    if winner:
        return Extracted(winner.group(1), "whole")
    said = _SAYS_WORD.fullmatch(re.sub(r"\*\*(\w+)(\.?)\*\*(?=\.?$)", r"\1\2", text))
    return Extracted(said.group(1) if said else text, "whole") if looks_like_answer(text) else None


_COUNTED = re.compile(
    r"(?:(?:Hence|Thus|So|Therefore),? )?(?:[Tt]here (?:are|is|were)|[Ww]e (?:get|have)) (?:exactly )?([a-z]+(?:-[a-z]+)?)"
    r"(?: of (?:them|these|those)| [a-z]+)?\."
)
_ALIGNED = re.compile(  # one derivation line by line
    r"(?:\\\[|\$\$)?\s*\\begin\{(?:aligned|align\*?)\}((?:\s*[^&\\=<>]*&?\s*=[^&=<>]*?\\\\)(?:\s*&\s*=[^&=<>]*?\\\\)*\s*&\s*=[^&=<>]*)"
    r"\\end\{(?:aligned|align\*?)\}\s*(?:\\\]|\$\$)?[\s.]*", re.S
)
_COUNTED_ALONE = re.compile(r"([A-Za-z]+(?:-[a-z]+)?) [a-z]{2,}s\.?")  # five apples
_STEPS = re.compile(  # 3x = 108, below it x = 36
    r"(?:\\\[|\$\$)?\s*\\begin\{(?:aligned|align\*?)\}\s*[^&\\=<>]*[\d+*/^-][^&\\=<>]*&?\s*=(?:[^=<>]*=){0,9}[^=<>]*?\\\\"
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
    r"(?:(?:So|Thus|Hence|Therefore),?\s)?(?:[Tt]he|[Tt]his|[Tt]hat|[Ii]t|[Hh]e|[Ss]he)(?:\s(?:[a-z]+\s){0,3}|(?='s))(?:(?:'s|is|is\s(?:facing|heading|going)|will\sbe|(?:falls|lands)\son)\s(?:an?\s)?(?=\w+\.|(?:not|neither)\s)|(?=(?:con|di)verges))"
    r"((?:not\s|neither\s)?[A-Za-z]+)\."
)  # The function is even.
_SENTENCE_WORDS = re.compile(
    r"\b(?:so|then|thus|hence|we|it|is|the|let|therefore|get|gives|now|are|there|this|that|which|must|should|will|be|I'd|I'll|I'm)\b", re.I
)


_BEGINS_IN_WORDS = re.compile(
    r"(?!(?:sqrt|sin|cos|tan|log|ln|exp|pi|all|any|real|infinity|two|undefined|minus|negative)\b)(?:[AaI]\s+)?[A-Za-z]{2,}[a-z]*,?\s+(?![=<>])"
)
_CHINESE_SENTENCE = re.compile(
    r"^[\u4e00-\u9fff].*\d|[\u4e00-\u9fff]{2,}[，,。][\u4e00-\u9fff]|[\u4e00-\u9fff]{3,}.*\d"
)


def looks_like_answer(text: str) -> bool:
    """Whether a text is an answer and not prose: few words beside its mathematics."""
    bare = re.sub(r"\\(?:text|mathrm|textbf|mbox|operatorname|begin|end)\s*\{[^{}]*\}", " ", text)
    bare = re.sub(r"\\[a-zA-Z]+", " ", bare)
    words = re.findall(r"[^\W\d_]{2,}", bare)
    has_math = bool(re.search(r"[\d\\$]", text))
    return len(words) <= (3 if has_math else 4) and not re.search(r"[?!]|\b[a-z]+\.\s+[A-Z]", text)


def _nothing(text: str) -> Extracted | None:
    return None
