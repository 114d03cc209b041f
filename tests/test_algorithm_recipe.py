"""Combinations of the algorithm's keys that contradict each other are refused, and sensible ones are not."""

import pytest
from pydantic import ValidationError

from rl.recipe import RlStage

STAGE = {
    "kind": "rl", "iterations": 1, "prompts": [{"source": {"task": "addition"}}], "prompts_per_iteration": 4,
    "samples_per_prompt": 2, "sampling": {"max_tokens": 8}, "rewards": [{"fn": "math"}], "policy": {"learning_rate": 1e-3},
}  # fmt: skip
CRITIC = {"optimizer": {"learning_rate": 1e-3}}


def stage(advantage="gae", **algorithm):
    changes = {"critic": CRITIC} if advantage == "gae" else {}
    return RlStage.model_validate({**STAGE, **changes, "algorithm": {"advantage": advantage, **algorithm}})


@pytest.mark.parametrize(("settings", "message"), [
    ({"advantage": "grpo", "critic_lambda": 1.0}, "algorithm.critic_lambda: is of GAE; advantage is grpo"),
    ({"advantage": "reinforce_pp", "lambda_alpha": 0.05}, "algorithm.lambda_alpha: is of GAE"),
    ({"lambda_alpha": 0.05, "gae_lambda": 0.9}, "takes the place of gae_lambda"),
    ({"advantage": "rloo", "kl_reward_coef": 0.1}, "needs advantage gae or reinforce_pp"),
    ({"advantage": "rloo", "group_std": False}, "algorithm.group_std: is of grpo"),
    ({"advantage": "reinforce_pp", "whiten_advantages": False}, "whitened over the batch"),
    ({"kl_target": 4.0}, "set either kl_reward_coef or kl_loss_coef"),
    ({"kl_target": 4.0, "kl_reward_coef": 0.1, "kl_loss_coef": 0.1}, "adapts one coefficient"),
    ({"dual_clip": 1.1}, "inside the trust region; above 1.2"),
    ({"old_logprobs": "rollout", "importance_cap": 2.0}, "takes them as equal"),
    ({"old_logprobs": "rollout", "gap_limit": 0.1}, "takes them as equal"),
    ({"advantage": "grpo", "truncated": "bootstrap"}, "bootstrap asks the critic"),
    ({"kl_loss_estimator": "k1"}, "'k2' or 'k3'"),
])  # fmt: skip
def test_what_contradicts_itself_is_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        stage(**settings)


def test_refilling_needs_samples_to_compare():
    with pytest.raises(ValidationError, match="refill_rounds compares samples of one prompt"):
        RlStage.model_validate({**STAGE, "samples_per_prompt": 1, "critic": CRITIC, "algorithm": {"refill_rounds": 2}})


@pytest.mark.parametrize("settings", [
    {"lambda_alpha": 0.05, "critic_lambda": 1.0, "dual_clip": 3.0},
    {"advantage": "grpo", "group_std": False, "loss_average": "response", "refill_rounds": 3, "truncated": "masked"},
    {"advantage": "reinforce_pp", "kl_reward_coef": 0.01, "kl_target": 4.0},
    {"importance_cap": 2.0, "gap_limit": 0.1, "kl_loss_coef": 0.1, "kl_target": 2.0},
])  # fmt: skip
def test_what_fits_together_is_taken(settings):
    assert stage(**settings).algorithm.advantage == settings.get("advantage", "gae")
