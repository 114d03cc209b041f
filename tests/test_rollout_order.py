"""Stages that do not wait: the long tail is carried over, or the next iteration is sampled while this one learns."""

import dataclasses
import datetime
import decimal
import threading

import numpy as np
import pytest
from fakes import SteppingEngine
from test_loop import make_loop

from rl.errors import RunFailed
from rl.recipe import Recipe
from rl.started_prompts import packed, unpacked

TAIL = {"extra_prompts": 4, "max_staleness": 3}
CORRECTED = {"minibatches": 2, "importance_cap": 2.0}


def stepping(loop):
    """The same loop with an engine that can be paused."""
    engine = SteppingEngine(loop.engine.model.config, loop.tokenizer)
    engine.load_weights(loop.learner.weights(), 0)
    return dataclasses.replace(loop, engine=engine)


def run(loop, pools, start=0, carried=()):
    iterations = []
    with pools:
        loop.run(start, iterations.append, carried)
    return iterations


def test_the_long_tail_goes_on_in_the_next_iteration_and_no_token_is_lost(tmp_path):
    loop, pools = make_loop(
        tmp_path, iterations=5, sampling={"max_tokens": 24}, long_tail=TAIL, algorithm=CORRECTED, samples_per_prompt=2
    )
    loop = stepping(loop)
    iterations = run(loop, pools)
    trained, seen = 0, {}
    for index, iteration in enumerate(iterations):
        assert len(iteration.scored) == 8 * 2
        assert iteration.metrics["prompts_carried"] == 4
        ages = [index - item.trajectory.policy_versions[item.trajectory.action_mask] for item in iteration.scored]
        assert iteration.metrics["staleness_max"] == max(int(own.max()) for own in ages) <= 3
        assert min(int(own.min()) for own in ages) >= 0
        for item in iteration.scored:
            versions = item.trajectory.policy_versions[item.trajectory.action_mask]
            assert (np.diff(versions) >= 0).all()
        trained += sum(item.trajectory.num_sampled_tokens for item in iteration.scored)
        carried = unpacked(iteration.state.carried, loop.tokenizer)
        assert len(carried) == 4
        waiting = sum(len(x.token_ids) for one in carried for x in [*one.finished.values(), *one.begun.values()])
        assert waiting == iteration.metrics["tokens_carried"]
        stale = seen.get("stale", 0) + iteration.metrics["tokens_too_stale"]
        seen["stale"] = stale
    assert loop.engine.num_sampled == trained + waiting + seen["stale"]
    assert any(iteration.metrics["staleness_max"] > 0 for iteration in iterations)


def test_what_was_carried_is_part_of_a_checkpoint(tmp_path):
    changes = {"iterations": 4, "sampling": {"max_tokens": 24}, "long_tail": TAIL, "algorithm": CORRECTED}
    straight, pools = make_loop(tmp_path / "a", **changes)
    straight = stepping(straight)
    states = []

    def keep(iteration):
        states.append(iteration.state)
        if iteration.index == 1:
            (tmp_path / "state").mkdir()
            straight.learner.save_state(tmp_path / "state")

    with pools:
        straight.run(0, keep)
    resumed, pools = make_loop(tmp_path / "b", **changes)
    resumed = stepping(resumed)
    resumed.learner.load_state(tmp_path / "state")
    resumed.stream.load_state(states[1].stream)
    resumed.engine.load_weights(resumed.learner.weights(), 2)
    run(resumed, pools, 2, unpacked(states[1].carried, resumed.tokenizer))
    for name, x in straight.learner.weights().items():
        assert (x == resumed.learner.weights()[name]).all(), name


def test_dropped_prompts_are_counted_and_nothing_is_stale(tmp_path):
    tail = {"extra_prompts": 4, "rest": "drop"}
    loop, pools = make_loop(tmp_path, iterations=3, sampling={"max_tokens": 24}, long_tail=tail)
    for iteration in run(stepping(loop), pools):
        assert iteration.metrics["prompts_aborted"] == 4
        assert iteration.metrics["tokens_aborted"] > 0
        assert iteration.metrics["staleness_max"] == 0
        assert iteration.state.carried == ""


class Watched:
    """Tells in which thread an engine samples, and holds it up until the learner has begun."""

    def __init__(self, loop):
        self.threads, self.learning = [], threading.Event()
        generate, evaluate = loop.engine.generate, loop.learner.ranks.learner.evaluate

        def in_time(requests, *, seed):
            ahead = threading.current_thread() is not threading.main_thread()
            self.threads.append("ahead" if ahead else "main")
            if ahead:
                assert self.learning.wait(60)
            return generate(requests, seed=seed)

        def noted(batch):
            self.learning.set()
            return evaluate(batch)

        loop.engine.generate, loop.learner.ranks.learner.evaluate = in_time, noted


def test_one_step_off_samples_while_the_learner_learns_and_is_one_update_old(tmp_path):
    loop, pools = make_loop(tmp_path, iterations=5, algorithm=CORRECTED)
    loop = dataclasses.replace(loop, async_level=1)
    watched = Watched(loop)
    iterations = run(loop, pools)
    assert watched.threads == ["main"] + ["ahead"] * 4
    assert [iteration.metrics["staleness_max"] for iteration in iterations] == [0, 1, 1, 1, 1]
    assert [iteration.metrics["staleness_mean"] for iteration in iterations] == [0, 1, 1, 1, 1]
    assert "rollout_gap_mean" in iterations[0].metrics
    assert "rollout_gap_mean" not in iterations[1].metrics  # no token is of the policy that is compared
    # prompts 0-7 were learned from, 8-15 are under way: a resumed run samples them again
    assert iterations[0].state.stream["positions"] == [8]
    assert loop.engine.version == 5


