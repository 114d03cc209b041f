"""Keys and passwords are kept out of recipes, and so out of run directories and logs."""

import pytest
from run_directories import quickstart

from rewards.http import http_reward
from rl.preflight import check
from rl.recipe.secrets import secret_problems

KEY = "sk-" + "0123456789abcdef" * 2


def problems(args):
    return [text for text in check(quickstart(f"stages.rlvr.rewards.0.args={args}"), on_this_machine=False) if "run directory" in text]


@pytest.mark.parametrize("args, key", [
    ("{api_key: abc}", "args.api_key"),
    ("{headers: {Authorization: Bearer abc}}", "args.headers.Authorization"),
    (f"{{anything: [{KEY}]}}", "args.anything.0"),
    ("{url: 'https://me:pass@judge.example/v1'}", "args.url"),
])
def test_a_secret_is_refused_and_not_repeated(args, key):
    (told,) = problems(args)
    assert told.startswith(f"stages.rlvr.rewards.0.{key}: a key or password stands here")
    assert "abc" not in told.partition(": ")[2]
    assert "pass@" not in told
    assert KEY not in told


@pytest.mark.parametrize("args", [
    "{api_key_env: JUDGE_KEY}", "{headers: {Authorization: Bearer $JUDGE_KEY}}", "{url: 'http://judge:8000/v1'}",
    "{max_tokens: 5, token: '<think>'}",
])
def test_what_only_names_a_secret_is_not_one(args):
    assert problems(args) == []


def test_shipped_recipes_hold_none():
    assert list(secret_problems(quickstart().model_dump(mode="json"))) == []


def test_the_reward_http_fills_headers_from_the_environment(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "abc")
    reward = http_reward(url="http://judge", headers={"Authorization": "Bearer $JUDGE_KEY"})
    assert reward._poster._headers == {"Authorization": "Bearer abc"}
