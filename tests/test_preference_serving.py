"""One reward model, the same scores: called, in the worker pool, by `stepladder score`, and in TRL's GRPOTrainer."""

import json
import subprocess
import sys

import pytest
from fakes import tiny_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from rewards import load_reward
from rewards.worker import RewardPool
from rl.cli import main

PROMPTS, COMPLETIONS = ["a:", "b:", "c:"], ["one", "three of them", "!"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """(policy, reward model) on disk."""
    folder = tmp_path_factory.mktemp("models")
    policy = tiny_model(folder / "policy")
    AutoModelForSequenceClassification.from_pretrained(policy, num_labels=1).save_pretrained(folder / "rm")
    AutoTokenizer.from_pretrained(policy).save_pretrained(folder / "rm")
    (folder / "rm" / "normalisation.json").write_text('{"mean": 0.25, "std": 0.5}')
    return policy, str(folder / "rm")


@pytest.fixture(scope="module")
def expected(models):
    return load_reward("preference", model=models[1], device="cpu")(prompts=PROMPTS, completions=COMPLETIONS)


def test_the_worker_pool_needs_no_ray(models, expected):
    with RewardPool("preference", args={"model": models[1], "device": "cpu"}, timeout_s=60) as pool:
        results = pool.score(PROMPTS, COMPLETIONS, {})
    assert [result.value for result in results] == pytest.approx(expected, abs=1e-6)
    assert "preference/raw_score" in results[0].metrics


def test_the_command_scores_a_file(models, expected, tmp_path):
    rows = [{"prompt": p, "completion": c} for p, c in zip(PROMPTS, COMPLETIONS)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["score", str(tmp_path / "in.jsonl"), "--reward", "preference", "--arg", f"model={models[1]}",
                 "--arg", "device=cpu", "--timeout-s", "60", "--out", str(tmp_path / "out.jsonl")]  # fmt: skip
    assert main(arguments) == 0
    scored = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["reward"] for row in scored] == pytest.approx(expected, abs=1e-6)


def test_it_is_a_reward_function_of_trl(models, tmp_path):
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    policy, model = models
    reward = load_reward("preference", model=model, device="cpu")
    seen = []

    def spy(prompts, completions, **columns):
        seen.append((prompts, completions))
        return [0.0] * len(completions)

    config = GRPOConfig(
        output_dir=str(tmp_path), max_steps=1, per_device_train_batch_size=4, num_generations=2, use_cpu=True,
        max_completion_length=6, report_to="none", bf16=False, save_strategy="no", logging_steps=1, disable_tqdm=True,
    )  # fmt: skip
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(policy, dtype="float32"), reward_funcs=[reward, spy], args=config,
        train_dataset=Dataset.from_dict({"prompt": ["1+1=", "2+2="]}), processing_class=AutoTokenizer.from_pretrained(policy),
    )  # fmt: skip
    trainer.train()
    again = [value for prompts, completions in seen for value in reward(prompts=prompts, completions=completions)]
    logged = trainer.state.log_history[0]
    assert logged["rewards/preference/mean"] == pytest.approx(sum(again) / len(again), abs=1e-5)
    assert logged["rewards/preference/std"] > 0


def test_a_process_that_serves_a_model_fetches_no_page_twice():
    code = """
import resource, torch
from rewards.worker_process import load_model_of
class Model:
    def warm_up(self): ...
load_model_of(Model())
def use():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for size in (1 << 20, 3 << 20, 40 << 20):
        torch.zeros(size).add_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(*(use() for _ in range(10)))
"""
    first, *later = map(int, subprocess.check_output([sys.executable, "-c", code], text=True).split())
    assert first > 30_000  # 160 MiB in pages of 4 KiB, and some of them there before
    assert min(later) < 1_000
