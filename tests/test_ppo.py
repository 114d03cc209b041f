"""From evaluations to advantages: each estimator, masks, and that every cut of a batch gives the same update."""

import dataclasses

import pytest
import torch
from fakes import random_batch, scored, tiny_model

from rl.advantages import gae, whiten
from rl.batch import Evaluation, TokenBatch, collate, minibatches, take_rows, tensors_of, whole_minibatch
from rl.group import LearnerGroup
from rl.learner import Learner
from rl.ppo import to_ppo_batch
from rl.recipe import AlgorithmSection, CriticSection, LearnerSection, OptimizerSection

VOCABULARY = 50
OPTIMIZER = OptimizerSection(learning_rate=1e-3, max_grad_norm=1e9)  # clipping would hide that gradients add up


def evaluation(batch: TokenBatch, seed: int = 0) -> Evaluation:
    g = torch.Generator().manual_seed(seed)
    make = lambda: torch.where(batch.action_mask, torch.randn(batch.rewards.shape, generator=g) * 0.3, 0.0)  # noqa: E731
    return Evaluation(make(), make(), make(), torch.randn(len(batch.rewards), generator=g))


def test_decoupled_lambdas_give_the_policy_one_and_the_critic_another():
    batch = random_batch(5, 12, VOCABULARY)
    before = evaluation(batch)
    settings = AlgorithmSection(gae_lambda=0.5, critic_lambda=1.0, whiten_advantages=False)
    ppo = to_ppo_batch(batch, before, settings)
    of_policy = gae(batch.rewards, before.values, batch.action_mask, gamma=1.0, lam=0.5)[0]
    of_critic = gae(batch.rewards, before.values, batch.action_mask, gamma=1.0, lam=1.0)[1]
    torch.testing.assert_close(ppo.advantages, of_policy)
    torch.testing.assert_close(ppo.returns, of_critic)
    assert (ppo.returns - of_policy - before.values).abs().max() > 0.01


def test_the_length_adaptive_lambda_is_the_policys_alone():
    batch = random_batch(5, 12, VOCABULARY)
    before = evaluation(batch)
    ppo = to_ppo_batch(batch, before, AlgorithmSection(lambda_alpha=0.5, critic_lambda=1.0, whiten_advantages=False))
    for b in range(5):
        lam = max(1 - 1 / (0.5 * int(batch.action_mask[b].sum())), 0.0)
        one = slice(b, b + 1)
        expected = gae(batch.rewards[one], before.values[one], batch.action_mask[one], gamma=1.0, lam=lam)[0]
        torch.testing.assert_close(ppo.advantages[one], expected)


def test_reinforce_pp_whitens_rewards_to_go_less_the_kl_that_is_still_to_come():
    # k1 of the two tokens: .1 and .3, coefficient 2, reward 1 at the end: A_1 = 1 - .6 = .4, A_0 = .4 - .2 = .2
    batch = dataclasses.replace(
        random_batch(1, 3, VOCABULARY), action_mask=torch.tensor([[False, True, True]]), rewards=torch.tensor([[0.0, 0, 1]])
    )
    nothing = torch.zeros(1, 3)
    before = Evaluation(torch.tensor([[0.0, -0.9, -0.7]]), torch.tensor([[0.0, -1, -1]]), nothing, torch.zeros(1))
    ppo = to_ppo_batch(batch, before, AlgorithmSection(advantage="reinforce_pp", kl_reward_coef=2.0))
    expected = whiten(torch.tensor([[0, 0.2, 0.4]]), batch.action_mask)
    torch.testing.assert_close(ppo.advantages, expected)
    adapted = to_ppo_batch(batch, before, AlgorithmSection(advantage="reinforce_pp", kl_reward_coef=2.0, kl_target=1.0),
                           kl_coef=0.0)  # fmt: skip
    assert adapted.advantages[0].tolist() == [0, 0, 0]  # no KL: both tokens have reward to go 1, whitened to 0


