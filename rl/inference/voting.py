"""Which responses give the same answer, and what a majority of them says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from rewards.mathematics.equal import same_answer
from rewards.mathematics.extract import extract_answer
from rollouts.pacore import most_frequent

_SLOW_S = 5.0  # for two answers that only sympy can compare

Equality = Literal["math", "text"]


def answer_classes(
    responses: Sequence[str], conclusions: Sequence[str], *, equality: Equality, slow_s: float = _SLOW_S
) -> list[int | None]:
    r"""A number for each response, equal for equal answers; None where a response has no answer and does not vote.

    Args:
        responses: whole responses, thoughts included.
        conclusions: their compacted messages.
        equality: math compares final answers as the math reward does, so that 1/2, 0.5 and \frac{1}{2} are one
            answer; text compares conclusions letter by letter.
        slow_s: seconds for two answers that only sympy can compare; 0: they count as different.
    """
    if equality == "math":
        answers = [extract_answer(response).text.strip() for response in responses]
    else:
        answers = [conclusion.strip() for conclusion in conclusions]
    representatives: list[str] = []
    known: dict[str, int] = {}
    for answer in answers:
        if answer and answer not in known:
            known[answer] = _class_of(answer, representatives, equality, slow_s)
    return [known.get(answer) for answer in answers]


def _class_of(answer: str, representatives: list[str], equality: Equality, slow_s: float) -> int:
    """The first class whose representative is the same answer, else a new one."""
    if equality == "math":
        for index, representative in enumerate(representatives):
            if same_answer(representative, answer, timeout_s=slow_s).right:
                return index
    representatives.append(answer)
    return len(representatives) - 1


def elected_message(messages: Sequence[str]) -> int:
    """The place of the message that a majority elects: equal as mathematics, letter by letter where none has an answer.

    Answers that only sympy could compare count as different: this is asked for every prompt.
    """
    classes = answer_classes(messages, messages, equality="math", slow_s=0.0)
    return winner(classes) if any(number is not None for number in classes) else most_frequent(messages)


def winner(classes: Sequence[int | None]) -> int:
    """Index of the response that a vote elects: the first of the largest class, of several the one that came first.

    0 where none has an answer.
    """
    counts = Counter(number for number in classes if number is not None)
    if not counts:
        return 0
    most = max(counts.values())
    return next(i for i, number in enumerate(classes) if number is not None and counts[number] == most)
