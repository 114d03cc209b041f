"""A frozen base in four bits: its products, what is published of it, and adapters that learn on it."""

import copy
import importlib.util

import pytest
import torch
from fakes import random_batch, tiny_model
from pydantic import ValidationError
from transformers import AutoModelForCausalLM

from rl.batch import minibatches
from rl.errors import UserError
from rl.learner import Learner
from rl.lora import merged
from rl.ppo import to_ppo_batch
from rl.quantized import QuantizedLinear
from rl.recipe import AlgorithmSection, CriticSection, LearnerSection, OptimizerSection

try:
    import bitsandbytes  # noqa: F401
except ImportError:
    MISSING = True
else:
    MISSING = False
needs_bitsandbytes = pytest.mark.skipif(MISSING, reason='pip install "stepladder[quantized]"')

OPTIMIZER = OptimizerSection(learning_rate=1e-2)
ALGORITHM = AlgorithmSection(kl_loss_coef=0.01)


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def make(path):
    section = LearnerSection.model_validate({"lora": {"rank": 4, "alpha": 8, "base": "nf4"}})
    learner = Learner(section, str(path), trust_remote_code=False, device="cpu")
    learner.begin_rl(OPTIMIZER, CriticSection(optimizer=OPTIMIZER), ALGORITHM, 1.0)
    return learner


def update(learner, seed=0):
    batch = random_batch(6, 12, 50)
    pieces = minibatches(to_ppo_batch(batch, learner.evaluate(batch), ALGORITHM), count=2, epochs=1, seed=seed)
    learner.update_critic(pieces, iteration=0, total=1)
    learner.update_policy(pieces, iteration=0, total=1)
    return batch


@needs_bitsandbytes
def test_a_layer_multiplies_by_the_levels_of_nf4_nearest_to_its_weight():
    # one block of 64: its largest number is 4, so the levels are 4 times those of NF4; 0.3 / 4 is nearest to 0.0796
    weight = torch.zeros(1, 64)
    weight[0, :3] = torch.tensor([4.0, 0.3, -4.0])
    layer = torch.nn.Linear(64, 1)
    layer.weight.data.copy_(weight)
    layer.bias.data.fill_(0.5)
    quantized = QuantizedLinear(layer)
    torch.testing.assert_close(quantized.weight()[0, :4], torch.tensor([4, 4 * 0.0795803, -4, 0]))
    x = torch.randn(2, 3, 64, requires_grad=True)
    y = quantized(x)
    torch.testing.assert_close(y, x @ quantized.weight().T + 0.5)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(gradient, quantized.weight()[0].expand_as(gradient))


@needs_bitsandbytes
def test_the_base_takes_an_eighth_of_the_memory_and_exists_once(model_path):
    learner = make(model_path)
    layers = {name: m for name, m in learner.policy.named_modules() if isinstance(m, QuantizedLinear)}
    plain = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    assert len(layers) == sum(isinstance(m, torch.nn.Linear) for m in plain.model.modules())
    for layer in layers.values():
        count = layer.in_features * layer.out_features
        assert layer.codes.nbytes + layer.scales.nbytes == count // 2 + 4 * -(-count // 64)
    for other in (learner.reference, learner.trained_critic.module):
        assert {id(m) for m in other.modules() if isinstance(m, QuantizedLinear)} == {id(m) for m in layers.values()}


@needs_bitsandbytes
def test_adapters_learn_while_the_codes_rest_and_the_published_model_says_the_same(model_path, tmp_path):
    learner = make(model_path)
    codes = {name: x.clone() for name, x in learner.policy.named_buffers() if name.endswith(("codes", "scales"))}
    start = learner.weights()
    batch = update(learner)
    assert codes and all(torch.equal(x, codes[n]) for n, x in learner.policy.named_buffers() if n in codes)
    changed = {name for name, x in learner.weights().items() if not (x == start[name]).all()}
    assert changed == {name for name in start if "_proj" in name}
    learner.save_model(tmp_path)
    plain = Learner(LearnerSection(), str(tmp_path), trust_remote_code=False, device="cpu")
    plain.begin_rl(OPTIMIZER, None, AlgorithmSection(advantage="grpo"), 1.0)
    torch.testing.assert_close(plain.evaluate(batch).logprobs, learner.evaluate(batch).logprobs, atol=1e-5, rtol=1e-5)


@needs_bitsandbytes
def test_a_saved_model_is_taken_over_as_the_base_and_adapters_it_was_made_of(model_path, tmp_path):
    learner = make(model_path)
    batch = update(learner)
    learner.save_model(tmp_path)
    expected = learner.evaluate(batch).logprobs
    other = make(model_path)  # the next process
    assert (other.evaluate(batch).logprobs - expected).abs().max() > 1e-3
    other.load_model(tmp_path)
    torch.testing.assert_close(other.evaluate(batch).logprobs, expected, atol=1e-4, rtol=1e-4)
    for (name, a), b in zip(learner.policy.named_buffers(), other.policy.buffers()):
        assert torch.equal(a, b), name  # no second rounding
    other.load_model(model_path)  # back to the start: nothing learned
    torch.testing.assert_close(other.evaluate(batch).logprobs, make(model_path).evaluate(batch).logprobs)


@needs_bitsandbytes
def test_a_stage_goes_on_from_what_the_adapters_have_learned(model_path):
    learner = make(model_path)
    batch = update(learner)
    before = learner.evaluate(batch).logprobs
    learner.begin_rl(OPTIMIZER, CriticSection(optimizer=OPTIMIZER), ALGORITHM, 1.0)
    after = learner.evaluate(batch)
    assert torch.equal(after.logprobs, before) and torch.equal(after.ref_logprobs, before)


@needs_bitsandbytes
def test_state_is_restored_to_the_bit(model_path, tmp_path):
    learner = make(model_path)
    update(learner)
    learner.save_state(tmp_path)
    twin = make(model_path)
    twin.load_state(tmp_path)
    update(learner, seed=1)
    update(twin, seed=1)
    left, right = (one.policy.state_dict() for one in (learner, twin))
    assert all(torch.equal(x, right[name]) for name, x in left.items())


@needs_bitsandbytes
def test_merging_does_not_change_the_module(model_path):
    learner = make(model_path)
    update(learner)
    weights = copy.deepcopy(learner.policy.language_model.state_dict())
    plain = merged(learner.policy.language_model, weights)
    assert set(plain) == set(AutoModelForCausalLM.from_pretrained(model_path).state_dict())
    assert all(torch.equal(x, weights[n]) for n, x in learner.policy.language_model.state_dict().items())


def test_without_bitsandbytes_the_message_says_what_to_install(model_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"learner.lora.base: nf4 needs bitsandbytes: pip install"):
        make(model_path)


def test_a_quantized_base_is_not_sharded():
    with pytest.raises(ValidationError, match="lora.base: nf4 is not sharded; it needs ranks 1, not 2"):
        LearnerSection.model_validate({"ranks": 2, "lora": {"base": "nf4"}})
