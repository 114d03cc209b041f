"""A recipe that changes between two starts of one run: what is taken over and shown, what is refused and why."""

import pytest
from run_directories import half_done, quickstart

from rl.errors import UserError
from rl.recipe.file import read_recipe
from rl.run_directory import open_run_directory

REWARD = "def exact(completions, answer, **columns):\n    return [1.0 for _ in completions]\n"
OWN = """\
model: {path: start}
engine: {kind: hf, max_model_len: 512}
stages:
  rlvr:
    kind: rl
    iterations: 3
    prompts: [{source: {dataset: train.jsonl}}]
    prompts_per_iteration: 4
    samples_per_prompt: 3
    sampling: {max_tokens: 32}
    rewards: [{fn: "reward.py:exact"}]
    policy: {learning_rate: 1e-6}
    critic: {optimizer: {learning_rate: 5e-6}}
"""

PACORE = quickstart().stages["pacore"].iterations
HARMLESS = {
    "name=other": "name: 'quickstart' -> 'other'",
    "ray.object_store_gb=1": "ray.object_store_gb: 0.5 -> 1.0",
    "saving.checkpoint_every=5": "saving.checkpoint_every: 50 -> 5",
    "non_finite.max_in_a_row=9": "non_finite.max_in_a_row: 3 -> 9",
    "engine.replicas=2": "engine.replicas: 1 -> 2",
    "engine.cpus=2": "engine.cpus: 1.0 -> 2.0",
    "learner.ranks=2": "learner.ranks: 1 -> 2",
    "learner.threads=2": "learner.threads: 1 -> 2",
    "evaluations.addition.every=5": "evaluations.addition.every: None -> 5",
    f"stages.pacore.iterations={PACORE + 9}": f"stages.pacore.iterations: {PACORE} -> {PACORE + 9}",
    "stages.pacore.rewards.0.timeout_s=20": "stages.pacore.rewards.0.timeout_s: 10.0 -> 20.0",
    "stages.more={kind: sft, phases: [{steps: 1, sources: [{source: {task: addition}}]}], batch_size: 1, "
    "max_length: 99, optimizer: {learning_rate: 1}}": "stages.more: nothing -> {'kind': 'sft'",
}
REFUSED = {
    "seed=1": "seed: 0 -> 1: what is done has the old value",
    "stages.pacore.policy.learning_rate=1": "stages.pacore.policy.learning_rate: 0.0007 -> 1.0: what is done has the",
    f"stages.pacore.iterations={PACORE - 9}": f"stages.pacore.iterations: {PACORE} -> {PACORE - 9}: a stage that is under way can only get longer",
    "stages.rlvr.iterations=30": "stages.rlvr.iterations: 20 -> 30: rlvr is finished with the old value",
    "stages.messages.above=0.1": "stages.messages.above: 0.0 -> 0.1: messages is finished with the old value",
    "stages.rlvr.algorithm.clip_ratio=0.3": "clip_ratio: 0.2 -> 0.3: rlvr is finished with the old value",
    "stages.pacore=null": "stages.pacore: {'kind': 'rl'",
    "engine.max_model_len=200": "engine.max_model_len: 160 -> 200: what is done has the old value",
    "learner.dtype=bfloat16": "learner.dtype",
    "evaluations.addition.num_prompts=99": "evaluations.addition.num_prompts: 256 -> 99",
    "model.create.hidden_size=32": "model.create.hidden_size: 64 -> 32",
    "stages.pacore.rewards.0.weight=2": "stages.pacore.rewards.0.weight: 1.0 -> 2.0",
}


@pytest.fixture
def path(tmp_path):
    half_done(tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("override", HARMLESS)
def test_harmless_changes_are_taken_over_and_shown(path, override):
    with open_run_directory(path, quickstart(override)) as run:
        assert len(run.notes) == 1
        assert run.notes[0].startswith(HARMLESS[override])
    assert (path / "recipe_changes.jsonl").exists()
    with open_run_directory(path, quickstart(override)) as run:
        assert run.notes == ()


@pytest.mark.parametrize("override", REFUSED)
def test_other_changes_are_refused_with_the_reason(path, override):
    before = (path / "recipe.yaml").read_bytes()
    extra = ["learner.ranks=2"] if "bfloat16" in override else []
    with pytest.raises(UserError) as told:
        with open_run_directory(path, quickstart(override, *extra)):
            pass
    assert REFUSED[override] in str(told.value)
    assert f"--fork-from {path}" in str(told.value)
    assert (path / "recipe.yaml").read_bytes() == before


def test_a_new_stage_can_only_come_last(path, tmp_path):
    recipe = quickstart().model_dump(mode="json")
    first = {"first": recipe["stages"]["sft"]}
    with pytest.raises(UserError, match="a new stage can only follow the others"):
        with open_run_directory(path, type(quickstart()).model_validate({**recipe, "stages": first | recipe["stages"]})):
            pass


# ---------------------------------------------------------------- what paths lead to


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(OWN)
    (tmp_path / "train.jsonl").write_text('{"prompt": "1+1=", "answer": "2"}\n')
    (tmp_path / "reward.py").write_text(REWARD)
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "config.json").write_text("{}")
    with open_run_directory(tmp_path / "run", read_recipe("recipe.yaml")):
        pass
    return tmp_path


def opened_again(own, *overrides):
    with open_run_directory(own / "run", read_recipe("recipe.yaml", list(overrides))) as run:
        return run.notes


def test_files_may_move(own):
    (own / "data").mkdir()
    for name in ("train.jsonl", "reward.py", "start"):
        (own / name).rename(own / "data" / name)
    notes = opened_again(
        own, "stages.rlvr.prompts.0.source.dataset=data/train.jsonl", "model.path=data/start",
        "stages.rlvr.rewards.0.fn=data/reward.py:exact",
    )
    assert len(notes) == 3


def test_rows_may_not_change(own):
    with (own / "train.jsonl").open("a") as file:
        file.write('{"prompt": "1+2=", "answer": "3"}\n')
    with pytest.raises(UserError, match="other content than when it began.*prompts.0.source.dataset"):
        opened_again(own)


def test_another_file_under_a_new_path_is_refused(own):
    (own / "other.jsonl").write_text('{"prompt": "1+2=", "answer": "3"}\n')
    with pytest.raises(UserError, match="other content"):
        opened_again(own, "stages.rlvr.prompts.0.source.dataset=other.jsonl")


def test_the_start_may_not_change(own):
    (own / "start" / "config.json").write_text('{"hidden_size": 1}')
    with pytest.raises(UserError, match="other content.*model.path"):
        opened_again(own)


def test_a_reward_that_crashed_may_be_mended(own):
    (own / "reward.py").write_text(REWARD + "# mended\n")
    assert opened_again(own) == ("stages.rlvr.rewards.0.fn: the file of this reward has other content now",)
    assert opened_again(own) == ()
