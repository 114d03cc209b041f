"""The loop with a small engine of plain torch: it learns, and its bookkeeping is right."""

import dataclasses
import math

import pytest
import torch
from fakes import TorchEngine, tiny_model
from transformers import AutoConfig, AutoTokenizer

from rl.errors import RunFailed
from rl.group import InProcessRank, LearnerGroup
from rl.learner import Learner
from rl.loop import RlLoop
from rl.recipe import LearnerSection, RlStage
from rl.reward_pools import RewardPools
from rl.scoring import Scorer
from rollouts.prompts import MixedSource, RowStream

REWARD = """
def likes_letters(completions, **columns):
    return [sum(map(str.isalpha, completion)) / max(len(completion), 1) for completion in completions]
"""


class OnePrompt:
    def row(self, index):
        return {"prompt": f"say {index % 7}"}


def make_loop(tmp_path, **changes):
    tmp_path.mkdir(exist_ok=True)
    torch.manual_seed(0)
    (tmp_path / "reward.py").write_text(REWARD)
    path = tiny_model(tmp_path / "model")
    stage = RlStage.model_validate(
        {
            "kind": "rl",
            "iterations": 8,
            "prompts": [{"source": {"task": "addition"}}],
            "prompts_per_iteration": 8,
            "samples_per_prompt": 4,
            "sampling": {"max_tokens": 6},
            "rewards": [{"fn": f"{tmp_path}/reward.py:likes_letters"}],
            "policy": {"learning_rate": 1e-2},
            "algorithm": {"minibatches": 2},
            "critic": {"optimizer": {"learning_rate": 1e-3}},
            **changes,
        }
    )
    tokenizer = AutoTokenizer.from_pretrained(path)
    learner = Learner(LearnerSection(), path, trust_remote_code=False, device="cpu")
    learner.begin_rl(stage.policy, stage.critic, stage.algorithm, 1.0)
    engine = TorchEngine(AutoConfig.from_pretrained(path), tokenizer)
    engine.load_weights(learner.weights(), 0)
    stream = RowStream([MixedSource(OnePrompt(), 1.0, "one")], held_out=frozenset())
    group = LearnerGroup(InProcessRank(learner))
    pools = RewardPools({})
    loop = RlLoop(stage, engine, group, Scorer(stage.rewards, pools), stream, tokenizer, seed=0, max_model_len=64)
    return loop, pools


@pytest.mark.parametrize("changes", [
    {},
    {"critic": None, "algorithm": {"advantage": "grpo", "minibatches": 2}},
    {"critic": None, "algorithm": {"advantage": "rloo", "minibatches": 2}},
])
def test_the_policy_learns_to_please_the_reward(tmp_path, changes):
    loop, pools = make_loop(tmp_path, **changes)
    iterations = []
    with pools:
        loop.run(0, iterations.append)
    rewards = [iteration.metrics["reward_mean"] for iteration in iterations]
    assert sum(rewards[-2:]) / 2 > sum(rewards[:2]) / 2 + 0.1
    for number, iteration in enumerate(iterations):
        assert iteration.index == number
        assert iteration.state.iteration == number + 1
        assert {item.trajectory.policy_version for item in iteration.scored} == {number}
        assert iteration.metrics["rollout_gap_mean"] < 1e-5
        assert iteration.metrics["first_minibatch_gap"] < 1e-5
        assert len(iteration.scored) == 32
    assert loop.engine.version == 8


def test_in_warm_up_iterations_only_the_critic_learns(tmp_path):
    critic = {"optimizer": {"learning_rate": 1e-3}, "warmup_iterations": 1}
    loop, pools = make_loop(tmp_path, critic=critic, iterations=2)
    start = {name: x.copy() for name, x in loop.learner.weights().items()}
    changed = []
    with pools:
        loop.run(0, lambda _: changed.append(any((start[k] != x).any() for k, x in loop.learner.weights().items())))
    assert changed == [False, True]


def test_a_stage_that_is_resumed_continues_to_the_same_weights(tmp_path):
    straight, pools = make_loop(tmp_path / "a", iterations=4)
    with pools:
        straight.run(0, lambda _: None)
    first, pools = make_loop(tmp_path / "b", iterations=4)
    states = []

    class Stop(Exception):
        pass

    def stop_after_two(iteration):
        states.append(iteration.state)
        if iteration.index == 1:
            raise Stop

    with pools, pytest.raises(Stop):
        first.run(0, stop_after_two)
    (tmp_path / "state").mkdir()
    first.learner.save_state(tmp_path / "state")
    second, pools = make_loop(tmp_path / "c", iterations=4)
    second.learner.load_state(tmp_path / "state")
    second.stream.load_state(states[-1].stream)
    second.engine.load_weights(second.learner.weights(), 2)
    with pools:
        second.run(2, lambda _: None)
    for name, x in straight.learner.weights().items():
        assert (x == second.learner.weights()[name]).all(), name


def test_prompts_that_never_fit_end_the_run_with_a_message(tmp_path):
    loop, pools = make_loop(tmp_path)
    tight = dataclasses.replace(loop, max_model_len=8)
    with pools, pytest.raises(RunFailed, match="longer than the 2 tokens"):
        tight.run(0, lambda _: None)


