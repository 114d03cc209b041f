"""docs/preferences.md says what the code takes: its YAML validates, its tables name every option."""

import inspect
import re
from pathlib import Path

import yaml

from rewards import load_reward
from rewards.preference import preference_reward
from rl.recipe import EvaluationSection, PreferenceModelStage, RewardSection

TEXT = (Path(__file__).parent.parent / "docs" / "preferences.md").read_text()
BLOCKS = [yaml.safe_load(block.replace("{...}", "{}")) for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.S)]


def test_the_stage_is_valid_and_names_every_key():
    (stage,) = [block["preference"] for block in BLOCKS if "preference" in block]
    PreferenceModelStage.model_validate(stage)
    assert set(stage) == set(PreferenceModelStage.model_fields)


def test_the_rewards_are_valid_and_load():
    rewards = [reward for block in BLOCKS for reward in block.get("rewards", [])]
    assert {reward["fn"] for reward in rewards} == {
        "preference", "pairwise", "same_language", "citations", "length", "overconfidence"
    }  # fmt: skip
    for reward in rewards:
        section = RewardSection.model_validate(reward)
        load_reward(section.fn, **({"model": "m"} if section.from_stage else {}), **section.args)


def test_the_watched_evaluation_is_valid():
    (block,) = [block for block in BLOCKS if "evaluations" in block]
    EvaluationSection.model_validate(block["evaluations"]["helpfulness"])
    (reward,) = block["stages"]["rlhf"]["rewards"]
    assert RewardSection.model_validate(reward).gold in block["evaluations"]


def test_the_table_of_options_is_complete():
    (table,) = re.findall(r"\| option \| meaning \|\n(.*?)\n\n", TEXT, re.S)
    named = {name.strip() for line in table.splitlines()[1:] for name in line.split("|")[1].split(",")}
    assert named | {"timeout_s"} == set(inspect.signature(preference_reward).parameters)
