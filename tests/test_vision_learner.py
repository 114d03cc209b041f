"""Images in the learner: however a batch is cut, every row keeps its own, and a wrong one is noticed."""

import dataclasses

import numpy as np
import pytest
import torch
from fakes import picture_prompt, tiny_vision_model
from transformers import AutoModelForImageTextToText

from rl.batch import PPOBatch, minibatches, pad_tokens, take_rows, whole_minibatch
from rl.errors import UserError
from rl.group import InProcessRank, LearnerGroup
from rl.learner import Learner
from rl.ppo import to_ppo_batch
from rl.recipe import AlgorithmSection, CriticSection, LearnerSection, OptimizerSection
from rollouts.collect import collect, tokenized
from rollouts.engine import Request, RequestRefused, Sampling
from rollouts.hf_engine import HfEngine
from rollouts.processing import load_processing, together
from rollouts.trajectory import ModelInputs

OPTIMIZER = OptimizerSection(learning_rate=1e-3)
SAMPLING = Sampling(1.0, 1.0, 0, 6)


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return tiny_vision_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def trajectories(model_path):
    processing = load_processing(model_path)
    colours = [("red",), ("red", "blue"), (), ("green",)]
    prompts = [tokenized(processing, picture_prompt(*some)) for some in colours]
    engine = HfEngine(model_path, max_num_seqs=8, device="cpu")
    return collect(engine, prompts, samples_per_prompt=2, sampling=SAMPLING, seed=0)


def batch_of(trajectories, **changes):
    inputs = [t.model_inputs for t in trajectories]
    return pad_tokens([t.token_ids for t in trajectories], [t.action_mask for t in trajectories], inputs)


def make_learner(model_path, **changes):
    learner = Learner(LearnerSection(**changes), model_path, trust_remote_code=False, device="cpu")
    learner.begin_rl(OPTIMIZER, CriticSection(optimizer=OPTIMIZER), AlgorithmSection(), 1.0)
    return learner


def test_the_learner_agrees_with_the_hf_engine_and_notices_a_wrong_image(model_path, trajectories):
    learner = make_learner(model_path)
    batch = batch_of(trajectories)
    logprobs = learner.evaluate(batch).logprobs.numpy()
    for row, t in enumerate(trajectories):
        np.testing.assert_allclose(logprobs[row, : len(t.token_ids)], t.rollout_logprobs, atol=1e-4)
    swapped = dataclasses.replace(trajectories[0], model_inputs=trajectories[6].model_inputs)
    wrong = learner.evaluate(batch_of([swapped])).logprobs[0].numpy()
    assert np.abs(wrong - trajectories[0].rollout_logprobs).max() > 1e-2


def test_rows_keep_their_images_however_a_batch_is_cut(model_path, trajectories):
    batch = batch_of(trajectories)
    whole = make_learner(model_path).evaluate(batch)
    pieces = make_learner(model_path, micro_batch_tokens=1).evaluate(batch)
    torch.testing.assert_close(pieces.logprobs, whole.logprobs, atol=1e-5, rtol=0)
    order = torch.tensor([5, 2, 7, 0])
    part = make_learner(model_path).evaluate(take_rows(batch, order))
    width = part.logprobs.shape[1]
    torch.testing.assert_close(part.logprobs, whole.logprobs[order][:, :width], atol=1e-5, rtol=0)


@pytest.mark.parametrize("micro_batch_tokens", [1, 16384])
def test_policy_and_critic_take_the_same_step_on_one_row_at_a_time(model_path, trajectories, micro_batch_tokens):
    learner = make_learner(model_path, micro_batch_tokens=micro_batch_tokens)
    ppo = to_ppo_batch(batch_of(trajectories), learner.evaluate(batch_of(trajectories)), AlgorithmSection())
    ppo = dataclasses.replace(ppo, advantages=ppo.action_mask.float(), returns=ppo.action_mask.float())
    steps = [
        learner.update_critic([whole_minibatch(ppo)], iteration=0, total=1)[0],
        learner.update_policy([whole_minibatch(ppo)], iteration=0, total=1)[0],
    ]
    reference = make_learner(model_path)
    expected = [
        reference.update_critic([whole_minibatch(ppo)], iteration=0, total=1)[0],
        reference.update_policy([whole_minibatch(ppo)], iteration=0, total=1)[0],
    ]
    for step, other in zip(steps, expected):
        assert step["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert step["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)
        assert step["grad_norm"] > 0


def test_minibatches_carry_the_images_of_their_rows(trajectories):
    batch = PPOBatch.of_tokens(batch_of(trajectories))
    for piece in minibatches(batch, count=3, epochs=1, seed=0):
        for ids, inputs in zip(piece.batch.token_ids, piece.batch.model_inputs.rows):
            images = int((ids == 3).sum()) // 4  # 32 / 8 / 2 = 2, so 4 tokens an image
            assert images == (inputs.per_image["pixel_values"].shape[1] if inputs.per_image else 0)


