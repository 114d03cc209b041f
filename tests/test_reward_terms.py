"""Format, length, repetition and language terms, and the checker for users' own tests."""

import math

import pytest

from rewards import load_reward
from rewards.testing import HOSTILE_TEXTS, check_reward


def score(name: str, completions: list[str], args: dict | None = None, **columns) -> list[float | None]:
    return load_reward(name, **(args or {}))(prompts=[""] * len(completions), completions=completions, **columns)


def test_the_default_format_is_one_closed_thinking_part_and_an_answer():
    texts = [
        "<think>a\nb</think>\nc",
        "c",
        "<think>a",
        "<think>a</think>",
        "<think>a</think>b<think>c</think>d",
        "<think></think>x",
    ]
    assert score("format", texts) == [1.0, 0.0, 0.0, 0.0, 0.0, 1.0]


def test_the_format_is_any_regular_expression_over_the_whole_text():
    args = {"pattern": r"<answer>\d+</answer>", "right": 0.5, "wrong": -0.5}
    assert score("format", ["<answer>12</answer>", "so <answer>12</answer>"], args) == [0.5, -0.5]


def test_soft_overlong_falls_linearly_over_the_buffer():
    # free up to 80 tokens; -1/2 in the middle of the buffer; -1 from 100 on
    ids = [[0] * n for n in (0, 80, 90, 100, 500)]
    args = {"max_tokens": 100, "buffer_tokens": 20}
    assert score("soft_overlong", ["x"] * 5, args, completion_ids=ids) == [0.0, 0.0, -0.5, -1.0, -1.0]
    with pytest.raises(ValueError, match="buffer_tokens 0"):
        load_reward("soft_overlong", max_tokens=10, buffer_tokens=0)


def test_repetition_is_the_share_of_ngrams_seen_before():
    # bigrams of "a b a b a": ab ba ab ba: 2 of 4 repeat
    assert score("repetition", ["a b a b a", "a b c d", "a", ""], {"ngram": 2}) == [-0.5, 0.0, 0.0, 0.0]
    assert score("repetition", ["你好你好你"], {"ngram": 2, "max_penalty": -2.0}) == [-1.0]


def test_language_is_the_share_of_letters_of_its_script():
    # 2 of 4 letters; mathematics and tags do not count
    assert score("language", ["ab你好", r"$x^2$ \frac <think>你</think>", "123"], {"language": "zh"}) == [0.5, 1.0, 1.0]
    assert score("language", ["да", "yes"], language=["ru", "ru"]) == [1.0, 0.0]
    with pytest.raises(ValueError, match="'xx' is unknown; allowed are ar"):
        load_reward("language", language="xx")


@pytest.mark.parametrize(
    ("name", "args"),
    [("format", {}), ("soft_overlong", {"max_tokens": 8, "buffer_tokens": 2}), ("repetition", {}), ("language", {})],
)
def test_the_terms_keep_the_contract(name, args):
    check_reward(load_reward(name, **args), value_range=(-1.0, 1.0))


def complain(fn, **options) -> str:
    with pytest.raises(AssertionError) as error:
        check_reward(fn, **options)
    return str(error.value)


def test_the_checker_names_the_text_and_the_rule():
    assert "raised on empty: IndexError" in complain(
        lambda completions, **c: [float(ord(t[0])) for t in completions], conversational=False
    )
    assert "the value on huge is inf" in complain(
        lambda completions, **c: [math.inf if len(t) > 9e4 else 0.0 for t in completions], conversational=False
    )
    assert "outside [0.0, 1.0]" in complain(lambda completions, **c: [2.0] * len(completions), value_range=(0.0, 1.0))
    assert "returned 1 values" in complain(lambda completions, **c: [0.0])
    assert "not a list" in complain(lambda completions, **c: 0.0)
    assert "is str" in complain(lambda completions, **c: ["high"] * len(completions))
    assert "needs the columns ['solution']" in complain(lambda completions, solution, **c: [0.0])
    state = iter(range(10**6))
    assert "scored differently" in complain(lambda completions, **c: [float(next(state)) for _ in completions])


def test_the_checker_accepts_async_functions_and_none():
    async def fair(completions, solution, **columns):
        return [None if not text else float(text == gold) for text, gold in zip(completions, solution)]

    check_reward(fair, columns={"solution": ["42"]})
    assert {"empty", "huge", "truncated", "unicode"} <= set(HOSTILE_TEXTS)
