"""Real Ray, real vLLM, a tiny model with eyes: the same tokens and log-probs as the trainer, also after new weights."""

import numpy as np
import pytest
import torch
from fakes import picture_prompt, tiny_vision_model

from rl.batch import pad_tokens
from rl.cluster import EnginePool, make_engine, ray_cluster
from rl.learner import Learner
from rl.recipe import AlgorithmSection, EngineSection, LearnerSection, ModelSection, OptimizerSection, RaySection
from rollouts.collect import collect, tokenized
from rollouts.engine import Sampling
from rollouts.processing import load_processing

pytestmark = pytest.mark.engine

TEMPERATURE = 0.8


def test_vllm_sees_the_images_of_the_trainer_also_after_new_weights(tmp_path):
    path = tiny_vision_model(tmp_path / "model")
    other = tiny_vision_model(tmp_path / "other", seed=7)
    processing = load_processing(path)
    prompts = [tokenized(processing, picture_prompt(*some)) for some in (("red",), ("red", "blue"), (), ("green",))]
    section = EngineSection(max_model_len=96, max_num_seqs=32, kv_cache_gb=0.05)
    learner = Learner(LearnerSection(), path, trust_remote_code=False, device="cpu")
    learner.begin_rl(OptimizerSection(learning_rate=1e-3), None, AlgorithmSection(advantage="grpo"), TEMPERATURE)
    with ray_cluster(RaySection(object_store_gb=0.2), num_cpus=1):
        pool = EnginePool(
            lambda: make_engine(section, ModelSection(path=path), path),
            replicas=1,
            max_restarts=0,
            start_timeout_s=120,
        )
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
