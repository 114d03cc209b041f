"""Judging mathematics: a table of (reference, response, verdict), hostile inputs, and limits in time."""

import json
import subprocess
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path

import pytest

from rewards.math_answer import judge_answer, math_reward, unverifiable
from rewards.mathematics.boxes import boxes
from rewards.mathematics.extract import after_thinking, extract_answer, extract_gold
from rewards.mathematics.node import Node, TooLarge, Unparsable
from rewards.mathematics.slow import close_helper
from rewards.mathematics.tree import parse
from rewards.testing import check_reward

TABLE = [json.loads(line) for line in (Path(__file__).parent / "data" / "math_answers.jsonl").open(encoding="utf-8")]
BY_CATEGORY: dict[str, list[dict]] = defaultdict(list)
for _row in TABLE:
    BY_CATEGORY[_row["category"]].append(_row)


@pytest.fixture(scope="module", autouse=True)
def helper_process_ends_with_the_tests():
    yield
    close_helper()


@pytest.mark.parametrize("category", sorted(BY_CATEGORY))
def test_every_row_of_the_table_gets_its_verdict(category):
    wrong = [
        (row["gold"], row["response"], row["right"], verdict.rule)
        for row in BY_CATEGORY[category]
        if (verdict := judge_answer(row["response"], row["gold"])).right is not row["right"]
    ]
    assert not wrong


