"""Models whose images have grids of their own and whose rotary positions follow them: learner, critic, decoding.

The oracle is transformers on one row alone, without padding, cache or batch.
"""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from fakes import png
from tiny_qwen_vl import KINDS, seen, tiny_qwen_vl
from transformers import AutoModelForImageTextToText

from rl.batch import PPOBatch, minibatches, pad_tokens, whole_minibatch
from rl.learner import Learner
from rl.parts import PARTS, parts_of
from rl.recipe import AlgorithmSection, CriticSection, LearnerSection, OptimizerSection
from rollouts.decoding import decode
from rollouts.decoding_attention import use_decoding_attention
from rollouts.engine import Sampling
from rollouts.trajectory import NO_INPUTS

ANSWER = [9, 8, 7, 1]
# Images of different shapes, two in a row, none at all.
ROWS = [
    ([png("red")], "what?"),
    ([png("blue", (64, 20)), png("green", (16, 40))], "and now?"),
    ([], "no image here"),
    ([png("green", (24, 56))], "x"),
]


@pytest.fixture(scope="module", params=KINDS)
def model_path(request, tmp_path_factory):
    return tiny_qwen_vl(tmp_path_factory.mktemp(request.param) / request.param, request.param)


@pytest.fixture(scope="module")
def rows(model_path):
    """(token ids, forward arguments) of each of ROWS."""
    return [seen(model_path.rsplit("/", 1)[-1], pictures, text) for pictures, text in ROWS]


@pytest.fixture(scope="module")
def model(model_path):
    return AutoModelForImageTextToText.from_pretrained(model_path, dtype=torch.float32).eval()


def alone(model, ids, inputs):
    """Log-probs [T - 1, V] of one row: no placeholder is sampled."""
    tokens = torch.from_numpy(ids)[None]
    arguments = {name: torch.from_numpy(x) for name, x in inputs.per_image.items()}
    for name, x in inputs.per_token.items():
        arguments[name] = torch.from_numpy(np.pad(x, (0, len(ids) - len(x))))[None]
    with torch.no_grad():
        logits = model(tokens, use_cache=False, **arguments).logits[0, :-1]
    logits[:, [model.config.image_token_id, model.config.video_token_id]] = -1e9
    return logits.log_softmax(-1)


def answered(rows):
    ids = [np.concatenate([row, ANSWER]) for row, _ in rows]
    masks = [np.arange(len(row)) >= len(row) - len(ANSWER) for row in ids]
    return pad_tokens(ids, masks, [inputs for _, inputs in rows])


def make_learner(path, **changes):
    learner = Learner(LearnerSection(**changes), path, trust_remote_code=False, device="cpu")
    optimizer = OptimizerSection(learning_rate=1e-3)
    learner.begin_rl(optimizer, CriticSection(optimizer=optimizer), AlgorithmSection(), 1.0)
    return learner


@pytest.mark.parametrize("micro_batch_tokens", [1, 16384])
def test_the_learner_scores_a_batch_as_transformers_scores_each_row(model_path, model, rows, micro_batch_tokens):
    logprobs = make_learner(model_path, micro_batch_tokens=micro_batch_tokens).evaluate(answered(rows)).logprobs
    for row, (ids, inputs) in enumerate(rows):
        whole = np.concatenate([ids, ANSWER])
        expected = alone(model, whole, inputs).gather(1, torch.from_numpy(whole[1:, None]))[-len(ANSWER) :, 0]
        torch.testing.assert_close(logprobs[row, len(ids) : len(whole)], expected, atol=1e-4, rtol=0)


def test_an_engine_gets_a_tied_head_once(model_path, model):
    assert set(make_learner(model_path).weights()) == set(model.state_dict()) - {"lm_head.weight"}


def test_a_picture_of_another_shape_is_noticed(model_path, rows):
    learner = make_learner(model_path)
    ids, inputs = rows[1]
    turned = {**inputs.per_image, "image_grid_thw": inputs.per_image["image_grid_thw"][::-1].copy()}
    other = dataclasses.replace(inputs, per_image=turned)
    right, wrong = (learner.evaluate(answered([(ids, x)])).logprobs for x in (inputs, other))
    assert (right - wrong).abs().max() > 1e-2


def test_policy_and_critic_step_alike_however_the_batch_is_cut(model_path, rows):
    batch = answered(rows)
    ppo = PPOBatch.of_tokens(batch)
    ppo = dataclasses.replace(ppo, advantages=ppo.action_mask.float(), returns=ppo.action_mask.float())
    steps = []
    for tokens in (1, 16384):
        learner = make_learner(model_path, micro_batch_tokens=tokens)
        critic = learner.update_critic([whole_minibatch(ppo)], iteration=0, total=1)[0]
        policy = learner.update_policy([whole_minibatch(ppo)], iteration=0, total=1)[0]
        steps.append([critic["loss"], critic["grad_norm"], policy["loss"], policy["grad_norm"]])
    assert steps[0] == pytest.approx(steps[1], rel=1e-3)
    assert min(steps[0][1], steps[0][3]) > 0


def test_minibatches_carry_the_grids_of_their_rows(rows):
    for piece in minibatches(PPOBatch.of_tokens(answered(rows)), count=2, epochs=1, seed=0):
        arguments = piece.batch.model_inputs.arguments(piece.batch.token_ids)
        patches = arguments["image_grid_thw"].prod(1).sum() if arguments else 0
        assert patches == (len(arguments["pixel_values"]) if arguments else 0)
        tokens = arguments["mm_token_type_ids"].sum() if arguments else 0
        assert tokens == patches // 4


def test_every_part_of_the_model_is_known(model):
    assert set(parts_of(model.base_model).values()) == set(PARTS)


@pytest.mark.parametrize("chosen", [[0, 1, 2, 3], [2, 2], [1, 1, 3], [0]])
def test_sampling_with_a_cache_sees_what_one_pass_sees(model, rows, chosen):
    """Rows of unlike length and grids in one batch, some of which end early; samples of one prompt share its prefill."""
    torch.manual_seed(0)
    never = [model.config.image_token_id, model.config.video_token_id]
    prompts = [rows[i] for i in chosen]
    inputs = [x if x.per_image else NO_INPUTS for _, x in prompts]
    engine = copy.deepcopy(model)
    use_decoding_attention(engine)
    found = decode(
        engine, [ids for ids, _ in prompts], Sampling(1.0, 1.0, 0, 12), end=frozenset(range(8)),
        model_inputs=inputs, never=never,
    )
    for (ids, x), sampled in zip(prompts, found):
        whole = np.concatenate([ids, sampled.token_ids])
        expected = alone(model, whole, x).gather(1, torch.from_numpy(whole[1:, None]))[len(ids) - 1 :, 0]
        np.testing.assert_allclose(sampled.logprobs, expected, atol=1e-4)
