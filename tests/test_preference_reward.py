"""The learned preference reward against a plain forward pass, with a tiny random classifier."""

import string

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForSequenceClassification

from rewards import load_reward
from rewards.preference import length_buckets

TEMPLATE = "{% for m in messages %}<{{ m['role'][0] }}>{{ m['content'] }}<eos>{% endfor %}"
PROMPTS = ["ab ", "c", "What is 1 + 1? ", ""]
COMPLETIONS = ["hello world", "x", "two, of course, as everybody knows", "!"]


@pytest.fixture(scope="module")
def tokenizer():
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<eos>", "<unk>", *string.printable])}
    characters = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    characters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=characters, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", chat_template=TEMPLATE
    )


def make_model(tokenizer, directory, *, padding_side="right", num_labels=1, pad_token_id=0):
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, num_labels=num_labels, pad_token_id=pad_token_id, eos_token_id=1,
        max_position_embeddings=512,
    )  # fmt: skip
    model = Qwen3ForSequenceClassification(config).eval()
    torch.nn.init.normal_(model.score.weight)  # scores of order one, so that equality means something
    model.save_pretrained(directory)
    tokenizer.padding_side = padding_side
    tokenizer.save_pretrained(directory)
    return model


def one_by_one(model, tokenizer, texts: list[str]) -> list[float]:
    with torch.inference_mode():
        return [model(**tokenizer(text, return_tensors="pt")).logits.item() for text in texts]


@pytest.mark.parametrize("padding_side", ["right", "left"])
@pytest.mark.parametrize("pad_token_id", [0, None])
def test_batches_score_as_rows_do_one_by_one_whatever_the_padding(tmp_path, tokenizer, padding_side, pad_token_id):
    model = make_model(tokenizer, tmp_path, padding_side=padding_side, pad_token_id=pad_token_id)
    expected = one_by_one(model, tokenizer, [p + c + "<eos>" for p, c in zip(PROMPTS, COMPLETIONS)])
    for batch_tokens in (1, 64, 10_000):
        reward = load_reward("preference", model=str(tmp_path), batch_tokens=batch_tokens, device="cpu")
        assert reward(prompts=PROMPTS, completions=COMPLETIONS) == pytest.approx(expected, abs=1e-5)
    assert max(expected) - min(expected) > 0.01


def test_rows_are_tokenized_as_the_reward_trainer_does(tmp_path, tokenizer):
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    model = make_model(tokenizer, tmp_path)
    rows = Dataset.from_dict({"prompt": PROMPTS, "chosen": COMPLETIONS, "rejected": COMPLETIONS[::-1]})
    config = RewardConfig(output_dir=str(tmp_path / "out"), use_cpu=True, bf16=False, report_to="none")
    trainer = RewardTrainer(model=model, args=config, train_dataset=rows, processing_class=tokenizer)
    reward = load_reward("preference", model=str(tmp_path), device="cpu")
    reward.warm_up()
    ours = [reward._scorer.token_ids(prompt, completion) for prompt, completion in zip(PROMPTS, COMPLETIONS)]
    assert ours == [row["chosen_ids"] for row in trainer.train_dataset]


def test_conversations_go_through_the_chat_template(tmp_path, tokenizer):
    model = make_model(tokenizer, tmp_path)
    prompt = [{"role": "user", "content": "hi"}]
    expected = one_by_one(model, tokenizer, ["<u>hi<eos><a>yes<eos>"])
    reward = load_reward("preference", model=str(tmp_path), device="cpu")
    for completion in ([{"role": "assistant", "content": "yes"}], "yes"):
        assert reward(prompts=[prompt], completions=[completion]) == pytest.approx(expected, abs=1e-5)


def test_a_cut_off_response_gets_no_end_of_sequence(tmp_path, tokenizer):
    model = make_model(tokenizer, tmp_path)
    reward = load_reward("preference", model=str(tmp_path), device="cpu")
    scores = reward(prompts=["a", "a"], completions=["b", "b"], finish_reason=["length", "stop"])
    assert scores == pytest.approx(one_by_one(model, tokenizer, ["ab", "ab<eos>"]), abs=1e-5)


def test_scores_are_normalized_and_clipped(tmp_path, tokenizer):
    model = make_model(tokenizer, tmp_path)
    (raw,) = one_by_one(model, tokenizer, ["ab<eos>"])
    reward = load_reward("preference", model=str(tmp_path), mean=raw - 1.0, std=0.5, clip=1.5, device="cpu")
    assert reward(prompts=["a"], completions=["b"]) == [1.5]  # (raw - (raw - 1)) / 0.5 = 2, clipped
    with pytest.raises(ValueError, match="std 0"):
        load_reward("preference", model=str(tmp_path), std=0.0)


def test_a_row_that_is_too_long_keeps_its_end_and_is_counted(tmp_path, tokenizer):
    model = make_model(tokenizer, tmp_path)
    logged = {}
    reward = load_reward("preference", model=str(tmp_path), max_length=4, device="cpu")
    scores = reward(prompts=["abcdef", "a"], completions=["gh", "b"], log_metric=logged.__setitem__)
    assert scores == pytest.approx(one_by_one(model, tokenizer, ["fgh<eos>", "ab<eos>"]), abs=1e-5)
    assert logged["preference/truncated"] == 0.5


def test_a_directory_that_is_no_reward_model_is_refused(tmp_path, tokenizer):
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        load_reward("preference", model=str(tmp_path))(prompts=["a"], completions=["b"])
    make_model(tokenizer, tmp_path, num_labels=3)
    with pytest.raises(ValueError, match="num_labels 3"):
        load_reward("preference", model=str(tmp_path), device="cpu")(prompts=["a"], completions=["b"])


def test_buckets_hold_rows_of_similar_length_within_the_budget():
    assert list(length_buckets([1, 9, 2, 8, 3], 18)) == [[1, 3], [4, 2, 0]]
    assert list(length_buckets([50, 1], 18)) == [[0], [1]]
    assert list(length_buckets([], 18)) == []
