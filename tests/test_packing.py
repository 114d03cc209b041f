"""Packed rows against padded ones: the same hidden states and gradients, and nothing seen of another row."""

import copy

import pytest
import torch
from fakes import random_batch, tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st

from rl.batch import micro_batches
from rl.models import Policy, critic_like, load_language_model

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    return load_language_model(tiny_model(tmp_path_factory.mktemp("tiny") / "model"))


def outputs_and_gradients(module, run):
    module.zero_grad()
    out = run(module)
    out.square().sum().backward()
    return [out.detach(), *(p.grad for p in module.parameters() if p.grad is not None)]


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 6), st.integers(3, 20), st.integers(0, 1000))
def test_packed_rows_have_the_values_logprobs_and_gradients_of_padded_ones(language_model, rows, width, seed):
    batch = random_batch(rows, width, 50, seed=seed)
    lengths = batch.attention_mask.sum(1)
    policies = [Policy(copy.deepcopy(language_model), packed=packed, head_chunk_tokens=7) for packed in (False, True)]
    critics = [critic_like(language_model, packed=packed) for packed in (False, True)]
    for critic in critics:
        torch.nn.init.ones_(critic.value_head.weight)
    scored = lambda m: m(batch.token_ids, batch.action_mask, 0.8, "gradient", lengths=lengths)  # noqa: E731
    ways = [
        (policies, lambda m: scored(m).logprobs + scored(m).entropy),
        (critics, lambda m: m(batch.token_ids, lengths=lengths)[:, :-1] * batch.action_mask),
    ]
    for modules, run in ways:
        padded, packed = (outputs_and_gradients(module, run) for module in modules)
        assert len(padded) == len(packed) > 10
        for one, other in zip(padded, packed):
            scale = one.abs().max().clamp(min=1e-3)
            torch.testing.assert_close(other / scale, one / scale, atol=2e-5, rtol=1e-4)


def test_a_packed_row_does_not_see_the_others(language_model):
    critic = critic_like(language_model, packed=True)
    torch.nn.init.ones_(critic.value_head.weight)
    tokens, lengths = torch.randint(3, 50, (3, 8)), torch.tensor([8, 5, 3])
    changed = tokens.clone()
    changed[0] = torch.randint(3, 50, (8,))
    with torch.no_grad():
        before, after = critic(tokens, lengths=lengths), critic(changed, lengths=lengths)
        alone = critic(tokens[1:2], lengths=lengths[1:2])
    torch.testing.assert_close(after[1:], before[1:])
    torch.testing.assert_close(alone[0, 1:6], before[1, 1:6])
    assert not torch.allclose(after[0], before[0])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.integers(1, 40))
def test_packed_pieces_hold_every_row_once_and_as_many_as_fit(lengths, budget):
    mask = torch.arange(9) < torch.tensor(lengths)[:, None]
    pieces = micro_batches(mask, max_tokens=budget, packed=True)
    assert sorted(torch.cat(pieces).tolist()) == list(range(len(lengths)))
    tokens = [[max(lengths[row], 1) for row in piece.tolist()] for piece in pieces]
    for piece, following in zip(tokens, [*tokens[1:], None]):
        assert sum(piece) <= budget or len(piece) == 1
        assert following is None or sum(piece) + following[0] > budget
