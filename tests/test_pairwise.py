"""A judge that compares: both orders, strict verdicts, at a real HTTP server and in a vLLM of this process."""

import asyncio
import re

import pytest
from fakes import tiny_model
from test_reward_remote import Server

from rewards import load_reward, required_columns
from rewards.judge import JudgeError
from rewards.worker import RewardPool


def answers(text):
    return 200, {"choices": [{"message": {"content": text}}]}


def shown(body):
    """(answer A, answer B) of the prompt that the judge got."""
    prompt = body["messages"][0]["content"]
    return tuple(re.search(rf"\[ANSWER {side}\]\n(.*)\n\[END ANSWER {side}\]", prompt, re.S)[1] for side in "AB")


def longest(body, number):
    """An honest judge that likes length."""
    a, b = map(len, shown(body))
    return answers("I compared them.\nVerdict: " + ("tie" if a == b else "A" if a > b else "B"))


def call(server, completions, references, **options):
    reward = load_reward("pairwise", url=server.url, model="judge", backoff_s=0.01, **options)
    logged = {}
    rewards = asyncio.run(
        reward(["q"] * len(completions), completions, reference=references, log_extra=logged.__setitem__)
    )
    return rewards, logged["pairwise/orders_disagree"]


def test_the_better_response_wins_in_both_orders():
    with Server(longest) as server:
        rewards, disagree = call(server, ["long one", "x", "same"], ["short", "longer", "four"])
    assert rewards == [1.0, 0.0, 0.5]
    assert disagree == [0.0, 0.0, 0.0]
    assert len(server.requests) == 6
    pairs = [("long one", "short"), ("x", "longer"), ("same", "four")]
    assert {shown(body) for _, _, body in server.requests} == {*pairs, *((b, a) for a, b in pairs)}  # in any order


def test_a_judge_that_always_likes_the_first_answer_gives_one_half_and_is_told():
    with Server(lambda body, number: answers("Verdict: A")) as server:
        assert call(server, ["good"], ["bad"]) == ([0.5], [1.0])


def test_several_references_are_averaged_and_none_does_not_apply():
    messages = [{"role": "assistant", "content": "eight888"}]
    with Server(longest) as server:
        rewards, _ = call(server, ["fives", "fives", "fives"], [["a", "ab", "longer"], None, messages])
    assert rewards == [pytest.approx(2 / 3), None, 0.0]


@pytest.mark.parametrize("said", ["A", "Verdict: A or B", "Verdict: A\nbut B is close", "", None, "Verdict: C"])
def test_a_verdict_that_does_not_stand_alone_is_a_failure(said):
    with Server(lambda body, number: answers(said)) as server:
        with pytest.raises(JudgeError):
            call(server, ["good"], ["bad"])


def test_only_the_row_without_a_verdict_fails_in_a_pool():
    def sometimes(body, number):
        return answers("I cannot say") if "odd" in "".join(shown(body)) else longest(body, number)

    with Server(sometimes) as server:
        args = {"url": server.url, "model": "judge"}
        with RewardPool("pairwise", args=args, timeout_s=120) as pool:
            results = pool.score(["q"] * 3, ["long one", "odd", "x"], {"reference": ["short", "short", "longer"]})
    assert [result.value for result in results] == [1.0, None, 0.0]
    assert [str(result.status) for result in results] == ["ok", "error", "ok"]
    assert "I cannot say" in results[1].message


def test_the_reference_is_a_column_that_the_dataset_must_have():
    options = {"url": "http://localhost:1/v1", "model": "judge"}
    assert required_columns(load_reward("pairwise", **options)) == {"reference"}
    assert required_columns(load_reward("pairwise", reference="baseline", **options)) == {"baseline"}
    with pytest.raises(ValueError, match="engine: is for a judge that is loaded here"):
        load_reward("pairwise", engine={}, **options)


def test_a_hostile_answer_cannot_run_the_template():
    with Server(longest) as server:
        rewards, _ = call(server, ["{{ 7 * 7 }}"], ["{% raise %}"])
        assert ("{{ 7 * 7 }}", "{% raise %}") in {shown(body) for _, _, body in server.requests}
    assert rewards == [0.5]


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_judge_that_vllm_runs_here_is_read_as_strictly(tmp_path):
    engine = {"dtype": "float32", "max_model_len": 64, "kv_cache_memory_bytes": 2**26, "enforce_eager": True}
    args = {"model": tiny_model(tmp_path / "judge"), "template": "{{ a }}:{{ b }}", "max_tokens": 4, "engine": engine}
    with RewardPool("pairwise", args=args, timeout_s=60) as pool:
        (result,) = pool.score(["q"], ["one"], {"reference": ["two"]})
    assert str(result.status) == "error"
    assert "no verdict on the last line" in result.message  # random weights: it spoke, and said nothing
