"""Terms about behaviour beside a learned preference: citations, length, language, confidence."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_reward_remote import Server

from rewards import load_reward
from rewards.citations import cited, invented
from rewards.same_language import language_of, same_language_reward
from rewards.testing import check_reward

# ---------------------------------------------------------------- citations


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("see https://www.Example.com/Path/.", {"example.com/Path"}),
        ("[docs](http://example.com/a_b) and example.com/a_b", {"example.com/a_b"}),
        ("doi:10.1000/xyz.123, and https://doi.org/10.1000/XYZ.123", {"doi 10.1000/xyz.123"}),
        ("arXiv:2601.05593 or https://arxiv.org/abs/2601.05593", {"arxiv 2601.05593"}),
        ("as shown (Smith et al., 2020) and by Jones and Brown (1999)", {"by Smith 2020", "by Jones 1999"}),
        ("```\nurl = 'https://example.com'\n```", set()),
        ("the interval [0, 1], f(x) = 3.14, e.g. this. End.", set()),
        ("in May (2020) it rained", set()),
    ],
)
def test_citations_are_found_in_one_normal_form(text, found):
    assert cited(text) == found


def test_what_the_prompt_gives_may_be_cited():
    given_text = "Use https://example.com/a and the paper of Ada Smith from 2020."
    assert invented("http://www.example.com/a/ says so (Smith, 2020)", given_text) == set()
    assert invented("example.com/b says so (Smith, 2021)", given_text) == {"example.com/b", "by Smith 2021"}


def test_each_invented_citation_counts_once():
    reward = load_reward("citations", worst=2)
    answers = ["none", "a.com and a.com", "a.com, b.com, c.com", "ok.org"]
    assert reward(prompts=["see ok.org"] * 4, completions=answers) == [0.0, -0.5, -1.0, 0.0]
    assert reward(prompts=["q"], completions=["ok.org"], sources=[["ok.org"]]) == [0.0]
    chat = [{"role": "user", "content": "see ok.org"}]
    assert reward(prompts=[chat], completions=[[{"role": "assistant", "content": "ok.org, no.org"}]]) == [-0.5]
    assert load_reward("citations", allowed=1)(prompts=["q"], completions=["a.com"]) == [0.0]


# ---------------------------------------------------------------- length


def test_length_is_free_inside_its_bounds_and_costs_outside():
    reward = load_reward("length", low=2, high=4, slope=4)
    ids = [[1] * n for n in (0, 2, 4, 5, 8, 100)]
    assert reward(completions=["x"] * 6, completion_ids=ids) == [-0.5, 0.0, 0.0, -0.25, -1.0, -1.0]
    words = load_reward("length", high=2, slope=2, unit="words")
    assert words(completions=["a b", "a b c"]) == [0.0, -0.5]
    with pytest.raises(ValueError, match="low 5, high 4"):
        load_reward("length", low=5, high=4, slope=1)
    with pytest.raises(ValueError, match="unit tokens needs completion_ids"):
        reward(completions=["x"])


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 20), st.integers(0, 200))
def test_length_never_rises_away_from_the_bounds(low, more, slope, size):
    reward = load_reward("length", low=low, high=low + more, slope=slope, unit="characters")
    here, further = reward(completions=["x" * size, "x" * (size + 1 if size >= low else max(size - 1, 0))])
    assert -1.0 <= further <= here <= 0.0


# ---------------------------------------------------------------- language

SENTENCES = {
    "en": "The answer is that you have to go with the others, and it is not far.",
    "de": "Die Antwort ist nicht schwer, und der Weg ist auch mit dem Rad zu finden.",
    "fr": "La réponse est dans le livre, et vous ne pouvez pas la trouver avec une carte.",
    "es": "La respuesta está en el libro y no se puede encontrar con los mapas del pueblo.",
    "it": "Non è difficile: il libro è nel cassetto, con gli altri che sono della nonna.",
    "pt": "A resposta não está em um livro, mas você pode encontrar os mapas na gaveta da avó.",
}


@pytest.mark.parametrize("language", SENTENCES)
def test_a_latin_language_is_told_by_its_short_words(language):
    assert language_of(SENTENCES[language]) == language


@pytest.mark.parametrize(
    ("prompt", "answer", "score"),
    [
        (SENTENCES["en"], SENTENCES["en"], 1.0),
        (SENTENCES["en"], SENTENCES["fr"], 0.0),
        (SENTENCES["de"], "42", 1.0),
        ("什么是爱?", "爱是一种感情。", 1.0),
        ("什么是爱?", "Love is a feeling.", 0.0),
        ("これは何ですか?", "これは本です。", 1.0),
        ("Что это?", "Это book.", 3 / 7),
        ("What is it?", "`это` is $x$", 1.0),
        ("12 + 30 = ?", "сорок два", None),
    ],
)
def test_the_answer_is_wanted_in_the_language_of_the_prompt(prompt, answer, score):
    assert same_language_reward([prompt], [answer]) == [pytest.approx(score) if score is not None else None]


def test_of_a_conversation_the_last_user_turn_counts():
    chat = [{"role": "user", "content": "Что это?"}, {"role": "user", "content": "什么是爱?"}]
    assert same_language_reward([chat], ["爱是一种感情。"]) == [1.0]


# ---------------------------------------------------------------- confidence


@pytest.mark.parametrize(("verdict", "value"), [("calibrated", 0.0), ("partly", -0.5), ("overconfident", -1.0)])
def test_a_judge_says_how_sure_a_response_sounds(verdict, value):
    reply = {"choices": [{"message": {"content": f"Hm.\nVerdict: {verdict}"}}]}
    with Server(lambda body, number: (200, reply)) as server:
        reward = load_reward("overconfidence", url=server.url, model="judge")
        assert asyncio.run(reward(prompts=["When?"], completions=["Tomorrow, surely."])) == [value]
    (_, _, body) = server.requests[0]
    assert "Tomorrow, surely." in body["messages"][0]["content"]


# ---------------------------------------------------------------- the contract


@pytest.mark.parametrize(
    ("name", "args", "value_range"),
    [("citations", {}, (-1, 0)), ("length", {"high": 9, "slope": 9, "unit": "words"}, (-1, 0)), ("same_language", {}, (0, 1))],
)
def test_the_terms_keep_the_contract(name, args, value_range):
    check_reward(load_reward(name, **args), value_range=value_range)