def test_a_batch_of_plain_integers_needs_no_sympy_and_no_mpmath():
    code = (
        "import sys, time\n"
        "from rewards.math_answer import math_reward\n"
        "done = math_reward(completions=[r'so \\boxed{%d}' % i for i in range(512)], solution=['123'] * 512)\n"
        "assert sum(done) == 1.0, sum(done)\n"
        "assert math_reward(completions=[r'\\boxed{\\frac{3}{6}}'], solution=['1/2']) == [1.0]\n"
        "print(sorted({'sympy', 'math_verify', 'mpmath', 'torch'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert done.stdout.strip() == "[]"


def test_a_batch_of_512_plain_integers_costs_milliseconds():
    responses, golds = [rf"so \boxed{{{i % 300}}}" for i in range(512)], ["123"] * 512
    fastest = min(_timed(lambda: math_reward(completions=responses, solution=golds)) for _ in range(5))
    assert fastest < 0.5  # about 8 ms on an idle core; sympy would take minutes


def _timed(call):
    start = time.process_time()
    call()
    return time.process_time() - start


HOSTILE = {
    "tower of powers": r"\boxed{9^{9^{9^{9^{9}}}}}",
    "tower of exponentials": r"\boxed{e^{e^{e^{e^{e}}}}}",
    "factorial of a huge number": r"\boxed{99999999999!}",
    "factorials of factorials": r"\boxed{10!!!!!!!}",
    "ten thousand parentheses": r"\boxed{" + "(" * 10_000 + "1" + ")" * 10_000 + "}",
    "ten thousand braces": r"\boxed{" + "{" * 10_000 + "1" + "}" * 10_000 + "}",
    "a megabyte of digits": r"\boxed{" + "9" * 1_000_000 + "}",
    "a megabyte of digits without a box": "9" * 1_000_000,
    "a megabyte of spaces": " " * 1_000_000,
    "many fractions": r"\boxed{" + r"\frac{1}{" * 500 + "2" + "}" * 500 + "}",
    "many boxes": r"\boxed{1}" * 20_000,
    "boxes that never close": r"\boxed{" * 20_000,
    "thinking that never ends": "<think>" * 20_000,
    "dollar signs": "$" * 100_000,
    "backslashes": "\\" * 100_000,
    "answer phrases": "the answer is " * 20_000,
    "a huge exponent": r"\boxed{(1+\sqrt2)^{10000000}}",
    "a huge polynomial": r"\boxed{(x+y+z+w)^{5000}}",
    "a huge binomial": r"\boxed{\binom{99999999}{50000000}}",
    "a huge decimal exponent": r"\boxed{1e999999999}",
    "python": r"\boxed{__import__('os').system('exit 1')}",
    "bars": r"\boxed{" + "|" * 2_000 + "}",
    "subscripts": r"\boxed{" + "_" * 2_000 + "}",
    "a list without end": "The numbers are " + "1," * 9_000 + "1",
    "sums without end": "1 + 1 = " * 4_000,
    "empty lines": "a" + "\n" * 19_000 + "b",
    "answers to everything": "6 is the answer " * 1_200,
    "decimals that repeat": r"\boxed{0." + "1" * 1_900 + " repeating}",
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_hostile_input_is_wrong_at_once_and_the_next_answer_is_judged(name):
    start = time.process_time()  # not the clock's: other processes may hold the cores
    assert math_reward(completions=[HOSTILE[name]], solution=["5"]) == [0.0]
    assert time.process_time() - start < 10.0  # of the processor, also on a slow and busy one; without limits, minutes
    assert math_reward(completions=[r"\boxed{5}"], solution=["5"]) == [1.0]


def test_what_sympy_cannot_finish_is_killed_at_the_deadline_and_has_no_verdict():
    hard = r"\boxed{\int_0^1 \sin(\cos(\tan(x^x))) \, dx}"
    math_reward(completions=[r"\boxed{\sum_{k=1}^{3} k}"], solution=["6"], timeout_s=1.0)  # the helper is running
    assert math_reward(completions=[hard], solution=["5"], timeout_s=1.0) == [None]
    assert math_reward(completions=[r"\boxed{\sum_{k=1}^{4} k}"], solution=["10"], timeout_s=60.0) == [1.0]


def test_the_slow_path_works_off_the_main_thread():
    results = []
    thread = threading.Thread(
        target=lambda: results.extend(
            math_reward(completions=[r"\boxed{\sum_{k=1}^{5} k}", r"\boxed{4}"], solution=["15", "4"])
        )
    )
    thread.start()
    thread.join(30)
    assert results == [1.0, 1.0]


def test_message_lists_and_numbers_and_lists_of_references_are_accepted():
    completion = [{"role": "assistant", "content": [{"type": "text", "text": r"\boxed{0.5}"}]}]
    assert math_reward(completions=[completion] * 4, solution=[0.5, "1/2", ["7", r"\frac12"], 2]) == [
        1.0,
        1.0,
        1.0,
        0.0,
    ]


def test_an_empty_reference_has_no_verdict():
    assert math_reward(completions=[r"\boxed{}", r"\boxed{5}"], solution=["", None]) == [None, None]


def test_the_last_expression_can_be_forbidden():
    options = {"completions": ["So 3 + 4 = 7"], "solution": ["7"]}
    assert math_reward(**options) == [1.0]
    assert math_reward(**options, allow_last_expression=False) == [0.0]


@pytest.mark.parametrize(
    ("answer", "gold", "value"),
    [
        (r"\frac{2}{4}", r"\frac12", 0.0),
        (r"\frac{1}{2}", r"\frac12", 1.0),
        (r"1+1", "2", 0.0),
        (r"\sqrt{8}", r"2\sqrt{2}", 0.0),
        (r"2\sqrt{2}", r"\sqrt{8}", 1.0),
        (r"2^3", "8", 0.0),
        (r"x^2+2x+1", "(x+1)^2", 1.0),
        (r"3\frac{1}{2}", "3.5", 1.0),
        (r"\frac{6}{1}", "6", 0.0),
        (r"3 \cdot 4", "12", 0.0),
    ],
)
def test_an_unsimplified_answer_is_wrong_when_the_recipe_says_so(answer, gold, value):
    assert math_reward(completions=[rf"\boxed{{{answer}}}"], solution=[gold], simplified=True) == [value]
    assert math_reward(completions=[rf"\boxed{{{answer}}}"], solution=[gold]) == [1.0]


def test_metrics_say_how_many_responses_had_no_answer():
    logged = {}
    math_reward(
        completions=[
            r"\boxed{1}",
            "It is too hard for me, sorry about that.",
            "<think>still",
            r"\boxed{9^{9^{9^{9}}}}",
        ],
        solution=["1"] * 4,
        log_metric=logged.__setitem__,
    )
    assert logged == {"math/no_answer": 0.5, "math/refused": 0.25, "math/undecided": 0.0}


def test_references_that_do_not_equal_themselves_are_found():
    assert unverifiable(["12", r"\frac{1}{2}", "", r"\frac{1}{0}", "(1,2)"]) == [2, 3]


def test_the_reward_keeps_the_contract():
    check_reward(math_reward, columns={"solution": ["42", r"\frac12"]}, value_range=(0.0, 1.0))


def test_extraction_says_which_rule_found_the_answer():
    rules = {r"\boxed{5}": "box", "#### 5": "hashes", "<answer>5</answer>": "tag", "The answer is 5.": "phrase"}
    assert {text: extract_answer(text).rule for text in rules} == rules
    assert extract_answer("Then 2 + 3 = 5").rule == "last_expression"
    assert extract_answer(r"\boxed{5").rule == "unfinished_box"


def test_a_reference_solution_is_reduced_to_its_answer():
    assert extract_gold("First 9 - 3 = 6.\n#### 6") == "6"
    assert extract_gold(r"so the sum is $\boxed{\frac{1}{2}}$.") == r"\frac{1}{2}"
    assert extract_gold(r"\frac{1}{2}") == r"\frac{1}{2}"


def test_braces_are_counted_and_escaped_braces_are_not():
    assert [content for _, _, content in boxes(r"\boxed{\{1,\frac{1}{2}\}} \boxed{x")] == [r"\{1,\frac{1}{2}\}", None]


def test_thinking_that_is_never_closed_has_no_answer():
    assert after_thinking("<think>a</think>b") == "b"
    assert after_thinking("a</think>b") == "b"
    assert after_thinking("<think>a") is None
    assert after_thinking("plain") == "plain"


def test_trees_are_exact_and_hashable():
    assert parse("0.1").value * 3 == parse("0.3").value
    assert parse("x+1") == parse("x + 1")
    assert hash(parse(r"\frac{1}{2}")) == hash(parse(r"\frac12"))
    assert parse("x = 2").kind == "rel"


@pytest.mark.parametrize("text", ["", "1+", "(1", r"\int x", "1 2", "the total", ")("])
def test_what_is_not_in_the_grammar_is_unparsable(text):
    with pytest.raises(Unparsable):
        parse(text)


def test_what_is_not_worth_reading_is_refused():
    with pytest.raises(TooLarge):
        parse("(" * 100 + "1" + ")" * 100)
    with pytest.raises(TooLarge):
        parse("9" * 2_000)
    assert isinstance(parse("9" * 900), Node)