def test_a_critic_with_eyes_learns_a_value_that_only_the_image_tells(model_path):
    processing = load_processing(model_path)
    prompts = [tokenized(processing, picture_prompt(colour)) for colour in ("red", "blue") * 4]
    ids = [np.concatenate([p.token_ids, [9, 1]]) for p in prompts]
    masks = [np.arange(len(row)) >= len(row) - 2 for row in ids]
    batch = PPOBatch.of_tokens(pad_tokens(ids, masks, [p.model_inputs for p in prompts]))
    returns = torch.tensor([1.0, -1.0] * 4)[:, None] * batch.action_mask
    learner = Learner(LearnerSection(), model_path, trust_remote_code=False, device="cpu")
    critic = CriticSection(optimizer=OptimizerSection(learning_rate=1e-2))
    algorithm = AlgorithmSection(value_clip=None)
    learner.begin_rl(OPTIMIZER, critic, algorithm, 1.0)
    piece = whole_minibatch(dataclasses.replace(batch, returns=returns))
    losses = [learner.update_critic([piece], iteration=0, total=1)[0]["loss"] for _ in range(40)]
    assert losses[0] == pytest.approx(0.5, abs=1e-3)  # half the mean square of +-1 against 0
    assert losses[-1] < 0.05


def test_a_saved_policy_loads_with_its_processor_and_sees_the_same(model_path, trajectories, tmp_path):
    learner = make_learner(model_path)
    LearnerGroup(InProcessRank(learner)).save_model(tmp_path)
    load_processing(model_path).save_pretrained(tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.float32)
    again = tokenized(load_processing(str(tmp_path)), picture_prompt("red"))
    t = trajectories[0]
    np.testing.assert_array_equal(again.token_ids, t.token_ids[: len(again.token_ids)])
    ids = torch.from_numpy(t.token_ids)[None]
    with torch.no_grad():
        logits = loaded(ids, **{name: torch.from_numpy(x) for name, x in again.model_inputs.per_image.items()}).logits
    logits[..., 3] = -1e9  # the placeholder
    chosen = logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0].numpy()
    np.testing.assert_allclose(chosen[t.action_mask[1:]], t.rollout_logprobs[1:][t.action_mask[1:]], atol=1e-4)


def test_an_engine_that_makes_other_tokens_of_a_prompt_stops(model_path):
    asked = tokenized(load_processing(model_path), picture_prompt("red"))
    engine = HfEngine(model_path, max_num_seqs=8, device="cpu")
    with pytest.raises(RequestRefused):
        engine.generate([Request(asked.token_ids[:-1], SAMPLING, asked.images)], seed=0)


def test_placeholders_of_images_are_never_sampled(model_path):
    engine = HfEngine(model_path, max_num_seqs=64, device="cpu")
    asked = tokenized(load_processing(model_path), picture_prompt("red"))
    # Weights that make the placeholder, token 3, by far the likeliest.
    with torch.no_grad():
        head = engine._model.lm_head.weight.clone()
        head[3] = 100 * torch.sign(torch.randn(head.shape[1]))
        engine._model.lm_head.weight = torch.nn.Parameter(head)
    generations = engine.generate([Request(asked.token_ids, SAMPLING, asked.images)] * 32, seed=0)
    assert not any((generation.token_ids == 3).any() for generation in generations)


def test_forward_arguments_of_a_batch():
    a = ModelInputs({"types": np.array([1, 0])}, {"pixels": np.ones((1, 2, 3)), "grid": np.array([[1, 2, 3]])})
    b = ModelInputs({"types": np.array([1, 1, 1])}, {"pixels": np.full((2, 1, 4), 2.0), "grid": np.ones((2, 3))})
    out = together([a, ModelInputs({}, {}), b], width=4)
    assert out["types"].tolist() == [[1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0]]
    assert out["grid"].shape == (3, 3)
    assert out["pixels"].shape == (3, 2, 4)
    assert out["pixels"][0].tolist() == [[1, 1, 1, 0], [1, 1, 1, 0]]
    assert out["pixels"][1].tolist() == [[2, 2, 2, 2], [0, 0, 0, 0]]
    left = together([a, b], width=4, offsets=[2, 1])
    assert left["types"].tolist() == [[0, 0, 1, 0], [0, 1, 1, 1]]


def test_packing_of_a_model_that_takes_images_is_refused(model_path):
    with pytest.raises(UserError, match="learner.packing: true; a model that takes images is not packed"):
        make_learner(model_path, packing=True)
