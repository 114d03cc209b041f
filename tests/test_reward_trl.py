"""The contract with TRL, both ways: our rewards in its GRPOTrainer, its reward functions in our pool."""

import string
import sys

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from rewards import load_reward
from rewards.worker import RewardPool

TEMPLATE = "{% for m in messages %}<u>{{ m['content'] }}<eos>{% endfor %}"


def test_functions_written_for_trl_run_unchanged_in_the_pool():
    completion = [{"role": "assistant", "content": r"so it is \boxed{\frac{1}{3}}"}]
    wrong = [{"role": "assistant", "content": r"so it is \boxed{\frac{1}{2}}"}]
    with RewardPool("trl.rewards.accuracy_rewards:accuracy_reward", timeout_s=120) as pool:
        results = pool.score(["q", "q"], [completion, wrong], {"solution": [r"\frac{1}{3}"] * 2})
    assert [result.value for result in results] == [1.0, 0.0]
    args = {"max_completion_len": 100, "soft_punish_cache": 20}
    with RewardPool("trl.rewards.other_rewards:get_soft_overlong_punishment", args=args, timeout_s=120) as pool:
        assert pool.score(["q"], ["x"], {}, completion_ids=[[0] * 90])[0].value == -0.5


def test_our_rewards_run_in_grpo_trainer(tmp_path, monkeypatch):
    if "trl" not in sys.modules:  # TRL imports vLLM where it finds it: seconds, for what this test does not use
        monkeypatch.setitem(sys.modules, "vllm", None)
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
    from trl import GRPOConfig, GRPOTrainer

    vocabulary = {token: i for i, token in enumerate(["<pad>", "<eos>", "<unk>", *string.printable])}
    characters = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    characters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=characters, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", chat_template=TEMPLATE
    )
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    seen = []

    def spy(completions, solution, **columns):
        seen.extend(zip(completions, solution))
        return [0.0] * len(completions)

    rewards = [
        load_reward("math", allow_last_expression=False),
        load_reward("repetition", ngram=2),
        load_reward("soft_overlong", max_tokens=8, buffer_tokens=4),
        load_reward("gui_click"),
        spy,
    ]
    rows = {
        "prompt": ["1+1=", "2+2="],
        "solution": ["2", "4"],
        "target_box": [[0, 0, 5, 5]] * 2,
        "image_size": [[9, 9]] * 2,
    }
    trainer = GRPOTrainer(
        model=Qwen3ForCausalLM(config),
        reward_funcs=rewards,
        args=GRPOConfig(
            output_dir=str(tmp_path), max_steps=1, per_device_train_batch_size=4, num_generations=2, use_cpu=True,
            max_completion_length=8, report_to="none", bf16=False, save_strategy="no", logging_steps=1, disable_tqdm=True,
        ),
        train_dataset=Dataset.from_dict(rows),
        processing_class=tokenizer,
    )  # fmt: skip
    trainer.train()
    logged = trainer.state.log_history[0]
    names = ["math_reward", "repetition", "soft_overlong", "gui_click_reward", "spy"]
    assert [fn.__name__ for fn in rewards] == names
    texts, golds = zip(*seen)
    math = rewards[0](completions=texts, solution=golds)
    clicks = rewards[3](completions=texts, target_box=[[0, 0, 5, 5]] * len(texts), image_size=[[9, 9]] * len(texts))
    assert logged["rewards/math_reward/mean"] == pytest.approx(sum(math) / len(math))
    assert logged["rewards/gui_click_reward/mean"] == pytest.approx(sum(clicks) / len(clicks))
    assert "math/no_answer" in logged
