"""Every recipe that is shipped validates, and the paper's numbers are those of the paper."""

from __future__ import annotations

from pathlib import Path

import pytest

from rl.cli import main
from rl.derived_numbers import derived_numbers
from rl.recipe import MessageCacheStage, PreferenceModelStage, Recipe, RlStage, SftStage
from rl.recipe.file import read_recipe
from rl.recipe.sources import MessageCacheSource

RECIPES = Path(__file__).parent.parent / "recipes"
NOT_PIPELINES = {"base.yaml"}  # shared defaults, without model, data and rewards
PIPELINES = sorted(path for path in RECIPES.glob("*.yaml") if path.name not in NOT_PIPELINES)


@pytest.fixture(scope="module")
def step3() -> Recipe:
    return read_recipe(RECIPES / "step3_vl_10b.yaml")


def rl_stage(recipe: Recipe, name: str) -> RlStage:
    stage = recipe.stages[name]
    assert isinstance(stage, RlStage)
    return stage


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.name)
def test_every_shipped_pipeline_validates(path, capsys):
    assert main(["validate", str(path)]) == 0, capsys.readouterr().err


def test_the_shared_defaults_are_no_pipeline_and_say_what_is_missing(capsys):
    assert main(["validate", str(RECIPES / "base.yaml")]) == 2
    assert "model: required" in capsys.readouterr().err


def test_step3_runs_600_rlvr_300_rlhf_and_500_pacore_iterations_in_order(step3):
    assert list(step3.stages) == ["sft", "rlvr", "preference_model", "rlhf", "message_cache", "pacore"]
    assert [rl_stage(step3, name).iterations for name in ("rlvr", "rlhf", "pacore")] == [600, 300, 500]


def test_step3_derives_1400_iterations_of_1024_trajectories(step3):
    numbers = {quantity: value for stage, quantity, value in derived_numbers(step3) if stage == "pipeline"}
    assert numbers["PPO iterations in all"] == "1,400"
    assert numbers["scored trajectories in all"] == "1,433,600"  # 1,400 x 16 x 64


def test_step3_pacore_reads_16_to_24_of_24_cached_messages(step3):
    source = rl_stage(step3, "pacore").prompts[0].source
    assert isinstance(source, MessageCacheSource)
    assert source.messages == (16, 24)
    cache = step3.stages[source.message_cache]
    assert isinstance(cache, MessageCacheStage)
    assert cache.samples_per_prompt == 24
    assert (cache.above, cache.below) == (0, 9 / 24)


def test_step3_has_64k_sequences_and_sharded_learners(step3):
    assert step3.engine.max_model_len == 64 * 1024
    assert step3.learner.ranks > 1
    assert not step3.learner.in_driver
    assert step3.engine.gpus > 0


def test_step3_sft_mixes_9_to_1_then_1_to_1_over_the_published_tokens(step3):
    sft = step3.stages["sft"]
    assert isinstance(sft, SftStage)
    assert [[mixed.weight for mixed in phase.sources] for phase in sft.phases] == [[9, 1], [1, 1]]
    assert (sft.batch_size, sft.max_length) == (32, 128 * 1024)
    tokens = [phase.steps * sft.batch_size * sft.max_length for phase in sft.phases]
    assert tokens == pytest.approx([190e9, 36e9], rel=1e-4)


@pytest.mark.parametrize("name", ["rlvr", "rlhf", "pacore"])
def test_step3_rl_stages_are_ppo_with_gae_and_the_published_orz_settings(step3, name):
    stage = rl_stage(step3, name)
    assert (stage.algorithm.advantage, stage.algorithm.gamma, stage.algorithm.gae_lambda) == ("gae", 1, 1)
    assert (stage.algorithm.clip_ratio, stage.algorithm.value_clip) == (0.2, 0.2)
    assert stage.critic is not None
    assert stage.critic.minibatches * stage.critic.epochs == 12
    assert stage.critic.optimizer.learning_rate == 5e-6
    assert (stage.policy.betas, stage.policy.warmup) == ((0.9, 0.95), 50)


def test_step3_learning_rates_are_borrowed_from_rlvr_8b_and_orz(step3):
    rates = {name: rl_stage(step3, name).policy.learning_rate for name in ("rlvr", "rlhf", "pacore")}
    assert rates == {"rlvr": 2e-6, "rlhf": 1e-6, "pacore": 1e-6}


def test_step3_rlhf_has_a_kl_penalty_against_the_reward_model_of_the_run(step3):
    stage = rl_stage(step3, "rlhf")
    assert stage.algorithm.needs_reference
    assert isinstance(step3.stages[stage.rewards[0].from_stage], PreferenceModelStage)


def test_the_one_gpu_leaf_changes_sizes_and_keeps_the_order():
    leaf = read_recipe(RECIPES / "qwen3_0.6b_one_gpu.yaml")
    assert list(leaf.stages) == ["rlvr", "preference_model", "rlhf", "message_cache", "pacore"]
    assert leaf.engine.replicas * leaf.engine.gpus + leaf.learner.ranks * leaf.learner.gpus == 1
    assert leaf.name == "qwen3_0.6b_one_gpu"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.name)
def test_recipes_are_plain_ascii(path):
    path.read_text(encoding="ascii")


def test_the_tiny_rlhf_recipe_watches_its_reward_model_and_mixes_in_verifiable_prompts():
    recipe = read_recipe(RECIPES / "rlhf_tiny.yaml")
    stage = rl_stage(recipe, "rlhf")
    assert [(reward.label, reward.gold) for reward in stage.rewards] == [("preference", "requests"), ("math", None)]
    assert stage.algorithm.needs_reference
    assert {name: section.every for name, section in recipe.evaluations.items()} == {"addition": 4, "requests": 2}
    assert [(mixed.label, mixed.weight) for mixed in stage.prompts] == [("requests", 0.75), ("addition", 0.25)]
