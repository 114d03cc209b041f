"""Collating, cutting and dealing rows."""

from dataclasses import replace

import torch
from fakes import random_batch, scored
from hypothesis import given, settings
from hypothesis import strategies as st

from rl.batch import PPOBatch, collate, deal_rows, micro_batches, minibatches, take_rows
from rollouts.trajectory import FinishReason


def test_collate_pads_on_the_right_and_puts_the_reward_on_the_last_sampled_token():
    batch = collate([scored(0.5, [7, 8], [9]), scored(2.0, [7], [5, 6, 4])])
    assert batch.token_ids.tolist() == [[7, 8, 9, 0], [7, 5, 6, 4]]
    assert batch.attention_mask.tolist() == [[True, True, True, False], [True] * 4]
    assert batch.action_mask.tolist() == [[False, False, True, False], [False, True, True, True]]
    assert batch.rewards.tolist() == [[0, 0, 0.5, 0], [0, 0, 0, 2.0]]


def test_samples_of_one_prompt_are_one_group():
    batch = collate([scored(0, [1], [2], content=c) for c in ("a", "b", "a")])
    assert batch.groups.tolist() == [0, 1, 0]


def test_a_cut_response_gets_the_truncated_reward():
    cut = scored(1.0, [1], [2], reason=FinishReason.LENGTH)
    assert collate([cut], truncated_reward=-2.0).rewards.tolist() == [[0, -2.0]]
    assert collate([cut]).rewards.tolist() == [[0, 1.0]]
    assert collate([cut]).truncated.tolist() == [True]


def test_partial_rewards_sit_on_their_sampled_tokens_and_the_rest_on_the_last_one():
    one = scored(1.0, [7, 8], [9, 4, 5])
    hole = one.trajectory.action_mask.copy()
    hole[3] = False  # tool output: the second sampled token is the fifth of the row
    item = replace(one, trajectory=replace(one.trajectory, action_mask=hole), partial=((0, 0.25), (1, 0.5)))
    assert collate([item]).rewards.tolist() == [[0, 0, 0.25, 0, 0.75]]  # 0.5 of its own and the 0.25 that are left
    assert collate([item]).rewards.sum() == 1.0


def test_a_cut_response_with_a_truncated_reward_keeps_no_partial_rewards():
    cut = replace(scored(1.0, [1], [2, 3], reason=FinishReason.LENGTH), partial=((0, 0.5),))
    assert collate([cut], truncated_reward=-2.0).rewards.tolist() == [[0, 0, -2.0]]
    assert collate([cut]).rewards.tolist() == [[0, 0.5, 0.5]]


def test_take_rows_cuts_columns_that_are_only_padding():
    batch = collate([scored(0, [7, 8], [9]), scored(0, [7], [5, 6, 4])])
    assert take_rows(batch, torch.tensor([0])).token_ids.tolist() == [[7, 8, 9]]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 120))
def test_micro_batches_hold_every_row_once_within_the_budget(lengths, max_tokens):
    mask = torch.arange(50) < torch.tensor(lengths)[:, None]
    pieces = micro_batches(mask, max_tokens=max_tokens)
    assert sorted(int(row) for piece in pieces for row in piece) == list(range(len(lengths)))
    for piece in pieces:
        longest = max(lengths[int(row)] for row in piece)
        assert len(piece) == 1 or len(piece) * longest <= max_tokens


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 5))
def test_deal_rows_gives_every_row_to_one_rank_and_balances_tokens(lengths, ranks):
    mask = torch.arange(50) < torch.tensor(lengths)[:, None]
    hands = deal_rows(mask, ranks)
    assert sorted(int(row) for hand in hands for row in hand) == list(range(len(lengths)))
    tokens = [sum(lengths[int(row)] for row in hand) for hand in hands]
    assert max(tokens) - min(tokens) <= max(lengths)


def test_minibatches_are_disjoint_cover_each_epoch_and_follow_the_seed():
    ppo = PPOBatch.of_tokens(random_batch(10, 8, 20))
    pieces = minibatches(ppo, count=3, epochs=2, seed=5)
    assert [len(piece.batch.token_ids) for piece in pieces] == [4, 3, 3, 4, 3, 3]
    for epoch in (pieces[:3], pieces[3:]):
        assert sum(piece.token_count for piece in epoch) == int(ppo.action_mask.sum())
    again = minibatches(ppo, count=3, epochs=2, seed=5)
    other = minibatches(ppo, count=3, epochs=2, seed=6)
    same = [torch.equal(a.batch.token_ids, b.batch.token_ids) for a, b in zip(pieces, again)]
    assert all(same)
    assert not all(
        a.batch.token_ids.shape == b.batch.token_ids.shape and torch.equal(a.batch.token_ids, b.batch.token_ids)
        for a, b in zip(pieces, other)
    )
