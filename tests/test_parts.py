"""Vision tower, projector and decoder learn at rates of their own, and a frozen part stays as it is."""

import pytest
import torch
from fakes import picture_prompt, tiny_model, tiny_vision_model

from rl.batch import PPOBatch, pad_tokens, whole_minibatch
from rl.errors import UserError
from rl.learner import Learner
from rl.recipe import LearnerSection, OptimizerSection
from rollouts.collect import tokenized
from rollouts.processing import load_processing


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return tiny_vision_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def piece(model_path):
    prompt = tokenized(load_processing(model_path), picture_prompt("red"))
    mask = torch.arange(len(prompt.token_ids)) > 9
    return whole_minibatch(PPOBatch.of_tokens(pad_tokens([prompt.token_ids], [mask.numpy()], [prompt.model_inputs])))


def moved(learner, piece, **rates):
    """Largest change of a weight in one step, by part."""
    learner.begin_sft(OptimizerSection(learning_rate=1e-3, max_grad_norm=1e9, **rates))
    before = {name: x.detach().clone() for name, x in learner.policy.named_parameters()}
    learner.update_sft(piece, step=0, total=1)
    change = {"vision_model": 0.0, "connector": 0.0, "text_model": 0.0}
    for name, x in learner.policy.named_parameters():
        part = next(part for part in change if part in name)  # the head is tied to the embeddings
        change[part] = max(change[part], float((x.detach() - before[name]).abs().max()))
    return change


def test_each_part_has_its_rate_and_a_frozen_one_learns_again_in_the_next_stage(model_path, piece):
    learner = Learner(LearnerSection(), model_path, trust_remote_code=False, device="cpu")
    # AdamW's first step moves a weight by the learning rate, whatever the gradient.
    first = moved(learner, piece, vision_learning_rate=1e-4, projector_learning_rate=0, decoder_learning_rate=5e-4)
    assert first["vision_model"] == pytest.approx(1e-4, rel=0.05)
    assert first["connector"] == 0
    assert first["text_model"] == pytest.approx(5e-4, rel=0.05)
    second = moved(learner, piece, vision_learning_rate=0)
    assert second["vision_model"] == 0
    assert second["connector"] == pytest.approx(1e-3, rel=0.05)
    third = moved(learner, piece)
    assert third == pytest.approx({"vision_model": 1e-3, "connector": 1e-3, "text_model": 1e-3}, rel=0.05)


def test_a_state_with_a_frozen_part_is_saved_and_restored(model_path, piece, tmp_path):
    optimizer = OptimizerSection(learning_rate=1e-3, vision_learning_rate=0)
    learners = [Learner(LearnerSection(), model_path, trust_remote_code=False, device="cpu") for _ in range(2)]
    for learner in learners:
        learner.begin_sft(optimizer)
    learners[0].update_sft(piece, step=0, total=2)
    learners[0].save_state(tmp_path / "state")
    learners[1].load_state(tmp_path / "state")
    losses = [learner.update_sft(piece, step=1, total=2) for learner in learners]
    assert losses[0] == losses[1]
    weights = [learner.weights() for learner in learners]
    assert all((weights[1][name] == x).all() for name, x in weights[0].items())


def test_a_rate_of_a_part_that_the_model_lacks_is_refused(tmp_path):
    learner = Learner(LearnerSection(), tiny_model(tmp_path / "text"), trust_remote_code=False, device="cpu")
    with pytest.raises(UserError, match="vision_learning_rate: Qwen3Model has no vision of its own"):
        learner.begin_sft(OptimizerSection(learning_rate=1e-3, vision_learning_rate=0))
