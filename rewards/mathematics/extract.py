r"""Finds the final answer in a response.

One candidate, by the first rule that fires: the last `\boxed{}`, `#### x`, the last `<answer>` tag, the last answer
phrase ("the answer is ...", also in Chinese), the whole text where it is nothing but an answer, and, where allowed,
the expression that the response ends with. What comes before is never looked at again, right or wrong.
"""

from __future__ import annotations

import re

from rewards.mathematics.boxes import from_box, in_open_box
from rewards.mathematics.ending import ending, opening_choice
from rewards.mathematics.extracted import Extracted
from rewards.mathematics.phrase import from_phrase
from rewards.mathematics.prose import reduce_prose
from rewards.mathematics.whole import opening_verdict, whole_text

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
_GAP = re.compile(r"\s{3,}")  # patterns that begin with spaces take quadratic time in a long one
_CALCULATOR = re.compile(r"<<[^<>\n]{0,80}>>")  # the notes of GSM8K's solutions
_TAG = re.compile(r"[<\[]answer[>\]](.*?)(?:[<\[]/answer[>\]]|\Z)", re.S | re.I)
_ITALIC = re.compile(r"(?<!\w)_{1,2}((?:final |correct )?answers?[ ]?[:：]?)_{1,2}", re.I)  # of markdown
_HASHES = re.compile(r"####[ \t]*([^\n]+)")


def extract_answer(response: str, *, allow_last_expression: bool = True) -> Extracted:
    """The final answer of a response.

    Args:
        response: everything the model wrote.
        allow_last_expression: whether the expression that a response ends with may stand in for a stated answer.
    """
    text = after_thinking(response)
    if text is None:
        return Extracted("", "unfinished_thinking")
    text = _GAP.sub(_shorter, _WIDE_STOP.sub("。", drop_special_tokens(text[-MAX_CHARS:]))).strip()
    for rule in (from_box, _from_hashes, _from_tag, from_phrase, opening_verdict, whole_text):
        found = rule(text)
        if found is not None:
            return found
    return Extracted(*ending(text)) if allow_last_expression else Extracted(*opening_choice(text))


def _shorter(gap: re.Match[str]) -> str:
    return "\n\n" if "\n" in gap.group() else "  "


def extract_gold(gold: str) -> str:
    """The answer in a dataset's reference: an answer already, or a solution that ends with one."""
    text = drop_special_tokens(gold[-MAX_CHARS:]).strip()
    rules = (from_box, _from_hashes, _from_tag, from_phrase if len(text) > 40 or "answer is" in text else _nothing)
    for rule in rules:
        found = rule(text)
        if found is not None and found.text:
            return found.text
    return in_open_box(text) or text


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
    phrase = from_phrase(inner)
    return Extracted(phrase.text if phrase else reduce_prose(inner), "tag")


def _nothing(text: str) -> Extracted | None:
    return None
