"""Real Ray, real vLLM, a tiny model with eyes: the same tokens and log-probs as the trainer, also after new weights."""

import dataclasses

import numpy as np
import pytest
import torch
from fakes import picture_prompt, tiny_vision_model
from tiny_qwen_vl import KINDS, tiny_qwen_vl

from rl.batch import PPOBatch, pad_tokens, take_rows, whole_minibatch
from rl.cluster import RayRanks, ray_cluster, start_engines
from rl.group import InProcessRank, LearnerGroup
from rl.learner import Learner
from rl.recipe import (
    AlgorithmSection,
    CriticSection,
    EngineSection,
    LearnerSection,
    ModelSection,
    OptimizerSection,
    RaySection,
)
from rollouts.collect import collect, tokenized
from rollouts.engine import Sampling
from rollouts.processing import load_processing

pytestmark = pytest.mark.engine

TEMPERATURE = 0.8


@pytest.mark.parametrize("kind", ["idefics3", *KINDS])
def test_vllm_sees_the_images_of_the_trainer_also_after_new_weights(tmp_path, kind):
    if kind == "idefics3":
        path, other = (tiny_vision_model(tmp_path / name, seed=seed) for name, seed in (("model", 0), ("other", 7)))
    else:
        pytest.importorskip("torchvision", reason="the processors of Qwen-VL need torchvision", exc_type=ImportError)
        path, other = (
            tiny_qwen_vl(tmp_path / name, kind, seed=seed, processor=True) for name, seed in (("model", 0), ("other", 7))
        )
    processing = load_processing(path)
    prompts = [tokenized(processing, picture_prompt(*some)) for some in (("red",), ("red", "blue"), (), ("green",))]
    section = EngineSection(max_model_len=96, max_num_seqs=32, kv_cache_gb=0.05, max_restarts=0)
    learner = Learner(LearnerSection(), path, trust_remote_code=False, device="cpu")
    learner.begin_rl(OptimizerSection(learning_rate=1e-3), None, AlgorithmSection(advantage="grpo"), TEMPERATURE)
    with ray_cluster(RaySection(object_store_gb=0.2), num_cpus=1):
        pool = start_engines(section, ModelSection(path=path), path, on_event=print)
        for version, folder in enumerate((path, other)):
            learner.load_model(tmp_path / folder)
            pool.load_weights(learner.weights(), version)
            sampling = Sampling(TEMPERATURE, 1.0, 0, 12)
            trajectories = collect(pool, prompts, samples_per_prompt=2, sampling=sampling, seed=0)
            assert {t.policy_version for t in trajectories} == {version}
            assert largest_gap(learner, trajectories) < 1e-4
        wrong = [trajectories[6], *trajectories[1:6], trajectories[0], trajectories[7]]
        assert largest_gap(learner, trajectories, images_of=wrong) > 1e-2
        learner.load_model(tmp_path / path)
        assert largest_gap(learner, trajectories) > 1e-2  # the check notices stale weights


def test_two_ranks_learn_what_one_learns_also_where_one_of_them_has_no_image(tmp_path):
    path = tiny_vision_model(tmp_path / "model")
    processing = load_processing(path)
    texts = ("red", "blue"), (), (), ("green",), (), ("red",)
    prompts = [tokenized(processing, picture_prompt(*some)) for some in texts]
    ids = [np.concatenate([p.token_ids, [9, 8, 1]]) for p in prompts]
    masks = [np.arange(len(row)) >= len(row) - 3 for row in ids]
    batch = PPOBatch.of_tokens(pad_tokens(ids, masks, [p.model_inputs for p in prompts]))
    whole = dataclasses.replace(batch, advantages=batch.action_mask.float(), returns=batch.action_mask.float())
    # The last piece has one row with images and one without, and each goes to a rank of its own.
    pieces = [whole_minibatch(whole), whole_minibatch(take_rows(whole, torch.tensor([0, 1])))]
    optimizer, algorithm = OptimizerSection(learning_rate=1e-3), AlgorithmSection()
    with ray_cluster(RaySection(object_store_gb=0.2), num_cpus=2):
        alone = LearnerGroup(InProcessRank(Learner(LearnerSection(), path, trust_remote_code=False, device="cpu")))
        shared = LearnerGroup(RayRanks(LearnerSection(ranks=2), ModelSection(path=path), path))
        steps = []
        for group in (alone, shared):
            group.begin_rl(optimizer, CriticSection(optimizer=optimizer), algorithm, 1.0)
            critic = group.update_critic(pieces, iteration=0, total=2)
            policy = group.update_policy(pieces, iteration=0, total=2)
            steps.append([step[name] for step in critic + policy for name in ("loss", "grad_norm")])
        assert steps[1] == pytest.approx(steps[0], rel=2e-3, abs=2e-4)
        single, double = alone.weights(), shared.weights()
    assert set(single) == set(double)
    assert any("vision_model" in name for name in single)
    for name, values in single.items():
        np.testing.assert_allclose(double[name], values, atol=2e-4, err_msg=name)


def largest_gap(learner, trajectories, images_of=None):
    """max |engine - trainer| over sampled tokens, nats."""
    inputs = [t.model_inputs for t in images_of or trajectories]
    batch = pad_tokens([t.token_ids for t in trajectories], [t.action_mask for t in trajectories], inputs)
    logprobs = learner.evaluate(batch).logprobs
    gaps = [
        np.abs(logprobs[row, : len(t.token_ids)].numpy() - t.rollout_logprobs).max()
        for row, t in enumerate(trajectories)
    ]
    assert torch.isfinite(logprobs).all()
    return max(gaps)
