"""Held-out measurements during a run."""

import dataclasses

import pytest
from fakes import TorchEngine, tiny_model
from transformers import AutoConfig, AutoTokenizer

from rl.held_out import HeldOutSet, _synthesis_numbers, outcomes, win_rate
from rl.intervals import wilson
from rl.recipe import EvaluationSection
from rl.reward_pools import RewardPools
from rl.scoring import Scorer
from rollouts.trajectory import Prompt, prompt_id_of


class CountingEngine(TorchEngine):
    """Remembers how many responses each call asked for."""

    calls: list[int]

    def generate(self, requests, *, seed):
        self.calls.append(len(requests))
        return super().generate(requests, seed=seed)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tiny_model(tmp_path_factory.mktemp("model") / "m")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    section = EvaluationSection.model_validate({
        "prompts": {"task": "addition"}, "num_prompts": 2, "sampling": {"max_tokens": 6},
        "rewards": [{"fn": "rewards.text_terms:soft_overlong_reward", "args": {"max_tokens": 5, "buffer_tokens": 4}}],
        "synthesis": {"width": 3, "max_tokens": 4, "template": "{{ messages | length }}:{{ problem }}"}, "success": -0.5,
    })  # fmt: skip
    prompts = [Prompt(prompt_id_of(text), text, {}, "test") for text in ("1+1=?", "2+3=?")]
    with RewardPools({}) as pools:
        engine = CountingEngine(AutoConfig.from_pretrained(folder), tokenizer)
        yield HeldOutSet(section, prompts, Scorer(section.rewards, pools), 64), engine, tokenizer


def test_a_synthesis_is_of_messages_that_the_policy_has_just_written(parts):
    held_out, engine, tokenizer = parts
    engine.calls = []
    measured = held_out.measure(engine, tokenizer, seed=0, before=None)
    assert engine.calls == [6, 2]  # 2 problems x 3 messages, then 2 syntheses
    assert {"single_sample", "majority_vote", "emergent_correctness_rate"} <= set(measured.details)
    low, high = wilson(measured.score, 2)  # of two problems
    assert (measured.details["score_low"], measured.details["score_high"]) == (low, high)
    assert measured.details["standard_error"] == (0.5 if measured.score == 0.5 else 0.0)  # of one right and one wrong


def test_one_sample_and_majority_vote_are_of_the_same_messages():
    # x: two answers of three are right and agree; y: one is right, the two wrong ones agree
    messages = {"x": [("7", 1.0), ("8", 0.0), ("7", 1.0)], "y": [("1", 0.0), ("1", 0.0), ("2", 1.0)]}
    numbers = _synthesis_numbers(messages, [], 1.0)
    assert (numbers["single_sample"], numbers["majority_vote"], numbers["any_right"]) == (0.5, 0.5, 1.0)


def test_win_rate_counts_a_tie_as_half():
    # better, worse, equal on the three shared prompts: (1 + 0 + 0.5) / 3
    assert win_rate({"a": 2, "b": 0, "c": 1, "d": 9}, {"a": 1, "b": 1, "c": 1}) == 0.5


def measured(held_out, engine, tokenizer, measure, before=None):
    section = EvaluationSection.model_validate(
        {**held_out.section.model_dump(), "synthesis": None, "measure": measure, "samples_per_prompt": 4}
    )
    set_ = dataclasses.replace(held_out, section=section)
    return set_.measure(engine, tokenizer, seed=0, before=before)


def test_a_win_rate_has_an_interval_around_it(parts):
    held_out, engine, tokenizer = parts
    first = measured(held_out, engine, tokenizer, "win_rate")
    assert (first.score, first.details["standard_error"]) == (0.5, 0.0)
    worse = dataclasses.replace(first, rewards={key: value - 1 for key, value in first.rewards.items()})
    second = measured(held_out, engine, tokenizer, "win_rate", worse)
    assert second.score == 1.0
    # Wilson at 2 of 2: (1 + z^2/4 +- z * sqrt(z^2/16)) / (1 + z^2/2) = 0.3424 to 1
    assert second.details["score_low"] == pytest.approx(0.3424, abs=1e-4)
    assert second.details["score_high"] == pytest.approx(1.0)


def test_the_standard_error_is_over_prompts(parts):
    held_out, engine, tokenizer = parts
    result = measured(held_out, engine, tokenizer, "mean_reward")
    first, second = result.rewards.values()
    # of two values a and b: |a - b| / 2
    assert result.details["standard_error"] == pytest.approx(abs(first - second) / 2)


def test_a_tie_is_half_a_win():
    assert outcomes({"a": 1.0, "b": 0.0, "c": 2.0, "d": 5.0}, {"a": 1.0, "b": 1.0, "c": 1.0}) == [0.5, 0.0, 1.0]
