"""Reward models trained by TRL on a preference that a tiny model can learn: more of the letter a is better."""

import json
import random

import pytest
import torch
from fakes import tiny_model
from transformers import AutoModelForSequenceClassification

from rewards import load_reward
from rl.errors import RunFailed
from rl.preference_model import train_preference_model
from rl.recipe import PreferenceModelStage
from rl.reward_model.pairs import Pair, PairSplit
from rl.reward_model.unfinished import UnfinishedWork


def pairs(count, seed, *, margin=None, as_messages=False, prefix=""):
    rng = random.Random(seed)
    found = []
    for number in range(count):
        few, many = rng.randrange(0, 3), rng.randrange(4, 7)
        sides = ["".join(rng.sample("a" * n + "b" * (6 - n), 6)) for n in (many, few)]
        prompt = f"{prefix}{seed}.{number}:"
        if as_messages:
            prompt, sides = [{"role": "user", "content": prompt}], [[{"role": "assistant", "content": s}] for s in sides]
        found.append(Pair(prompt, *sides, margin))
    return found


def stage(**changes):
    base = {"kind": "preference_model", "pairs": {"task": "requests"}, "num_pairs": 256, "num_held_out": 64}
    numbers = {"batch_size": 16, "learning_rate": 3e-3, "max_length": 32}
    return PreferenceModelStage.model_validate({**base, **numbers, **changes})


def train(folder, start, section, training=None, validation=(), held_out=None, logged=None, work=None):
    split = PairSplit(training or pairs(256, 1), validation, held_out or pairs(64, 2))
    logged = [] if logged is None else logged
    on_log = lambda step, total, numbers: logged.append((step, total, numbers))  # noqa: E731
    work = work or UnfinishedWork(folder.with_name(f"{folder.name}.work"), checkpoint_every=10_000)
    return train_preference_model(section, start=start, pairs=split, folder=folder, seed=3, on_log=on_log, work=work)


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("models") / "policy")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, policy):
    folder = tmp_path_factory.mktemp("models") / "reward"
    logged = []
    details = train(folder, policy, stage(epochs=2), logged=logged)
    return folder, details, logged


def test_it_learns_and_says_how_well(trained):
    folder, details, _ = trained
    assert details["accuracy"] > 0.95
    assert details["accuracy_low"] < details["accuracy"] <= details["accuracy_high"]
    assert details["held_out_loss"] < 0.3
    assert details["steps"] == 32  # 256 pairs, 16 a batch, twice
    assert (folder / "calibration.png").read_bytes().startswith(b"\x89PNG")
    assert sum(b["count"] for b in json.loads((folder / "calibration.json").read_text())) == 64
    assert not (folder / "trainer").exists()


def test_its_accuracy_is_that_of_the_reward_on_the_same_pairs(trained):
    folder, details, _ = trained
    reward = load_reward("preference", model=str(folder), device="cpu")
    held_out = pairs(64, 2)
    prompts = [pair.prompt for pair in held_out]
    better, worse = (reward(prompts, [getattr(pair, side) for pair in held_out]) for side in ("chosen", "rejected"))
    assert sum(a > b for a, b in zip(better, worse)) / 64 == details["accuracy"]
    assert sum(better + worse) / 128 == pytest.approx(0, abs=1e-5)  # the scale of the held-out responses


def test_warm_up_and_schedule_are_those_of_the_recipe(tmp_path, policy):
    rates = {}
    for schedule in ("constant", "linear", "cosine"):
        logged = []
        train(tmp_path / schedule, policy, stage(epochs=2.5, warmup_share=0.5, schedule=schedule), logged=logged)
        rates[schedule] = [numbers["learning_rate"] for _, _, numbers in logged if "learning_rate" in numbers]
    # 40 steps, 20 of them warm-up; step s logs the rate of step s - 1 counted from 0: 9/20 of it at step 10
    for found in rates.values():
        assert found[0] == pytest.approx(3e-3 * 9 / 20)
    assert rates["constant"][2:] == pytest.approx([3e-3, 3e-3])
    assert rates["linear"][2] == pytest.approx(3e-3 * (1 - 9 / 20))  # step 29: 9 of 20 steps after the warm-up
    assert rates["cosine"][2] == pytest.approx(3e-3 * 0.5 * (1 + torch.cos(torch.tensor(9 / 20 * torch.pi)).item()))


