"""Losses against numbers worked by hand, and the rule that the losses of micro-batches add up."""

import math

import pytest
import torch

from rl.losses import (
    adapted_kl_coef,
    importance_weights,
    kl_estimate,
    policy_loss,
    response_weights,
    value_loss,
    within_gap,
)

torch.set_num_threads(1)


def row(*numbers: float) -> torch.Tensor:
    return torch.tensor([numbers], dtype=torch.float64)


def clipped(ratio: float, advantage: float, **changes: float) -> float:
    settings = {"clip_low": 0.2, "clip_high": 0.2, "token_count": 1} | changes
    logprobs = row(math.log(ratio))
    return float(policy_loss(logprobs, row(0), row(advantage), row(1).bool(), **settings).loss)


def test_policy_loss_inside_the_trust_region_is_minus_ratio_times_advantage():
    assert clipped(1.1, 2.0) == pytest.approx(-2.2)


def test_policy_loss_is_clipped_only_where_clipping_makes_it_worse():
    assert clipped(1.5, 2.0) == pytest.approx(-2.4)  # min(3.0, 1.2 * 2)
    assert clipped(0.5, 2.0) == pytest.approx(-1.0)  # min(1.0, 1.6): no gain from clipping
    assert clipped(0.5, -2.0) == pytest.approx(1.6)  # min(-1.0, 0.8 * -2)
    assert clipped(1.5, -2.0) == pytest.approx(3.0)  # min(-3.0, -2.4)


def test_clip_high_widens_the_region_above_alone():
    assert clipped(1.5, 2.0, clip_high=0.4) == pytest.approx(-2.8)
    assert clipped(0.5, -2.0, clip_high=0.4) == pytest.approx(1.6)


def test_a_clipped_token_has_no_gradient_and_is_counted():
    logprobs = row(math.log(1.5), math.log(1.1)).requires_grad_()
    out = policy_loss(
        logprobs, row(0, 0), row(1, 1), row(1, 1).bool(), clip_low=0.2, clip_high=0.2, token_count=2
    )
    out.loss.backward()
    assert logprobs.grad.tolist() == [[0, pytest.approx(-1.1 / 2)]]
    assert float(out.clipped_tokens) == 1
    # approx_kl: (1.5 - 1 - ln 1.5) + (1.1 - 1 - ln 1.1)
    assert float(out.approx_kl_sum) == pytest.approx(0.5 - math.log(1.5) + 0.1 - math.log(1.1))


def test_masked_tokens_have_neither_loss_nor_gradient():
    logprobs = row(0.1, 5.0).requires_grad_()
    out = policy_loss(
        logprobs, row(0, math.nan), row(1, math.nan), row(1, 0).bool(), clip_low=0.2, clip_high=0.2, token_count=1
    )
    out.loss.backward()
    assert float(out.loss) == pytest.approx(-math.exp(0.1))
    assert logprobs.grad[0, 1] == 0


def test_importance_weights_are_the_capped_ratio_of_trainer_to_engine():
    weights = importance_weights(row(0.0, math.log(20)), row(math.log(2), 0.0), cap=8)
    assert weights.tolist() == [[pytest.approx(0.5), pytest.approx(8)]]
    out = policy_loss(
        row(0), row(0), row(3), row(1).bool(), clip_low=0.2, clip_high=0.2, token_count=1, weights=row(0.5)
    )
    assert float(out.loss) == pytest.approx(-1.5)


def test_value_loss_takes_the_worse_of_plain_and_clipped():
    # V .9 from .5, return 1: plain (.1)^2 = .01, clipped to .7: (.3)^2 = .09
    loss = value_loss(row(0.9), row(0.5), row(1.0), row(1).bool(), value_clip=0.2, token_count=1)
    assert float(loss) == pytest.approx(0.045)
    unclipped = value_loss(row(0.9), row(0.5), row(1.0), row(1).bool(), value_clip=None, token_count=1)
    assert float(unclipped) == pytest.approx(0.005)


def test_kl_estimators_by_hand():
    # log p - log q = ln 2
    d = math.log(2)
    assert float(kl_estimate(row(d), row(0), kind="k1")) == pytest.approx(d)
    assert float(kl_estimate(row(d), row(0), kind="k2")) == pytest.approx(d * d / 2)
    assert float(kl_estimate(row(d), row(0), kind="k3")) == pytest.approx(0.5 - 1 + d)