def test_the_reference_is_reset_after_every_so_many_iterations(tmp_path):
    algorithm = {"minibatches": 2, "measure_kl": True, "reference_reset_every": 3}
    loop, pools = make_loop(tmp_path, algorithm=algorithm)
    iterations = []
    with pools:
        loop.run(0, iterations.append)
    kl = [abs(iteration.metrics["kl_ref"]) for iteration in iterations]
    # measured before the update: 0 at first, and again right after iterations 2 and 5
    assert [value < 1e-6 for value in kl] == [True, False, False, True, False, False, True, False]


def test_the_shares_of_the_terms_say_what_moves_the_reward(tmp_path):
    loop, pools = make_loop(tmp_path / "two", rewards=[
        {"fn": f"{tmp_path}/two/reward.py:likes_letters", "weight": 3.0},
        {"fn": f"{tmp_path}/two/reward.py:likes_letters", "name": "less", "weight": -1.0},
    ])  # fmt: skip
    iterations = []
    loop.engine.version = 7
    with pools:
        loop.run(7, iterations.append)
    metrics = iterations[0].metrics
    assert metrics["reward_share/likes_letters"] == pytest.approx(0.75)
    assert metrics["reward_share/less"] == pytest.approx(0.25)


def test_the_gap_is_seen_also_where_the_engines_logprobs_are_trusted(tmp_path):
    loop, pools = make_loop(tmp_path, iterations=1, algorithm={"old_logprobs": "rollout", "minibatches": 2})
    honest = loop.engine.generate

    def off_by_a_tenth(requests, *, seed):
        return [dataclasses.replace(g, logprobs=g.logprobs - 0.1) for g in honest(requests, seed=seed)]

    loop.engine.generate = off_by_a_tenth
    found = []
    with pools:
        loop.run(0, found.append)
    metrics = found[0].metrics
    assert metrics["rollout_gap_mean"] == pytest.approx(0.1, abs=1e-4)
    assert metrics["rollout_gap_max"] == pytest.approx(0.1, abs=1e-4)
    assert metrics["rollout_kl"] == pytest.approx(math.exp(0.1) - 1 - 0.1, abs=1e-4)


def test_prompts_whose_samples_all_earn_the_same_are_replaced(tmp_path):
    grpo = {"advantage": "grpo", "minibatches": 2, "refill_rounds": 2}
    loop, pools = make_loop(tmp_path, iterations=1, critic=None, algorithm=grpo)
    learned = []
    evaluate = loop.learner.ranks.learner.evaluate
    loop.learner.ranks.learner.evaluate = lambda batch: learned.append(batch) or evaluate(batch)
    score = loop.scorer.score_chunks
    asked = []

    def flat_first_prompts(chunks, *, to_learn):
        chunks = list(chunks)
        scoring = score(chunks, to_learn=to_learn)
        asked.append(sum(len(trajectories) for _, trajectories in chunks))
        flat = {item.trajectory.prompt.prompt_id for item in scoring.scored[: 3 * 4]} if len(asked) == 1 else set()
        return dataclasses.replace(scoring, scored=[
            dataclasses.replace(item, reward=0.5) if item.trajectory.prompt.prompt_id in flat else item
            for item in scoring.scored
        ])

    loop.scorer.score_chunks = flat_first_prompts
    found = []
    with pools:
        loop.run(0, found.append)
    groups = learned[0].groups
    totals = learned[0].rewards.sum(1)
    assert all(totals[groups == g].unique().numel() > 1 for g in groups.unique())
    assert asked[0] == 32
    assert len(asked) > 1
    assert asked[1] >= 3 * 4
    assert found[0].metrics["signal_share"] <= 1 - 3 / 8
    assert len(found[0].scored) == 32  # metrics are of the prompts that nobody chose


def test_the_kl_coefficient_is_adapted_to_its_target(tmp_path):
    algorithm = {"minibatches": 2, "kl_reward_coef": 0.1, "kl_target": 1e-6, "kl_horizon": 32}
    loop, pools = make_loop(tmp_path, iterations=4, algorithm=algorithm)
    coefficients = []
    with pools:
        loop.run(0, lambda iteration: coefficients.append(iteration.metrics["kl_coef"]))
    # no KL yet: 20% down; afterwards far above the target: 20% up
    assert coefficients == pytest.approx([0.1, 0.08, 0.096, 0.1152])


def test_the_running_scale_of_a_reward_goes_on_with_the_state(tmp_path):
    rewards = [{"fn": f"{tmp_path}/straight/reward.py:likes_letters", "normalise": {}}]
    found = {}
    for name, stop in (("straight", None), ("stopped", 2)):
        loop, pools = make_loop(tmp_path / name, iterations=4, rewards=rewards)
        found[name] = []
        with pools:
            try:
                loop.run(0, lambda done, own=found[name], stop=stop: own.append(done) or _stop(done, stop))
            except KeyboardInterrupt:
                state = found[name][-1].state
                fresh = dataclasses.replace(loop, scorer=Scorer(loop.stage.rewards, pools))
                fresh.scorer.load_state(state.scales)
                fresh.run(state.iteration, found[name].append)
    straight, stopped = ([done.metrics for done in found[name]] for name in ("straight", "stopped"))
    assert [row["reward/likes_letters/running_mean"] for row in stopped] == [
        row["reward/likes_letters/running_mean"] for row in straight
    ]
    assert [row["reward_mean"] for row in stopped] == [row["reward_mean"] for row in straight]
    assert abs(straight[0]["reward_mean"]) < 1e-6


def _stop(done, at):
    if at is not None and done.index + 1 == at:
        raise KeyboardInterrupt
