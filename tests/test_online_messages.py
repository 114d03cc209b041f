"""Synthesis prompts whose messages the current policy writes."""

import dataclasses

import pytest
from test_loop import make_loop

from rl.loop import RlLoop
from rl.online_messages import OnlineMessages
from rl.recipe import OnlineMessagesSection, RlStage
from rollouts.prompts import MixedSource, RowStream

SECTION = {
    "samples_per_prompt": 4,
    "messages": [2, 3],
    "sampling": {"max_tokens": 4},
    "template": "{{ problem }}{% for m in messages %}|{{ m }}{% endfor %}",
}


class Numbered:
    def __init__(self, text):
        self.text = text

    def row(self, index):
        return {"prompt": f"{self.text} {index}"}


def online_loop(tmp_path, room=64, **changes) -> tuple[RlLoop, object]:
    loop, pools = make_loop(tmp_path, iterations=2)
    section = OnlineMessagesSection.model_validate(SECTION | changes)
    engine = loop.engine
    engine.asked = []
    generate = engine.generate

    def asked(requests, *, seed):
        engine.asked.append((engine.version, [engine.tokenizer.decode(request.prompt_token_ids) for request in requests]))
        return generate(requests, seed=seed)

    engine.generate = asked
    rewrite = OnlineMessages(section, engine, loop.scorer, loop.tokenizer, 0.5, room)
    stream = RowStream([MixedSource(Numbered("a"), 1.0, "a"), MixedSource(Numbered("b"), 1.0, "b")], held_out=frozenset())
    return dataclasses.replace(loop, rewrite=rewrite, stream=stream), pools


def test_problems_get_messages_of_the_policy_of_the_same_iteration(tmp_path):
    loop, pools = online_loop(tmp_path, sources=["a"])
    iterations = []
    with pools:
        loop.run(0, iterations.append)
    # Each iteration: 4 answers to the 4 problems of source a, then 4 samples of each of the 8 prompts.
    assert [(version, len(texts)) for version, texts in loop.engine.asked] == [(0, 16), (0, 32), (1, 16), (1, 32)]
    for version, iteration in enumerate(iterations):
        problems = loop.engine.asked[2 * version][1]
        for item in iteration.scored:
            prompt = item.trajectory.prompt
            if prompt.origin == "b":
                assert "|" not in prompt.content
                continue
            problem, *shown = prompt.content.split("|")
            assert problem in problems
            assert prompt.columns["problem"] == problem
            assert list(prompt.columns["shown_messages"]) == shown or "|" in "".join(prompt.columns["shown_messages"])
            assert 2 <= len(prompt.columns["shown_messages"]) <= 3
        assert 0 <= iteration.metrics["synthesis_accuracy"] <= 1
        assert 2 <= iteration.metrics["synthesis_messages"] <= 3


def test_messages_that_leave_no_room_are_left_out(tmp_path):
    loop, pools = online_loop(tmp_path, room=9)  # tokens: "a 12" and one message of four
    iterations = []
    with pools:
        loop.run(0, iterations.append)
    prompts = [item.trajectory.prompt.content for item in iterations[0].scored]
    assert max(len(loop.tokenizer(prompt)["input_ids"]) for prompt in prompts) <= 9
    assert iterations[0].metrics["synthesis_messages"] < 2


def test_more_messages_than_answers_and_unknown_sources_are_refused():
    with pytest.raises(ValueError, match="lowest <= highest <= samples_per_prompt 4"):
        OnlineMessagesSection.model_validate(SECTION | {"messages": [2, 5]})
    stage = {
        "kind": "rl", "iterations": 1, "prompts": [{"source": {"task": "addition"}}], "prompts_per_iteration": 1,
        "samples_per_prompt": 1, "sampling": {"max_tokens": 1}, "rewards": [{"fn": "math"}], "policy": {"learning_rate": 1},
        "critic": {"optimizer": {"learning_rate": 1}},
    }  # fmt: skip
    with pytest.raises(ValueError, match="'nothing' is not a source of the stage; there are: addition"):
        RlStage.model_validate(stage | {"online_messages": SECTION | {"sources": ["nothing"]}})
