"""Token-by-token sampling against a plain forward pass and transformers' generate."""

import numpy as np
import pytest
import torch
from fakes import tiny_model
from transformers import AutoModelForCausalLM, GenerationConfig

from rollouts.decoding import decode
from rollouts.engine import Request, Sampling
from rollouts.hf_engine import HfEngine
from rollouts.trajectory import FinishReason

EOS = 1
PROMPTS = [np.array(ids) for ids in ([5, 6, 7, 8], [5, 6, 7, 8], [9, 4], [9, 4], [9, 4], [7, 7, 7], [5, 6, 7, 8], [3], [8])]


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def model(model_path):
    loaded = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).eval()
    loaded.model.embed_tokens.weight.data *= 4  # spiky distributions, so that errors show
    return loaded


def forward(model, prompt, token_ids):
    """Logits [A, V] before each sampled token, in one pass without a cache."""
    ids = torch.from_numpy(np.concatenate([prompt, token_ids]))[None]
    with torch.no_grad():
        return model(ids).logits[0, len(prompt) - 1 : -1].float()


@pytest.mark.parametrize("temperature, top_k, top_p", [(1.0, 0, 1.0), (0.7, 0, 1.0), (1.3, 5, 1.0), (1.0, 0, 0.6)])
def test_logprobs_are_those_of_the_distribution_that_was_sampled_from(model, temperature, top_k, top_p):
    torch.manual_seed(0)
    found = decode(model, PROMPTS, Sampling(temperature, top_p, top_k, 12), end=frozenset(range(EOS, 55, 8)))
    assert len({len(one.token_ids) for one in found}) > 2  # rows ended at different times
    for prompt, one in zip(PROMPTS, found):
        scores = (forward(model, prompt, one.token_ids) / temperature).log_softmax(-1)
        for step, (row, token) in enumerate(zip(scores, one.token_ids)):
            kept = torch.ones_like(row, dtype=torch.bool)
            if top_k:
                kept = row >= row.sort(descending=True).values[top_k - 1]
            if top_p < 1:  # the smallest set of the most probable tokens with that mass
                order = row.argsort(descending=True)
                kept[:] = False
                kept[order[row.exp()[order].cumsum(0) - row.exp()[order] < top_p]] = True
            expected = row[token] - row[kept].logsumexp(0)
            assert bool(kept[token])
            assert one.logprobs[step] == pytest.approx(float(expected), abs=2e-4)


def test_a_response_ends_at_the_first_end_token_or_at_max_tokens(model):
    torch.manual_seed(1)
    end = frozenset(range(EOS, 55, 8))
    for one in decode(model, PROMPTS * 5, Sampling(1.0, 1.0, 0, 9), end=end):
        hits = [step for step, token in enumerate(one.token_ids) if token in end]
        assert hits == ([len(one.token_ids) - 1] if hits else [])
        assert hits or len(one.token_ids) == 9
        assert len(one.logprobs) == len(one.token_ids)


def test_greedy_tokens_equal_those_of_generate(model):
    found = decode(model, PROMPTS, Sampling(0.0, 1.0, 0, 10), end=frozenset([EOS]))
    for prompt, one in zip(PROMPTS, found):
        config = GenerationConfig(do_sample=False, max_new_tokens=10, eos_token_id=EOS, pad_token_id=0)
        expected = model.generate(torch.from_numpy(prompt)[None], generation_config=config)[0, len(prompt) :]
        assert one.token_ids.tolist() == expected.tolist()


def test_tokens_come_as_often_as_their_probability_says(model):
    torch.manual_seed(0)
    drawn = decode(model, [PROMPTS[0]] * 4000, Sampling(1.0, 1.0, 0, 1), end=frozenset([EOS]))
    counts = np.bincount([one.token_ids[0] for one in drawn], minlength=model.config.vocab_size)
    probs = forward(model, PROMPTS[0], drawn[0].token_ids)[0].softmax(-1).double().numpy()
    assert probs.max() > 0.05  # not a flat distribution, which would show little
    assert (abs(counts / 4000 - probs) < 5 * np.sqrt(probs * (1 - probs) / 4000) + 1e-3).all()


def test_the_engine_stops_at_a_stop_text_and_keeps_the_token_that_completes_it(model_path):
    engine = HfEngine(model_path, max_num_seqs=8, device="cpu")
    prompt = np.array([5, 6, 7])
    ended = 0
    for seed in range(20):
        one = engine.generate([Request(prompt, Sampling(1.0, 1.0, 0, 60, ("m", "n")))], seed=seed)[0]
        text = engine._tokenizer.decode(one.token_ids, skip_special_tokens=True)
        assert not set("mn") & set(text[:-1])
        if text[-1:] in ("m", "n"):
            assert (one.text, one.finish_reason) == (text[:-1], FinishReason.STOP)
            ended += 1
    assert ended > 5


def test_the_engine_gives_the_same_tokens_for_the_same_seed(model_path):
    engine = HfEngine(model_path, max_num_seqs=3, device="cpu")
    requests = [Request(prompt, Sampling(1.0, 1.0, 0, 8)) for prompt in PROMPTS]
    once, again, other = (engine.generate(requests, seed=seed) for seed in (0, 0, 1))
    assert [g.token_ids.tolist() for g in once] == [g.token_ids.tolist() for g in again]
    assert [g.token_ids.tolist() for g in once] != [g.token_ids.tolist() for g in other]
