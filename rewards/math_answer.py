r"""A reward for mathematics: 1.0 when the response's final answer is the reference answer, 0.0 when it is not.

    math_reward(completions=["... so it is \\boxed{\\frac12}."], solution=["0.5"])  ->  [1.0]

The response is judged by its final answer alone (mathematics/extract.py), compared with the reference as
mathematics (mathematics/equal.py). Text is never evaluated as Python. What would explode is refused by looking at it
and is wrong; what still takes too long is killed, and then the row has no verdict: None, or a timeout in a reward
worker.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from rewards.completions import completion_text, per_row
from rewards.mathematics.equal import Verdict, same_answer
from rewards.mathematics.extract import extract_answer, extract_gold


def math_reward(
    completions: Sequence[Any],
    solution: Any,
    *,
    allow_last_expression: bool = True,
    simplified: bool = False,
    timeout_s: float = 5.0,
    log_metric: Callable[[str, float], None] | None = None,
    log_extra: Callable[[str, list[Any]], None] | None = None,
    **columns: Any,
) -> list[float | None]:
    """1.0 right, 0.0 wrong, None where the reference is empty or no verdict came in time.

    Args:
        completions: responses, as text or message lists.
        solution: the reference of each row: an answer, a solution that ends with one, a number, or a list of
            answers any of which is right.
        allow_last_expression: whether a response that never states its answer may end with it instead.
        simplified: whether an answer with arithmetic left to do is wrong though it is equal.
        timeout_s: the longest that one comparison by sympy may take, in seconds.
    """
    verdicts = [
        judge_answer(
            completion_text(completion),
            gold,
            allow_last_expression=allow_last_expression,
            simplified=simplified,
            timeout_s=timeout_s,
        )
        for completion, gold in zip(completions, per_row("solution", solution, len(completions)), strict=True)
    ]
    _log(verdicts, log_metric, log_extra)
    return [None if verdict.right is None else float(verdict.right) for verdict in verdicts]


def judge_answer(
    response: str,
    gold: Any,
    *,
    allow_last_expression: bool = True,
    simplified: bool = False,
    timeout_s: float = 5.0,
) -> Verdict:
    """Whether a response's final answer is `gold`, and by which rule that was decided."""
    references = [extract_gold(text) for text in _references(gold)]
    references = [text for text in references if text.strip()]
    if not references:
        return Verdict(None, "no_reference")
    found = extract_answer(response, allow_last_expression=allow_last_expression)
    if not found.text.strip():
        return Verdict(False, found.rule)
    verdict = Verdict(False, "empty")
    for reference in references:
        verdict = same_answer(reference, found.text, simplified=simplified, timeout_s=timeout_s)
        if verdict.right:
            break
    return verdict


def unverifiable(solutions: Sequence[Any]) -> list[int]:
    """Rows whose reference is not even equal to itself in a box: fix or drop them before training."""
    return [
        row for row, gold in enumerate(solutions)
        if not judge_answer(rf"\boxed{{{next(iter(_references(gold)), '')}}}", gold).right
    ]  # fmt: skip


def _references(gold: Any) -> list[str]:
    if gold is None:
        return []
    if isinstance(gold, (list, tuple)):
        return [str(item) for item in gold if item is not None]
    if isinstance(gold, float) and gold.is_integer():
        return [str(int(gold))]
    return [str(gold)]


def _log(
    verdicts: Sequence[Verdict],
    log_metric: Callable[[str, float], None] | None,
    log_extra: Callable[[str, list[Any]], None] | None,
) -> None:
    if log_extra is not None:
        log_extra("math_rule", [verdict.rule for verdict in verdicts])
    if log_metric is not None and verdicts:
        rules = Counter(verdict.rule for verdict in verdicts)
        unread = sum(
            rules[rule] for rule in ("none", "hedge", "denied", "unfinished_thinking", "unfinished_box", "empty")
        )
        log_metric("math/no_answer", unread / len(verdicts))
        log_metric("math/refused", rules["refused"] / len(verdicts))
        log_metric("math/undecided", rules["timeout"] / len(verdicts))
