"""Losses and estimators against definitions written out token by token in plain Python, on ragged rows with holes."""

import math
from statistics import fmean, stdev

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rl.advantages import grpo, length_adaptive_lambda, rewards_to_go, rloo, whiten
from rl.batch import Evaluation, pad_tokens
from rl.losses import importance_weights, kl_estimate, policy_loss, response_weights, value_loss, within_gap
from rl.ppo import rewards_with_kl

torch.set_num_threads(1)
NUMBERS = st.floats(-2, 2, width=32)
SHARES = st.sampled_from([0.1, 0.2, 0.28])


@st.composite
def grids(draw, count):
    """(mask [B, T], then `count` tensors [B, T]); rows with holes, some without any sampled token."""
    rows, width = draw(st.integers(1, 4)), draw(st.integers(1, 7))
    grid = lambda s: [[draw(s) for _ in range(width)] for _ in range(rows)]  # noqa: E731
    mask = torch.tensor(grid(st.booleans())).bool()
    return mask, *(torch.tensor(grid(NUMBERS), dtype=torch.float64) for _ in range(count))


def sampled(mask):
    return [(b, t) for b in range(mask.shape[0]) for t in range(mask.shape[1]) if mask[b, t]]


def close(found, expected):
    torch.testing.assert_close(torch.as_tensor(found).double(), torch.as_tensor(expected).double(), atol=1e-5, rtol=1e-5)


# ---------------------------------------------------------------- losses


def surrogate(ratio, advantage, low, high, dual):
    """PPO's clipped objective of one token."""
    inside = min(max(ratio, 1 - low), 1 + high)
    worse = min(ratio * advantage, inside * advantage)
    return max(worse, dual * advantage) if dual is not None and advantage < 0 else worse


@settings(max_examples=80, deadline=None)
@given(grids(3), SHARES, SHARES, st.sampled_from([None, 1.5, 3.0]), st.booleans(), st.integers(0, 3))
def test_the_policy_loss_is_the_sum_over_sampled_tokens_however_rows_are_cut(grid, low, high, dual, by_response, cut):
    mask, logprobs, old, advantages = grid
    weights = response_weights(mask) if by_response else None
    responses = [b for b in range(len(mask)) if mask[b].any()]
    count = max(len(responses) if by_response else int(mask.sum()), 1)
    expected = 0.0
    for b, t in sampled(mask):
        ratio = math.exp(logprobs[b, t] - old[b, t])
        own = surrogate(ratio, float(advantages[b, t]), low, high, dual)
        expected -= own / (int(mask[b].sum()) if by_response else 1) / count
    for rows in (slice(None), slice(0, cut), slice(cut, None)):  # what stands outside the mask is never read
        for x in (logprobs, old, advantages):
            x[rows][~mask[rows]] = math.nan
    found = [
        policy_loss(logprobs[rows], old[rows], advantages[rows], mask[rows], clip_low=low, clip_high=high, token_count=count,
                    weights=None if weights is None else weights[rows], dual_clip=dual).loss
        for rows in (slice(0, cut), slice(cut, None))
    ]  # fmt: skip
    close(sum(found), expected)


@settings(max_examples=60, deadline=None)
@given(grids(3), st.sampled_from([None, 0.2, 1.0]), st.integers(0, 3))
def test_the_value_loss_is_the_sum_over_sampled_tokens_however_rows_are_cut(grid, clip, cut):
    mask, values, old, returns = grid
    count = max(int(mask.sum()), 1)
    expected = 0.0
    for b, t in sampled(mask):
        error = float((values[b, t] - returns[b, t]) ** 2)
        if clip is not None:
            near = float(old[b, t]) + min(max(float(values[b, t] - old[b, t]), -clip), clip)
            error = max(error, (near - float(returns[b, t])) ** 2)
        expected += 0.5 * error / count
    found = [value_loss(values[rows], old[rows], returns[rows], mask[rows], value_clip=clip, token_count=count)
             for rows in (slice(0, cut), slice(cut, None))]
    close(sum(found), expected)


