"""Hand-written gradients against finite differences, and whole models against transformers' own forward and backward."""

import copy

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from rl import fused_kernels
from rl.fused_layers import RmsNorm, RotatedNorm, ShortAttention, causal_attention, fuse_layers

torch.set_num_threads(1)
SIZES = {"vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 8}


def random(*shape):
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def models(kind="qwen3"):
    torch.manual_seed(0)
    plain = Qwen3ForCausalLM(Qwen3Config(**SIZES)) if kind == "qwen3" else LlamaForCausalLM(LlamaConfig(**SIZES))
    with torch.no_grad():  # norms that are not the identity
        for name, x in plain.named_parameters():
            if "norm" in name:
                x.add_(torch.randn_like(x) * 0.3)
    fused = copy.deepcopy(plain)
    fuse_layers(fused)
    return plain, fused


def test_gradients_equal_finite_differences():
    torch.manual_seed(1)
    assert torch.autograd.gradcheck(lambda x, w: RmsNorm.apply(x, w, 1e-3), (random(2, 3, 4), random(4)))
    cos, sin = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    cos[:, 2:], sin[:, 2:] = cos[:, :2], sin[:, :2]  # the two halves turn by the same angle
    assert torch.autograd.gradcheck(
        lambda x, w: RotatedNorm.apply(x, w, cos, sin, 1e-3), (random(2, 3, 2, 4), random(4)))


@pytest.mark.parametrize("heads", [2, 4])
def test_short_attention_equals_the_attention_of_torch(heads):
    torch.manual_seed(1)
    q, k, v = torch.randn(2, heads, 7, 8), torch.randn(2, 2, 7, 8), torch.randn(2, 2, 7, 8)
    inputs = [x.requires_grad_() for x in (q, k, v)]
    weights = torch.randn(2, heads, 7, 8)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3, enable_gqa=True)
    found = ShortAttention.apply(q, k, v, 0.3)
    torch.testing.assert_close(found, expected)
    for a, b in zip(torch.autograd.grad((found * weights).sum(), inputs),
                    torch.autograd.grad((expected * weights).sum(), inputs)):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(causal_attention(q, k, v, 0.3), expected)


@pytest.mark.parametrize("kind", ["qwen3", "llama"])
@pytest.mark.parametrize("length", [5, 90])
def test_a_model_has_the_same_outputs_and_gradients(kind, length):
    plain, fused = models(kind)
    ids = torch.randint(0, 40, (3, length))
    weights = torch.randn(3, length, 40)
    for model in (plain, fused):
        (model(ids).logits * weights).mean().backward()
    torch.testing.assert_close(fused(ids).logits, plain(ids).logits, atol=2e-5, rtol=1e-4)
    for (name, a), b in zip(plain.named_parameters(), fused.parameters()):
        torch.testing.assert_close(b.grad, a.grad, atol=1e-6, rtol=1e-3, msg=name)


def test_a_copy_works_on_its_own_weights():
    _, fused = models()
    ids = torch.randint(0, 40, (2, 6))
    expected = fused(ids).logits
    twin = copy.deepcopy(fused)
    for x in fused.parameters():
        x.data.zero_()
    torch.testing.assert_close(twin(ids).logits, expected)


def test_masks_and_caches_take_the_path_of_transformers():
    plain, fused = models()
    ids = torch.randint(3, 40, (2, 6))
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6])
    a, b = (m.eval().generate(ids, attention_mask=mask, max_new_tokens=5, do_sample=False, pad_token_id=0) for m in (plain, fused))
    assert torch.equal(a, b)


def test_kernels_are_compiled_where_no_folder_keeps_them(monkeypatch):
    from numba.core import caching

    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    monkeypatch.setattr(fused_kernels, "_compile", fused_kernels._compile.__wrapped__)  # not the one compiled before
    x, y, inverse = torch.randn(2, 4), torch.empty(2, 4), torch.empty(2)
    fused_kernels.rms_norm(x.numpy(), torch.ones(4).numpy(), 1e-6, y.numpy(), inverse.numpy())
    torch.testing.assert_close(y, torch.nn.functional.rms_norm(x, (4,), eps=1e-6))


def test_no_weight_is_shared_with_numpy():
    # FSDP frees gathered weights by resizing their storage, which torch refuses once an array has shared it
    _, fused = models()
    fused(torch.randint(0, 40, (2, 6))).logits.sum().backward()
    assert all(x.untyped_storage().resizable() for x in fused.parameters())
