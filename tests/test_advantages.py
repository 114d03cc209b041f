"""GAE and its kin against numbers worked by hand, a slow oracle, and properties."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rl import advantages as advantages_module
from rl.advantages import explained_variance, gae, grpo, length_adaptive_lambda, rewards_to_go, rloo, whiten
from rl.gae_kernel import gae_scan

torch.set_num_threads(1)


def row(*numbers: float) -> torch.Tensor:
    return torch.tensor([numbers], dtype=torch.float32)


def oracle(rewards, values, mask, gamma, lam, bootstrap=None):
    """The definition as a sum: A_t = sum_l (gamma lam)^l delta_{t+l}, over the sampled tokens of one row, in float64."""
    advantages = torch.zeros(rewards.shape, dtype=torch.float64)
    for b in range(len(rewards)):
        sampled = [t for t in range(rewards.shape[1]) if mask[b, t]]
        v = [float(values[b, t]) for t in sampled] + [0.0 if bootstrap is None else float(bootstrap[b])]
        deltas = [float(rewards[b, t]) + gamma * v[i + 1] - v[i] for i, t in enumerate(sampled)]
        for i, t in enumerate(sampled):
            advantages[b, t] = sum((gamma * lam) ** k * delta for k, delta in enumerate(deltas[i:]))
    return advantages


@st.composite
def batches(draw):
    """Ragged rows with holes (prompt, tool output, padding), some without any sampled token."""
    rows, width = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    numbers = st.floats(-3, 3, width=32)
    grid = lambda s: torch.tensor([[draw(s) for _ in range(width)] for _ in range(rows)])  # noqa: E731
    bootstrap = torch.tensor([draw(numbers) for _ in range(rows)])
    return grid(numbers), grid(numbers), grid(st.booleans()).bool(), bootstrap


def test_gae_skips_tool_output_between_sampled_tokens():
    # A_2 = 1 - 0.25 = 0.75;  A_0 = (0.9 * 0.25 - 0.5) + 0.9 * 0.8 * 0.75 = 0.265
    advantages, returns = gae(row(0, 7, 1), row(0.5, 99, 0.25), row(1, 0, 1).bool(), gamma=0.9, lam=0.8)
    torch.testing.assert_close(advantages, row(0.265, 0, 0.75))
    torch.testing.assert_close(returns, row(0.765, 0, 1.0))


def test_gae_with_gamma_and_lambda_one_is_reward_to_go_minus_value():
    # returns: 3, 2, 2; values .5, .25, 1
    advantages, returns = gae(row(1, 0, 2), row(0.5, 0.25, 1), row(1, 1, 1).bool(), gamma=1, lam=1)
    torch.testing.assert_close(returns, row(3, 2, 2))
    torch.testing.assert_close(advantages, row(2.5, 1.75, 1))


def test_gae_with_lambda_zero_is_one_step_td():
    # deltas: 1 + .5*.25 - .5 = .625;  2 + .5*0 - .25 = 1.75
    advantages, _ = gae(row(1, 2), row(0.5, 0.25), row(1, 1).bool(), gamma=0.5, lam=0)
    torch.testing.assert_close(advantages, row(0.625, 1.75))


def test_gae_bootstraps_a_cut_response_from_the_critic():
    # delta = 0 + .9 * 2 - .5 = 1.3
    advantages, returns = gae(row(0), row(0.5), row(1).bool(), gamma=0.9, lam=0.95, bootstrap=torch.tensor([2.0]))
    torch.testing.assert_close(advantages, row(1.3))
    torch.testing.assert_close(returns, row(1.8))


def test_what_stands_outside_the_mask_is_never_read():
    nan = math.nan
    advantages, returns = gae(row(nan, 1, nan), row(nan, 0.5, nan), row(0, 1, 0).bool(), gamma=0.9, lam=0.9)
    torch.testing.assert_close(advantages, row(0, 0.5, 0))
    torch.testing.assert_close(returns, row(0, 1, 0))


def test_gae_refuses_tensors_of_different_shape():
    with pytest.raises(ValueError, match=r"rewards \(1, 2\), values \(1, 1\)"):
        gae(row(1, 2), row(1), row(1, 1).bool(), gamma=1, lam=1)
    with pytest.raises(ValueError, match=r"bootstrap \(2,\)"):
        gae(row(1), row(1), row(1).bool(), gamma=1, lam=1, bootstrap=torch.zeros(2))


@settings(max_examples=150, deadline=None)
@given(batches(), st.sampled_from([0.0, 0.5, 0.9, 1.0]), st.sampled_from([0.0, 0.3, 0.95, 1.0]), st.booleans())
def test_gae_equals_the_oracle(batch, gamma, lam, with_bootstrap):
    rewards, values, mask, last = batch
    bootstrap = last if with_bootstrap else None
    expected = oracle(rewards, values, mask, gamma, lam, bootstrap)
    advantages, returns = gae(rewards, values, mask, gamma=gamma, lam=lam, bootstrap=bootstrap)
    torch.testing.assert_close(advantages.double(), expected, atol=1e-4, rtol=1e-4)
    expected_returns = torch.where(mask, expected + values.double(), 0.0)
    torch.testing.assert_close(returns.double(), expected_returns, atol=1e-4, rtol=1e-4)


@settings(max_examples=150, deadline=None)
@given(batches(), st.sampled_from([0.0, 0.5, 0.9, 1.0]), st.sampled_from([0.0, 0.3, 0.95, 1.0]), st.booleans())
def test_the_compiled_recursion_equals_the_oracle(batch, gamma, lam, with_bootstrap):
    rewards, values, mask, last = batch
    after = last if with_bootstrap else torch.zeros(len(rewards))
    expected = oracle(rewards, values, mask, gamma, lam, after)
    rewards[~mask] = values[~mask] = math.nan  # never read
    decay = torch.full((1, 1), gamma * lam, dtype=torch.float64)
    advantages, returns = gae_scan(rewards, values, mask, after, gamma, decay)
    torch.testing.assert_close(advantages.double(), expected, atol=1e-5, rtol=1e-5)
    values[~mask] = 0
    torch.testing.assert_close(returns.double(), torch.where(mask, expected + values, 0.0), atol=1e-5, rtol=1e-5)


def test_a_large_batch_is_compiled_and_equals_the_tensors(monkeypatch):
    torch.manual_seed(0)
    rewards, values, mask = torch.randn(6, 300), torch.randn(6, 300).T.contiguous().T, torch.rand(6, 300) > 0.3
    lam, bootstrap = torch.tensor([0.0, 0.7, 1.0, 0.9, 0.95, 1.0]), torch.randn(6)
    plain = gae(rewards, values, mask, gamma=0.99, lam=lam, bootstrap=bootstrap)
    monkeypatch.setattr(advantages_module, "_COMPILED_FROM", 6 * 300)
    monkeypatch.setattr(advantages_module, "_gae_of_tensors", None)  # so that only compiled code can answer
    compiled = gae(rewards, values, mask, gamma=0.99, lam=lam, bootstrap=bootstrap)
    for a, b in zip(plain, compiled):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-5)


@settings(max_examples=50, deadline=None)
@given(batches(), st.integers(0, 5))
def test_gae_does_not_depend_on_padding(batch, extra):
    rewards, values, mask, _ = batch
    pad = lambda x: torch.nn.functional.pad(x, (0, extra))  # noqa: E731
    plain, _ = gae(rewards, values, mask, gamma=0.9, lam=0.8)
    padded, _ = gae(pad(rewards), pad(values), pad(mask), gamma=0.9, lam=0.8)
    torch.testing.assert_close(pad(plain), padded)


def test_the_oracle_notices_an_estimator_that_lets_tool_output_decay_credit():
    # The mistake that peers make: a masked token still multiplies by gamma * lambda.
    rewards, values, mask = row(0, 7, 1), row(0.5, 99, 0.25), row(1, 0, 1).bool()
    decayed = (0.9 * 0.25 - 0.5) + (0.9 * 0.8) ** 2 * 0.75
    assert abs(decayed - float(oracle(rewards, values, mask, 0.9, 0.8)[0, 0])) > 0.1


def test_gae_agrees_with_the_recursion_in_cleanrl_form():
    # CleanRL's ppo.py: delta = r + gamma * V' * nonterminal - V; last = delta + gamma * lam * nonterminal * last
    generator = torch.Generator().manual_seed(0)
    rewards, values = torch.randn(3, 50, generator=generator), torch.randn(3, 50, generator=generator)
    last = torch.zeros(3)
    expected = torch.zeros(3, 50)
    for t in reversed(range(50)):
        nonterminal = 0.0 if t == 49 else 1.0
        following = values[:, t + 1] if t < 49 else torch.zeros(3)
        delta = rewards[:, t] + 0.99 * following * nonterminal - values[:, t]
        last = expected[:, t] = delta + 0.99 * 0.95 * nonterminal * last
    advantages, _ = gae(rewards, values, torch.ones(3, 50).bool(), gamma=0.99, lam=0.95)
    torch.testing.assert_close(advantages, expected, atol=1e-5, rtol=1e-5)


def test_each_trajectory_can_have_its_own_lambda():
    rewards, values, mask = torch.randn(3, 70), torch.randn(3, 70), torch.rand(3, 70) > 0.3
    lam = torch.tensor([0.0, 0.7, 1.0])
    together, _ = gae(rewards, values, mask, gamma=0.9, lam=lam)
    for b in range(3):
        alone, _ = gae(rewards[b : b + 1], values[b : b + 1], mask[b : b + 1], gamma=0.9, lam=float(lam[b]))
        torch.testing.assert_close(together[b : b + 1], alone)


def test_long_rows_and_many_rows_equal_the_oracle():
    # longer than several levels of chunks; rows of all kinds in one block
    torch.manual_seed(0)
    rewards, values, mask = torch.randn(4, 2500), torch.randn(4, 2500), torch.rand(4, 2500) > 0.2
    mask[0] = True
    mask[1, 700:] = False
    bootstrap = torch.randn(4)
    for gamma, lam in ((1.0, 1.0), (0.99, 0.95)):
        expected = torch.zeros(4, 2500, dtype=torch.float64)
        for b in range(4):
            following, carry = float(bootstrap[b]), 0.0
            for t in reversed(range(2500)):
                if mask[b, t]:
                    carry = float(rewards[b, t]) + gamma * following - float(values[b, t]) + gamma * lam * carry
                    following = float(values[b, t])
                    expected[b, t] = carry
        advantages, _ = gae(rewards, values, mask, gamma=gamma, lam=lam, bootstrap=bootstrap)
        torch.testing.assert_close(advantages.double(), expected, atol=2e-4, rtol=1e-5)


def test_length_adaptive_lambda_by_hand():
    # alpha .05: 400 tokens -> 1 - 1/20 = .95; 40 -> .5; 10 -> 1 - 2, at least 0
    mask = torch.arange(400) < torch.tensor([400, 40, 10])[:, None]
    assert length_adaptive_lambda(mask, alpha=0.05).tolist() == pytest.approx([0.95, 0.5, 0.0])


def test_rewards_to_go_skip_what_was_not_sampled():
    # A_3 = 2; A_1 = -1 + .5 * 2 = 0; A_0 = -1 + .5 * 0 = -1
    found = rewards_to_go(row(-1, -1, 7, 2), row(1, 1, 0, 1).bool(), gamma=0.5)
    torch.testing.assert_close(found, row(-1, 0, 0, 2))


def test_dr_grpo_only_subtracts_the_mean_of_the_group():
    assert grpo(torch.tensor([0.0, 4.0]), torch.tensor([0, 0]), divide_by_std=False).tolist() == [-2, 2]


def test_whiten_gives_mean_zero_and_variance_one_over_masked_entries_alone():
    # entries 1, 3: mean 2, variance 1
    torch.testing.assert_close(whiten(row(1, 100, 3), row(1, 0, 1).bool()), row(-1, 0, 1))


def test_whiten_of_equal_entries_is_zero():
    torch.testing.assert_close(whiten(row(2, 2), row(1, 1).bool()), row(0, 0))


def test_whiten_ignores_nan_outside_the_mask():
    assert whiten(row(1, math.nan, 3), row(1, 0, 1).bool()).tolist() == [[pytest.approx(-1), 0, pytest.approx(1)]]


def test_grpo_standardises_within_each_group():
    # group 0: 0, 1 -> mean .5, std sqrt(.5);  group 1: 5, 5 -> 0
    advantages = grpo(torch.tensor([0.0, 5.0, 1.0, 5.0]), torch.tensor([0, 1, 0, 1]), epsilon=0)
    expected = 0.5 / math.sqrt(0.5)
    assert advantages[[0, 2]].tolist() == pytest.approx([-expected, expected])
    assert grpo(torch.tensor([5.0, 5.0]), torch.tensor([0, 0])).tolist() == [0, 0]


def test_rloo_subtracts_the_mean_of_the_other_samples():
    # 3 - (0 + 0)/2 = 3;  0 - (3 + 0)/2 = -1.5; a group of one has no other sample
    advantages = rloo(torch.tensor([3.0, 0.0, 0.0, 7.0]), torch.tensor([0, 0, 0, 1]))
    assert advantages.tolist() == pytest.approx([3, -1.5, -1.5, 0])


def test_explained_variance_of_perfect_constant_and_wrong_critics():
    returns, mask = row(0, 2, 99), row(1, 1, 0).bool()
    assert explained_variance(row(0, 2, 0), returns, mask) == pytest.approx(1)
    assert explained_variance(row(1, 1, 0), returns, mask) == pytest.approx(0)
    assert explained_variance(row(2, 0, 0), returns, mask) == pytest.approx(-3)  # residuals -2, 2: variance 4 over 1
    assert explained_variance(row(0, 0, 0), row(1, 1, 1), mask) == 0
