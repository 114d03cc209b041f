"""The cache with room and the attention over it, against those of transformers and torch."""

import torch
from fakes import tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM
from transformers.cache_utils import DynamicLayer

from rollouts.decoding_attention import one_token_attention, use_decoding_attention
from rollouts.growing_cache import GrowingLayer


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(st.integers(1, 40), st.lists(st.integers(0, 9), min_size=1, max_size=6)), min_size=1, max_size=8))
def test_the_cache_with_room_holds_what_the_plain_one_holds(steps):
    torch.manual_seed(0)
    ours, plain = GrowingLayer(), DynamicLayer()
    rows = 4
    for step in [3, *steps]:
        if isinstance(step, int):  # so many tokens of every row
            keys, values = torch.randn(2, rows, 2, step, 4)
            found, expected = ours.update(keys, values), plain.update(keys, values)
            assert all(torch.equal(a, b) for a, b in zip(found, expected))
        else:  # some rows, in another order, some of them twice
            chosen = torch.tensor([index % rows for index in step])
            ours.batch_select_indices(chosen)
            plain.batch_select_indices(chosen)
            rows = len(chosen)
    assert ours.get_seq_length() == plain.get_seq_length()
    assert torch.equal(ours.keys, plain.keys) and torch.equal(ours.values, plain.values)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.sampled_from([(1, 1), (4, 2), (6, 1), (3, 3)]), st.integers(1, 12), st.booleans())
def test_the_attention_of_one_token_is_that_of_torch(rows, heads, length, masked):
    torch.manual_seed(length)
    query, room = torch.randn(rows, heads[0], 1, 8), torch.randn(2, rows, heads[1], length + 5, 8)
    key, value = room[:, :, :, :length]
    mask = torch.rand(rows, 1, 1, length) > 0.5 if masked else None
    if mask is not None:
        mask[..., -1] = True  # the new token sees itself
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=0.4, enable_gqa=True)
    torch.testing.assert_close(one_token_attention(query, key, value, mask, 0.4), expected.transpose(1, 2))


def test_a_model_that_decodes_in_this_way_says_the_same(tmp_path):
    model = AutoModelForCausalLM.from_pretrained(tiny_model(tmp_path / "model"), dtype=torch.float32).eval()
    ids, mask = torch.randint(3, 50, (2, 6)), torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6])

    def scores():
        made = model.generate(ids, attention_mask=mask, max_new_tokens=6, do_sample=False, pad_token_id=0, output_logits=True,
                              return_dict_in_generate=True)  # fmt: skip
        return torch.stack(made.logits)

    plain = scores()
    use_decoding_attention(model)
    assert model.config._attn_implementation != "sdpa"
    torch.testing.assert_close(scores(), plain, atol=1e-5, rtol=1e-4)
