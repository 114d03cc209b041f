"""For your own tests: does a reward function keep the contract, whatever it is fed?

from rewards.testing import check_reward

def test_my_reward_keeps_the_contract():
    check_reward(my_reward, columns={"solution": ["42"]})
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

from rewards.registry import RewardFn, required_columns
from rewards.worker_process import Caller, CallLog

HOSTILE_TEXTS: Mapping[str, str] = {
    "empty": "",
    "blank": " \n\t",
    "plain": "The answer is 42.",
    "huge": "9" * 100_000,
    "truncated": "<think>First I would comp",
    "unclosed box": r"so it is \boxed{\frac{1}{2",
    "deep brackets": "(" * 10_000 + ")" * 10_000,
    "tower of powers": r"\boxed{9^{9^{9^{9^{9}}}}}",
    "unicode": "答案是 ½ ≤ π² — “ok” \u202e\u200b🙂",
    "control characters": "a\x00b\x1b[31mc\ud7ff",
    "not a number": "NaN, Infinity, -inf, 1e999",
    "code": "__import__('os').system('true')",
    "html": "<box>[[nan, 1e999, -5, 0]]</box>",
    "special tokens": "<|im_start|>assistant<|im_end|>",
}


def check_reward(
    fn: RewardFn,
    columns: Mapping[str, Sequence[Any]] | None = None,
    *,
    conversational: bool | None = None,
    value_range: tuple[float, float] | None = None,
) -> None:
    """Feed empty, huge, truncated, hostile and unicode text and check what comes back.

    Args:
        fn: a reward function, sync or async.
        columns: one or more values of each dataset column that `fn` needs; they are repeated as needed.
        conversational: whether completions are message lists (True), strings (False) or both in turn (None).
        value_range: (low, high), inclusive, that every value must lie in.

    Raises:
        AssertionError: says which text, which value and which rule.
    """
    columns = columns or {}
    missing = sorted(required_columns(fn) - set(columns))
    assert not missing, f"the reward needs the columns {missing}: pass columns={{name: [value], ...}}"
    for as_messages in (False, True) if conversational is None else (conversational,):
        texts = list(HOSTILE_TEXTS.values())
        alone = [_call(fn, [text], columns, as_messages, name)[0] for name, text in HOSTILE_TEXTS.items()]
        together = _call(fn, texts, columns, as_messages, "all texts at once", offset=0)
        for name, value in zip(HOSTILE_TEXTS, [*together, *alone]):
            _check_value(name, value, value_range)
        assert _call(fn, [], columns, as_messages, "no completion at all") == []
        again = _call(fn, texts, columns, as_messages, "all texts once more", offset=0)
        assert again == together, f"the same completions scored differently: {together} and {again}"


def _call(
    fn: RewardFn, texts: list[str], columns: Mapping[str, Sequence[Any]], as_messages: bool, name: str, offset: int = 0
) -> list[Any]:
    kwargs: dict[str, Any] = {
        column: [values[i % len(values)] for i in range(len(texts))] for column, values in columns.items()
    }
    kwargs["prompts"] = [[{"role": "user", "content": "q"}] if as_messages else "q" for _ in texts]
    kwargs["completions"] = [[{"role": "assistant", "content": t}] if as_messages else t for t in texts]
    kwargs |= {"completion_ids": [[1, 2, 3] for _ in texts], "trainer_state": None}
    log = CallLog([3 for _ in texts])
    kwargs |= {"log_extra": log.log_extra, "log_metric": log.log_metric, "log_partial": log.log_partial}
    accepted = Caller(fn).accepted
    kwargs = {key: value for key, value in kwargs.items() if accepted is None or key in accepted}
    try:
        values = fn(**kwargs)
        values = asyncio.run(values) if inspect.iscoroutine(values) else values
    except Exception as error:
        raise AssertionError(f"the reward raised on {name}: {type(error).__name__}: {error}") from error
    assert isinstance(values, (list, tuple)), f"the reward returned {type(values).__name__}, not a list, on {name}"
    assert len(values) == len(texts), f"the reward returned {len(values)} values for {len(texts)} completions on {name}"
    return list(values)


def _check_value(name: str, value: Any, value_range: tuple[float, float] | None) -> None:
    if value is None:
        return
    assert isinstance(value, (int, float)), f"the value on {name} is {type(value).__name__}, not a number or None"
    assert math.isfinite(value), f"the value on {name} is {value}"
    if value_range is not None:
        low, high = value_range
        assert low <= value <= high, f"the value on {name} is {value}, outside [{low}, {high}]"
