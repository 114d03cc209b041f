"""The learned preference reward against a plain forward pass, with a tiny random classifier."""

import json
import statistics
import string

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForSequenceClassification

from rewards import load_reward
from rewards.scale import RunningScale
from rewards.sequence_scorer import length_buckets, row_tokens
from rewards.testing import check_reward

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


def make_model(tokenizer, directory, *, padding_side="right", num_labels=1, pad_token_id=0, seed=0):
    torch.manual_seed(seed)
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
@pytest.mark.parametrize("pad_token_id", [0, None, 1], ids=["pad", "no pad", "pad is eos"])
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
    assert row_tokens(tokenizer, PROMPTS, COMPLETIONS) == [row["chosen_ids"] for row in trainer.train_dataset]


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


def test_scores_are_those_of_the_transformers_pipeline(tmp_path, tokenizer):
    from transformers import pipeline

    make_model(tokenizer, tmp_path)
    classify = pipeline("text-classification", model=str(tmp_path), device="cpu", function_to_apply="none")
    texts = [prompt + completion + "<eos>" for prompt, completion in zip(PROMPTS, COMPLETIONS)]
    expected = [answer["score"] for answer in classify(texts)]
    reward = load_reward("preference", model=str(tmp_path), device="cpu")
    assert reward(prompts=PROMPTS, completions=COMPLETIONS) == pytest.approx(expected, abs=1e-5)


def write_scale(folder, mean, std):
    (folder / "normalisation.json").write_text(json.dumps({"mean": mean, "std": std}))


def test_the_scale_beside_the_model_is_used_unless_another_is_given(tmp_path, tokenizer):
    model = make_model(tokenizer, tmp_path)
    write_scale(tmp_path, 0.5, 2.0)
    (raw,) = one_by_one(model, tokenizer, ["ab<eos>"])
    stored = load_reward("preference", model=str(tmp_path), device="cpu")
    assert stored(prompts=["a"], completions=["b"]) == pytest.approx([(raw - 0.5) / 2.0], abs=1e-5)
    given = load_reward("preference", model=str(tmp_path), mean=0.0, std=1.0, device="cpu")
    assert given(prompts=["a"], completions=["b"]) == pytest.approx([raw], abs=1e-5)


def test_reference_responses_fix_the_scale(tmp_path, tokenizer):
    model = make_model(tokenizer, tmp_path)
    rows = [{"prompt": p, "completion": c} for p, c in zip(PROMPTS, COMPLETIONS)]
    (tmp_path / "reference.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    raw = one_by_one(model, tokenizer, [p + c + "<eos>" for p, c in zip(PROMPTS, COMPLETIONS)])
    reward = load_reward("preference", model=str(tmp_path), reference=str(tmp_path / "reference.jsonl"), device="cpu")
    rewards = reward(prompts=PROMPTS, completions=COMPLETIONS)
    assert statistics.fmean(rewards) == pytest.approx(0, abs=1e-6)
    assert statistics.pstdev(rewards) == pytest.approx(1, abs=1e-6)
    assert rewards[0] == pytest.approx((raw[0] - statistics.fmean(raw)) / statistics.pstdev(raw), abs=1e-4)


@given(st.lists(st.lists(st.floats(-1e3, 1e3), max_size=6), min_size=1, max_size=6))
def test_the_running_scale_is_that_of_everything_seen(batches):
    running = RunningScale()
    for batch in batches:
        scale = running.update(batch)
    seen = [x for batch in batches for x in batch]
    if seen:
        assert scale.mean == pytest.approx(statistics.fmean(seen), abs=1e-6)
        assert scale.std == pytest.approx(statistics.pstdev(seen) if statistics.pstdev(seen) > 1e-6 else 1, rel=1e-3)


def test_running_normalisation_centres_what_came_so_far(tmp_path, tokenizer):
    model = make_model(tokenizer, tmp_path)
    raw = one_by_one(model, tokenizer, ["ab<eos>", "cd<eos>"])
    reward = load_reward("preference", model=str(tmp_path), running=True, device="cpu")
    assert reward(prompts=["a"], completions=["b"]) == [0.0]
    expected = (raw[1] - statistics.fmean(raw)) / statistics.pstdev(raw)
    assert reward(prompts=["c"], completions=["d"]) == pytest.approx([expected], abs=1e-4)


def test_an_ensemble_gives_its_mean_minus_what_it_disagrees_on(tmp_path, tokenizer):
    scores = []
    for member, (mean, std) in enumerate([(0.0, 1.0), (1.0, 2.0), (-1.0, 0.5)]):
        folder = tmp_path / f"member_{member}"
        folder.mkdir()
        model = make_model(tokenizer, folder, seed=member)
        write_scale(folder, mean, std)
        scores.append([(raw - mean) / std for raw in one_by_one(model, tokenizer, ["ab<eos>", "c!<eos>"])])
    logged = {}
    for paths in (str(tmp_path), [str(tmp_path / f"member_{m}") for m in range(3)]):
        reward = load_reward("preference", model=paths, pessimism=2.0, device="cpu")
        rewards = reward(prompts=["a", "c"], completions=["b", "!"], log_metric=logged.__setitem__)
        expected = [statistics.fmean(own) - 2.0 * statistics.pstdev(own) for own in zip(*scores)]
        assert rewards == pytest.approx(expected, abs=1e-4)
    assert logged["preference/ensemble_std"] == pytest.approx(
        statistics.fmean(statistics.pstdev(own) for own in zip(*scores)), abs=1e-4
    )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"mean": 1.0, "running": True}, "exclude each other"),
        ({"pessimism": -1.0}, "pessimism -1"),
        ({"clip": 0.0}, "clip"),
        ({"model": []}, "a directory or a list of directories"),
        ({"url": "localhost:1"}, "must begin with http"),
        ({"url": "http://localhost", "model": ["a", "b"]}, "one server serves one model"),
    ],
)
def test_options_without_meaning_are_refused(tmp_path, tokenizer, options, told):
    make_model(tokenizer, tmp_path)
    with pytest.raises(ValueError, match=told):
        load_reward("preference", **{"model": str(tmp_path), **options})(prompts=["a"], completions=["b"])


def test_an_offloaded_model_scores_the_same(tmp_path, tokenizer):
    make_model(tokenizer, tmp_path)
    here, offloaded = (load_reward("preference", model=str(tmp_path), device="cpu", offload=x) for x in (False, True))
    assert here(prompts=PROMPTS, completions=COMPLETIONS) == offloaded(prompts=PROMPTS, completions=COMPLETIONS)


def test_the_contract_holds_for_any_text(tmp_path, tokenizer):
    make_model(tokenizer, tmp_path)
    check_reward(load_reward("preference", model=str(tmp_path), device="cpu", clip=5.0), value_range=(-5.0, 5.0))


def test_buckets_hold_rows_of_similar_length_within_the_budget():
    assert list(length_buckets([1, 9, 2, 8, 3], 18)) == [[1, 3], [4, 2, 0]]
    assert list(length_buckets([50, 1], 18)) == [[0], [1]]
    assert list(length_buckets([], 18)) == []