def test_reinforce_pp_with_a_baseline_centres_within_groups_and_whitens_over_the_batch():
    batch = random_batch(4, 8, VOCABULARY)  # groups 0, 0, 1, 1
    ppo = to_ppo_batch(batch, evaluation(batch), AlgorithmSection(advantage="reinforce_pp_baseline"))
    totals = batch.rewards.sum(1)
    centred = totals - torch.stack([totals[:2].mean(), totals[2:].mean()]).repeat_interleave(2)
    expected = whiten(centred[:, None].expand(-1, 8), batch.action_mask)
    torch.testing.assert_close(ppo.advantages, expected)


def test_gae_takes_partial_rewards_where_they_were_earned_and_a_group_baseline_their_sum():
    tokens = [[1], [2, 3, 4]]
    early, late = (dataclasses.replace(scored(1.0, *tokens), partial=parts) for parts in (((0, 0.75),), ()))
    batch = collate([early, late, scored(0.0, *tokens)])
    nothing = torch.zeros(batch.rewards.shape)
    before = Evaluation(nothing, nothing, nothing, torch.zeros(3))
    plain = {"whiten_advantages": False}
    ppo = to_ppo_batch(batch, before, AlgorithmSection(gae_lambda=0.5, **plain))
    # early: .75 now and .25 in two tokens: .75 + .25 * .25; late: 1 in two tokens
    torch.testing.assert_close(ppo.advantages[:2], torch.tensor([[0, 0.8125, 0.125, 0.25], [0, 0.25, 0.5, 1.0]]))
    grouped = to_ppo_batch(batch, before, AlgorithmSection(advantage="rloo", **plain)).advantages[:, 1:]
    torch.testing.assert_close(grouped, torch.tensor([0.5, 0.5, -1.0])[:, None].expand(3, 3))


def test_masked_responses_leave_the_update_but_not_the_baseline_of_their_group():
    batch = dataclasses.replace(random_batch(4, 8, VOCABULARY), truncated=torch.tensor([True, False, False, False]))
    settings = {"advantage": "rloo", "whiten_advantages": False}
    masked = to_ppo_batch(batch, evaluation(batch), AlgorithmSection(truncated="masked", **settings))
    plain = to_ppo_batch(batch, evaluation(batch), AlgorithmSection(**settings))
    assert not masked.action_mask[0].any()
    assert torch.equal(masked.action_mask[1:], batch.action_mask[1:])
    torch.testing.assert_close(masked.advantages[1:], plain.advantages[1:])


def test_responses_with_a_large_gap_leave_the_update():
    batch = random_batch(3, 8, VOCABULARY)
    before = evaluation(batch)
    off = before.logprobs.clone()
    off[1] -= 0.2
    ppo = to_ppo_batch(dataclasses.replace(batch, rollout_logprobs=off), before, AlgorithmSection(gap_limit=0.1))
    assert ppo.action_mask.any(1).tolist() == [True, False, True]


# ---------------------------------------------------------------- every cut gives the same update


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("tiny") / "model")


class TwoRanksInTurn:
    """Two learners in one process: the parts of a batch that two ranks get, one after the other."""

    count = 2

    def __init__(self, learners):
        self.learners = learners

    def call(self, method, arguments, **common):
        return [getattr(learner, method)(*args, **common) for learner, args in zip(self.learners, arguments)]


EVERYTHING = {
    "ppo": {"gae_lambda": 0.9, "gamma": 0.99, "kl_reward_coef": 0.1, "entropy_coef": 0.01, "clip_ratio_high": 0.28},
    "vapo": {"lambda_alpha": 0.3, "critic_lambda": 1.0, "dual_clip": 3.0},
    "grpo": {"advantage": "grpo", "loss_average": "response", "kl_loss_coef": 0.1, "kl_loss_estimator": "k2"},
    "reinforce_pp": {"advantage": "reinforce_pp", "kl_reward_coef": 0.1, "kl_reward_estimator": "k3"},
    "masked": {"importance_cap": 2.0, "gap_limit": 4.0, "truncated": "masked", "loss_average": "response",
               "entropy_coef": 0.01},
}