def test_one_step_off_still_learns(tmp_path):
    loop, pools = make_loop(tmp_path, iterations=10, algorithm=CORRECTED)
    iterations = run(dataclasses.replace(loop, async_level=1), pools)
    rewards = [iteration.metrics["reward_mean"] for iteration in iterations]
    assert sum(rewards[-2:]) / 2 > sum(rewards[:2]) / 2 + 0.1


def test_a_stage_that_ends_early_takes_the_one_ahead_along(tmp_path):
    loop, pools = make_loop(tmp_path, iterations=5, algorithm=CORRECTED)
    loop = dataclasses.replace(loop, async_level=1)

    class Stop(Exception):
        pass

    def stop(iteration):
        raise Stop

    with pools, pytest.raises(Stop):
        loop.run(0, stop)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("rollouts")]


def test_started_prompts_come_back_from_text_as_they_were(tmp_path):
    loop, pools = make_loop(tmp_path, iterations=1, sampling={"max_tokens": 24}, long_tail=TAIL, algorithm=CORRECTED)
    loop = stepping(loop)
    (iteration,) = run(loop, pools)
    first = unpacked(iteration.state.carried, loop.tokenizer)
    columns = {
        "nested": [{"a": [1, 2.5, None, True]}, {3: "b", "stored as": "mapping"}],
        "bytes": b"\x00\xff",
        "day": datetime.date(2026, 1, 2),
        "moment": datetime.datetime(2026, 1, 2, 3, 4, 5, 6, datetime.UTC),
        "money": decimal.Decimal("1.10"),
        "number": np.float32(0.1),
    }
    first = [with_columns(one, columns) for one in first]
    again = unpacked(packed(first), loop.tokenizer)
    assert len(first) == len(again) == 4
    for one, other in zip(first, again):
        assert one.prompt.prompt == other.prompt.prompt
        assert (one.prompt.token_ids == other.prompt.token_ids).all()
        for mine, theirs in ((one.begun, other.begun), (one.finished, other.finished)):
            assert mine.keys() == theirs.keys()
            for sample in mine:
                for name in ("token_ids", "logprobs", "versions"):
                    assert getattr(mine[sample], name).dtype == getattr(theirs[sample], name).dtype
                    assert (getattr(mine[sample], name) == getattr(theirs[sample], name)).all()
    assert any(one.begun for one in first)
    assert packed(()) == ""
    assert unpacked("", loop.tokenizer) == ()


def test_arrays_of_a_column_keep_their_kind(tmp_path):
    loop, pools = make_loop(tmp_path, iterations=1, sampling={"max_tokens": 24}, long_tail=TAIL, algorithm=CORRECTED)
    loop = stepping(loop)
    (iteration,) = run(loop, pools)
    one = with_columns(unpacked(iteration.state.carried, loop.tokenizer)[0], {"x": np.eye(2, dtype=np.int16)})
    (again,) = unpacked(packed([one]), loop.tokenizer)
    assert again.prompt.prompt.columns["x"].dtype == np.int16
    assert (again.prompt.prompt.columns["x"] == np.eye(2)).all()


def test_a_column_that_no_checkpoint_can_keep_is_named(tmp_path):
    loop, pools = make_loop(tmp_path, iterations=1, sampling={"max_tokens": 24}, long_tail=TAIL, algorithm=CORRECTED)
    loop = stepping(loop)
    (iteration,) = run(loop, pools)
    one = with_columns(unpacked(iteration.state.carried, loop.tokenizer)[0], {"odd": object()})
    with pytest.raises(RunFailed, match="column 'odd' holds a object"):
        packed([one])


def with_columns(started, columns):
    prompt = dataclasses.replace(started.prompt.prompt, columns=columns)
    return dataclasses.replace(started, prompt=dataclasses.replace(started.prompt, prompt=prompt))


@pytest.mark.parametrize(
    ("learner", "stage", "told"),
    [
        ({"async_level": 1}, {}, "importance_cap: learner.async_level 1 learns from tokens of older policies"),
        ({}, {"long_tail": {"extra_prompts": 2}}, "importance_cap: long_tail learns from tokens of older policies"),
        ({}, {"long_tail": {"extra_prompts": 2, "rest": "drop"}, "samples_per_prompt": 4,
              "algorithm": {"advantage": "grpo", "refill_rounds": 1}}, "long_tail chooses prompts too"),
    ],
)  # fmt: skip
def test_a_recipe_that_learns_from_old_tokens_must_correct_for_it(learner, stage, told):
    rl = {
        "kind": "rl", "iterations": 1, "prompts": [{"source": {"task": "addition"}}], "prompts_per_iteration": 2,
        "samples_per_prompt": 2, "sampling": {"max_tokens": 4}, "rewards": [{"fn": "math"}],
        "policy": {"learning_rate": 1e-3}, "algorithm": {"advantage": "grpo"},
    }  # fmt: skip
    recipe = {"name": "r", "model": {"path": "m"}, "engine": {"max_model_len": 32}, "learner": learner}
    with pytest.raises(ValueError, match=told):
        Recipe.model_validate({**recipe, "stages": {"rl": rl | stage}})
    corrected = {"algorithm": {"advantage": "grpo", "importance_cap": 2.0}}
    Recipe.model_validate({**recipe, "stages": {"rl": rl | stage | corrected}})