@settings(max_examples=60, deadline=None)
@given(grids(2), st.sampled_from(["k1", "k2", "k3"]), st.floats(0, 2))
def test_kl_in_the_reward_is_taken_from_each_sampled_token(grid, kind, coef):
    mask, logprobs, reference = grid
    batch = pad_tokens([row.long().numpy() for row in mask], [row.numpy() for row in mask])
    batch.rewards[:, -1] = 1.0
    nothing = torch.zeros(len(mask))
    found = rewards_with_kl(batch, Evaluation(logprobs, reference, logprobs, nothing), coef, kind=kind)
    of = {"k1": lambda d: d, "k2": lambda d: d * d / 2, "k3": lambda d: math.exp(-d) - 1 + d}[kind]
    expected = batch.rewards.double().clone()
    for b, t in sampled(mask):
        expected[b, t] -= coef * of(float(logprobs[b, t] - reference[b, t]))
    close(found, expected)
    assert (kl_estimate(logprobs, reference, kind="k3") >= -1e-12).all()


@settings(max_examples=60, deadline=None)
@given(grids(2), st.sampled_from([0.5, 1.0, 2.0]), st.sampled_from([0.1, 0.5]))
def test_importance_weights_and_gap_are_those_of_each_token_and_response(grid, cap, limit):
    mask, old, engine = grid
    weights = importance_weights(old, engine, cap=cap)
    kept = within_gap(old, engine, mask, limit=limit)
    for b in range(len(mask)):
        gaps = [float(old[b, t] - engine[b, t]) for row, t in sampled(mask) if row == b]
        assert bool(kept[b]) == (abs(fmean(gaps)) <= limit if gaps else True)
        for t in range(mask.shape[1]):
            assert float(weights[b, t]) == pytest.approx(min(math.exp(old[b, t] - engine[b, t]), cap))


# ---------------------------------------------------------------- estimators


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.floats(-2, 2, width=32)), min_size=1, max_size=12), st.booleans())
def test_group_baselines_compare_each_response_with_those_of_its_prompt(pairs, by_std):
    groups, rewards = torch.tensor([g for g, _ in pairs]), torch.tensor([r for _, r in pairs], dtype=torch.float64)
    centred, left_out = [], []
    for i, (group, reward) in enumerate(pairs):
        own = [r for g, r in pairs if g == group]
        others = [r for j, (g, r) in enumerate(pairs) if g == group and j != i]
        spread = stdev(own) if len(own) > 1 else 0.0
        centred.append((reward - fmean(own)) / (spread + 1e-4 if by_std else 1))
        left_out.append(reward - fmean(others) if others else 0.0)
    close(rloo(rewards, groups), left_out)
    torch.testing.assert_close(grpo(rewards, groups, divide_by_std=by_std), torch.tensor(centred, dtype=torch.float64),
                               atol=1e-6, rtol=1e-6)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(grids(1), st.sampled_from([0.0, 0.9, 1.0]))
def test_rewards_to_go_and_whitening_are_their_definitions(grid, gamma):
    mask, rewards = grid
    to_go = rewards_to_go(rewards.float(), mask, gamma=gamma)
    for b in range(len(mask)):
        own = [float(rewards[b, t]) for row, t in sampled(mask) if row == b]
        found = [float(to_go[b, t]) for row, t in sampled(mask) if row == b]
        assert found == pytest.approx([sum(gamma**k * r for k, r in enumerate(own[i:])) for i in range(len(own))], abs=1e-5)
    numbers = [float(rewards[b, t]) for b, t in sampled(mask)]
    white = whiten(rewards, mask)
    assert not white[~mask].any()
    if numbers:
        mean = fmean(numbers)
        spread = math.sqrt(fmean([(x - mean) ** 2 for x in numbers]) + 1e-8)
        assert [float(white[b, t]) for b, t in sampled(mask)] == pytest.approx([(x - mean) / spread for x in numbers], abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(grids(0), st.sampled_from([0.05, 0.5, 2.0]))
def test_the_length_adaptive_lambda_grows_with_the_length_of_the_response(grid, alpha):
    (mask,) = grid
    for found, row in zip(length_adaptive_lambda(mask, alpha=alpha).tolist(), mask):
        assert found == pytest.approx(max(0.0, 1 - 1 / (alpha * max(int(row.sum()), 1))))