def gradients(learner, pieces):
    """Whole gradients of one policy and one critic step, without taking them."""
    for trained in (learner.trained_policy, learner.trained_critic):
        if trained is not None:
            trained.optimizer.step = lambda: None
    steps = learner.update_policy(pieces, iteration=0, total=1)
    if learner.trained_critic is not None:
        steps += learner.update_critic(pieces, iteration=0, total=1)
    modules = [learner.policy, *([learner.trained_critic.module] if learner.trained_critic else [])]
    return steps, [p.grad.clone() for module in modules for p in module.parameters()]


@pytest.mark.parametrize("name", EVERYTHING)
def test_padded_cut_and_dealt_batches_have_the_same_losses_and_gradients(model_path, name):
    settings = AlgorithmSection(**EVERYTHING[name])
    critic = CriticSection(optimizer=OPTIMIZER) if settings.advantage == "gae" else None
    batch = random_batch(7, 14, VOCABULARY, seed=3)
    batch = dataclasses.replace(batch, truncated=torch.arange(7) == 2, rollout_logprobs=torch.where(
        batch.action_mask, torch.randn(7, 14, generator=torch.Generator().manual_seed(0)) * 0.3 - 3.9, 0.0))

    def learner(**changes):
        made = Learner(LearnerSection(**changes), model_path, trust_remote_code=False, device="cpu")
        made.begin_rl(OPTIMIZER, critic, settings, 1.0)
        return made

    plain = learner()
    ppo = to_ppo_batch(batch, plain.evaluate(batch), settings)
    moved = dataclasses.replace(ppo, old_logprobs=ppo.old_logprobs - 0.3 * torch.rand(7, 14) * ppo.action_mask)
    whole = whole_minibatch(moved)
    steps, expected = gradients(plain, [whole])
    # one row at a time, with more padding
    wide = {name: torch.nn.functional.pad(x, (0, 5)) for name, x in tensors_of(moved).items()}
    cut_steps, cut = gradients(learner(micro_batch_tokens=1), [dataclasses.replace(whole, batch=type(moved)(**wide))])
    # two ranks, whose gradients add up
    ranks = [learner(), learner()]
    hands = (torch.tensor([0, 3, 5]), torch.tensor([1, 2, 4, 6]))
    halves = [dataclasses.replace(whole, batch=take_rows(moved, rows)) for rows in hands]
    dealt = [gradients(rank, [half]) for rank, half in zip(ranks, halves)]
    for index, step in enumerate(steps):
        assert cut_steps[index]["loss"] == pytest.approx(step["loss"], rel=1e-4, abs=1e-6)
        assert sum(part[0][index]["loss"] for part in dealt) == pytest.approx(step["loss"], rel=1e-4, abs=1e-6)
    for a, b, c, d in zip(expected, cut, dealt[0][1], dealt[1][1]):
        scale = max(float(a.abs().max()), 1e-3)
        torch.testing.assert_close(b, a, atol=1e-4 * scale, rtol=1e-3)
        torch.testing.assert_close(c + d, a, atol=1e-4 * scale, rtol=1e-3)


def test_the_group_adds_the_sums_of_its_ranks(model_path):
    learners = []
    for _ in range(2):
        learners.append(Learner(LearnerSection(), model_path, trust_remote_code=False, device="cpu"))
        learners[-1].begin_rl(OPTIMIZER, None, AlgorithmSection(advantage="grpo"), 1.0)
    batch = random_batch(6, 12, VOCABULARY)
    group = LearnerGroup(TwoRanksInTurn(learners))
    before = group.evaluate(batch)
    torch.testing.assert_close(before.logprobs, learners[0].evaluate(batch).logprobs)
    pieces = minibatches(to_ppo_batch(batch, before, AlgorithmSection(advantage="grpo")), count=1, epochs=1, seed=0)
    step = group.update_policy(pieces, iteration=0, total=1)[0]
    assert step["tokens"] == int(batch.action_mask.sum())
    assert step["old_gap_max"] < 1e-5