def test_a_reward_model_on_disk_keeps_its_head_and_another_classifier_gets_a_new_one(tmp_path, trained, policy):
    folder, details, _ = trained
    again = train(tmp_path / "again", str(folder), stage(learning_rate=1e-9))
    assert again["accuracy"] == details["accuracy"]
    assert again["score_mean"] == pytest.approx(details["score_mean"], abs=1e-3)
    classifier = AutoModelForSequenceClassification.from_pretrained(policy, num_labels=3)
    classifier.save_pretrained(tmp_path / "classifier")
    (tmp_path / "classifier" / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    (tmp_path / "classifier" / "tokenizer_config.json").write_bytes((folder / "tokenizer_config.json").read_bytes())
    assert train(tmp_path / "new", str(tmp_path / "classifier"), stage(epochs=2))["accuracy"] > 0.9


def test_the_same_seed_gives_the_same_model(tmp_path, policy):
    details = [train(tmp_path / str(n), policy, stage(epochs=0.5)) for n in range(2)]
    assert details[0] == details[1]


def test_messages_train_as_text_does(tmp_path, policy, trained):
    folder, _, _ = trained
    start = tmp_path / "chat"
    AutoModelForSequenceClassification.from_pretrained(policy, num_labels=1).save_pretrained(start)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (start / name).write_bytes((folder / name).read_bytes())
    (start / "chat_template.jinja").write_text("{% for m in messages %}{{ m.role[0] }}: {{ m.content }}\n{% endfor %}")
    training, held_out = pairs(256, 1, as_messages=True), pairs(64, 2, as_messages=True)
    assert train(tmp_path / "rm", str(start), stage(epochs=2), training, held_out=held_out)["accuracy"] > 0.9


def test_a_margin_pushes_scores_apart_and_centering_pulls_them_to_0(tmp_path, policy):
    def gap_and_sum(name, margin=None, **changes):
        section = stage(epochs=4, learning_rate=1e-2, **changes)
        train(tmp_path / name, policy, section, pairs(256, 1, margin=margin))
        reward = load_reward("preference", model=str(tmp_path / name), mean=0.0, std=1.0, device="cpu")
        held_out = pairs(64, 2)
        prompts = [pair.prompt for pair in held_out]
        sides = [reward(prompts, [getattr(pair, side) for pair in held_out]) for side in ("chosen", "rejected")]
        return sum(a - b for a, b in zip(*sides)) / 64, sum((a + b) ** 2 for a, b in zip(*sides)) / 64

    plain, apart = gap_and_sum("plain"), gap_and_sum("apart", margin=10.0)
    assert apart[0] > plain[0] + 2
    centred = gap_and_sum("centred", center_rewards_coefficient=0.5)
    assert centred[1] < plain[1] / 4


def test_lora_changes_the_backbone_by_a_low_rank_and_leaves_a_plain_model(tmp_path, policy):
    train(tmp_path, policy, stage(epochs=2, learning_rate=1e-2, lora={"rank": 2, "alpha": 4}))
    assert not (tmp_path / "adapter_config.json").exists()
    after = AutoModelForSequenceClassification.from_pretrained(tmp_path).state_dict()
    before = AutoModelForSequenceClassification.from_pretrained(policy, num_labels=1).state_dict()
    change = after["model.layers.0.mlp.up_proj.weight"] - before["model.layers.0.mlp.up_proj.weight"]
    sizes = torch.linalg.svdvals(change)
    assert sizes[1] > 1e-5
    assert sizes[2] < 1e-5 * sizes[0]
    assert torch.equal(after["model.embed_tokens.weight"], before["model.embed_tokens.weight"])


def test_early_stop_ends_training_and_keeps_the_best_weights(tmp_path, policy):
    # the labels of the validation pairs are all wrong: the loss on them only rises
    wrong = [Pair(pair.prompt, pair.rejected, pair.chosen) for pair in pairs(64, 4)]
    early_stop = {"num_pairs": 64, "evaluate_every": 2, "patience": 2}
    logged = []
    section = stage(epochs=5, learning_rate=1e-2, early_stop=early_stop)
    details = train(tmp_path, policy, section, validation=wrong, logged=logged)
    assert details["steps"] < 40  # of 80
    losses = {step: numbers["eval_loss"] for step, _, numbers in logged if "eval_loss" in numbers}
    reward = load_reward("preference", model=str(tmp_path), mean=0.0, std=1.0, device="cpu")
    prompts = [pair.prompt for pair in wrong]
    sides = [torch.tensor(reward(prompts, [getattr(p, side) for p in wrong])) for side in ("chosen", "rejected")]
    kept = -torch.nn.functional.logsigmoid(sides[0] - sides[1]).mean().item()
    assert kept == pytest.approx(min(losses.values()), abs=1e-4)
    assert min(losses, key=losses.get) < max(losses)


def test_members_differ_and_are_served_together(tmp_path, policy):
    details = train(tmp_path, policy, stage(epochs=2, members=2))
    assert details["ensemble_accuracy"] > 0.95
    rewards = []
    for model in (tmp_path, tmp_path / "member_0", tmp_path / "member_1"):
        reward = load_reward("preference", model=str(model), device="cpu")
        rewards.append(reward(prompts=["x:"], completions=["aabbab"])[0])
    assert rewards[1] != pytest.approx(rewards[2], abs=1e-4)
    assert rewards[0] == pytest.approx((rewards[1] + rewards[2]) / 2, abs=1e-5)


def test_pairs_that_are_too_long_are_counted_and_all_of_them_are_an_error(tmp_path, policy):
    mixed = [*pairs(32, 1), *pairs(16, 2, prefix="x" * 40)]
    assert train(tmp_path / "some", policy, stage(), mixed)["pairs_too_long"] == 16
    with pytest.raises(RunFailed, match="all 16 pairs are longer than max_length 32"):
        train(tmp_path / "all", policy, stage(), mixed[32:])
