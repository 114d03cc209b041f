"""From a reward's name to its function, and what goes wrong on the way."""

import subprocess
import sys
from pathlib import Path

import pytest

from rewards import BUILT_IN, RewardSpecError, load_reward, required_columns

FUNCTIONS = str(Path(__file__).parent / "data" / "reward_functions.py")
ARGUMENTS = {
    "preference": {"model": "some/directory"},
    "soft_overlong": {"max_tokens": 100, "buffer_tokens": 20},
    "http": {"url": "http://localhost:1/"},
    "judge": {"url": "http://localhost:1/v1", "model": "judge"},
    "pairwise": {"url": "http://localhost:1/v1", "model": "judge"},
    "overconfidence": {"url": "http://localhost:1/v1", "model": "judge"},
    "length": {"high": 100, "slope": 20},
}


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_every_built_in_loads_and_has_a_name_for_trl(name):
    assert load_reward(name, **ARGUMENTS.get(name, {})).__name__


def test_importing_the_package_is_light():
    heavy = "{'torch', 'sympy', 'mpmath', 'transformers', 'ray', 'jinja2', 'httpx'}"
    code = f"import sys, rewards, rewards.worker; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_function_is_named_by_module_or_by_file():
    from rewards.math_answer import math_reward

    assert load_reward("rewards.math_answer:math_reward") is math_reward
    assert load_reward("math") is math_reward
    assert load_reward(f"{FUNCTIONS}:narrow")(completions=["a"], solution=["a"]) == [1.0]


def test_arguments_are_bound_to_a_function_or_given_to_a_factory():
    for name in ("brevity", "make_brevity"):
        reward = load_reward(f"{FUNCTIONS}:{name}", max_chars=3)
        assert reward(completions=["abc", "abcd"]) == [1.0, 0.0]
        assert required_columns(reward) == frozenset()
    assert load_reward(f"{FUNCTIONS}:brevity", max_chars=3).__name__ == "brevity"
    assert load_reward(f"{FUNCTIONS}:Longer", than=1)(completions=["a", "ab"]) == [0.0, 1.0]
    assert load_reward(f"{FUNCTIONS}:everything")(completions=["a"]) == [0.0]


def test_required_columns_are_the_parameters_without_a_default():
    assert required_columns(load_reward("math")) == {"solution"}
    assert required_columns(load_reward("gui_click")) == {"target_box", "image_size"}
    assert required_columns(load_reward("judge", **ARGUMENTS["judge"])) == {"solution"}
    assert required_columns(load_reward("http", url="http://x/", columns=["a", "b"])) == {"a", "b"}
    assert required_columns(load_reward("soft_overlong", **ARGUMENTS["soft_overlong"])) == frozenset()


@pytest.mark.parametrize(
    ("spec", "args", "message"),
    [
        ("mth", {}, r"'mth'.*did you mean 'math'.*gui_click"),
        ("no.such.module:f", {}, "cannot import no.such.module"),
        ("json:lods", {}, "json has no 'lods'.*did you mean 'loads'"),
        ("missing.py:f", {}, "there is no file .*missing.py"),
        (":f", {}, "expected package.module:function"),
        (f"{FUNCTIONS}:NOT_A_FUNCTION", {}, "not callable"),
        (f"{FUNCTIONS}:brevity", {"max_char": 3}, "unknown option 'max_char'.*did you mean 'max_chars'"),
        (f"{FUNCTIONS}:make_brevity", {}, "did not accept the arguments"),
        (f"{FUNCTIONS}:make_nothing", {"max_chars": 3}, "returned NoneType, not a function"),
        ("math", {"solution": "5"}, "unknown option 'solution'"),
        ("soft_overlong", {"max_tokens": 5}, "buffer_tokens"),
    ],
)
def test_a_wrong_name_is_an_error_that_says_what_is_allowed(spec, args, message):
    with pytest.raises(RewardSpecError, match=message) as error:
        load_reward(spec, **args)
    assert repr(spec) in str(error.value)