def test_k1_and_k3_are_unbiased():
    # p = (.7, .3), q = (.4, .6): expectations under p are the exact KL
    p, q = torch.tensor([0.7, 0.3]), torch.tensor([0.4, 0.6])
    exact = float((p * (p / q).log()).sum())
    for kind in ("k1", "k3"):
        assert float((p * kl_estimate(p.log(), q.log(), kind=kind)).sum()) == pytest.approx(exact, abs=1e-6)


def test_the_gradient_of_k2_is_the_gradient_of_the_kl():
    logits, q = torch.tensor([0.3, -0.2, 0.5], requires_grad=True), torch.tensor([0.2, 0.5, 0.3])
    p = logits.softmax(0)
    (exact,) = torch.autograd.grad((p * (p / q).log()).sum(), logits, retain_graph=True)
    (estimated,) = torch.autograd.grad((p.detach() * kl_estimate(p.log(), q.log(), kind="k2")).sum(), logits)
    torch.testing.assert_close(exact, estimated)


def test_an_unknown_kl_estimator_is_named():
    with pytest.raises(ValueError, match="'k4' is not one of k1, k2, k3"):
        kl_estimate(row(0), row(0), kind="k4")


def test_losses_of_micro_batches_add_up_to_the_loss_of_the_whole():
    generator = torch.Generator().manual_seed(1)
    make = lambda: torch.randn(6, 5, generator=generator, dtype=torch.float64) * 0.3  # noqa: E731
    logprobs, old, advantages, values, old_values, returns = (make() for _ in range(6))
    mask = torch.rand(6, 5, generator=generator) > 0.4
    count = int(mask.sum())
    settings = {"clip_low": 0.2, "clip_high": 0.2, "token_count": count}
    whole = policy_loss(logprobs, old, advantages, mask, **settings).loss
    parts = [policy_loss(*(x[s] for x in (logprobs, old, advantages, mask)), **settings).loss
             for s in (slice(0, 1), slice(1, 4), slice(4, 6))]
    torch.testing.assert_close(whole, sum(parts))
    whole = value_loss(values, old_values, returns, mask, value_clip=0.2, token_count=count)
    parts = [value_loss(*(x[s] for x in (values, old_values, returns, mask)), value_clip=0.2, token_count=count)
             for s in (slice(0, 2), slice(2, 6))]
    torch.testing.assert_close(whole, sum(parts))


def test_dual_clip_bounds_the_loss_of_a_bad_token_that_became_likely():
    # ratio 5, A -2: min(-10, 1.2 * -2) = -10, dual clip 3 bounds it at -6; A 2 is not touched
    assert clipped(5.0, -2.0) == pytest.approx(10.0)
    assert clipped(5.0, -2.0, dual_clip=3.0) == pytest.approx(6.0)
    assert clipped(2.0, -2.0, dual_clip=3.0) == pytest.approx(4.0)
    assert clipped(5.0, 2.0, dual_clip=3.0) == pytest.approx(-2.4)


def test_response_weights_make_each_response_count_alike():
    mask = torch.tensor([[1, 1, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0]]).bool()
    weights = response_weights(mask)
    assert weights.tolist() == [[pytest.approx(1 / 3), pytest.approx(1 / 3), 0, pytest.approx(1 / 3)], [0, 1, 0, 0], [0] * 4]
    # with ratio 1: -(1/2) * (mean of A over each response) = -(2 + 6) / 2
    advantages = torch.tensor([[1.0, 2, 9, 3], [9, 6, 9, 9], [9, 9, 9, 9]])
    zeros = torch.zeros(3, 4)
    loss = policy_loss(zeros, zeros, advantages, mask, clip_low=0.2, clip_high=0.2, token_count=2, weights=weights).loss
    assert float(loss) == pytest.approx(-4.0)


def test_responses_on_which_engine_and_trainer_disagree_are_found_by_their_mean_log_ratio():
    mask = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 0]]).bool()
    old = torch.tensor([[0.3, -0.1, 99.0], [0.3, 0.1, 0.0], [1.0, 1.0, 1.0]])  # means .1, .2, none
    assert within_gap(old, torch.zeros(3, 3), mask, limit=0.15).tolist() == [True, False, True]


def test_the_adapted_kl_coefficient_by_hand():
    # 6 nats for a target of 4: error .5, clipped to .2; 1,000 of 10,000 responses: factor 1.02
    settings = {"target": 4.0, "horizon": 10000, "responses": 1000}
    assert adapted_kl_coef(0.1, 6.0, **settings) == pytest.approx(0.102)
    assert adapted_kl_coef(0.1, 3.6, **settings) == pytest.approx(0.1 * (1 - 0.1 * 0.1))
    assert adapted_kl_coef(0.1, 0.0, **settings) == pytest.approx(0.098)
