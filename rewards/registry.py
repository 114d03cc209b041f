"""From the text in a recipe to a reward function."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

RewardFn = Callable[..., Any]  # f(prompts, completions, **columns) -> list[float | None], or the same as a coroutine

BUILT_IN: Mapping[str, str] = MappingProxyType(
    {
        "math": "rewards.math_answer:math_reward",
        "gui_click": "rewards.gui_click:gui_click_reward",
        "gui_episode": "rewards.gui_episode:gui_episode_reward",
        "gui_iou": "rewards.gui_variants:gui_iou_reward",
        "gui_giou": "rewards.gui_variants:gui_giou_reward",
        "gui_gaussian": "rewards.gui_variants:gui_gaussian_reward",
        "preference": "rewards.preference:preference_reward",
        "format": "rewards.text_terms:format_reward",
        "soft_overlong": "rewards.text_terms:soft_overlong_reward",
        "repetition": "rewards.text_terms:repetition_reward",
        "language": "rewards.text_terms:language_reward",
        "http": "rewards.http:http_reward",
        "judge": "rewards.judge:judge_reward",
        "pairwise": "rewards.pairwise:pairwise_reward",
        "same_language": "rewards.same_language:same_language_reward",
        "citations": "rewards.citations:citations_reward",
        "length": "rewards.length:length_reward",
        "overconfidence": "rewards.overconfidence:overconfidence_reward",
    }
)

# What a trainer supplies beside the dataset's columns.
PROVIDED = frozenset(
    {"prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric", "log_partial"}
)


class RewardSpecError(ValueError):
    """A reward's name, file, function or arguments are wrong; the message says which and what is allowed."""


def load_reward(spec: str, **args: object) -> RewardFn:
    """The reward function that `spec` names, with `args` applied.

    A function that takes `completions` is the reward itself: `args` are bound to its keyword options. Anything
    else is a factory: it is called with `args`, and what it returns is the reward. The rule is the same for
    built-ins and for your own.

    Args:
        spec: a name in BUILT_IN, "package.module:function" or "path/to/file.py:function".
        args: options of the function, or arguments of the factory.

    Raises:
        RewardSpecError: names the spec, what is wrong with it, and what is allowed.
    """
    target = _resolve(spec)
    if not callable(target):
        raise RewardSpecError(f"reward {spec!r}: {target!r} is not callable")
    if _is_reward(target, bool(args)):
        return _bind(spec, target, args)
    try:
        reward = target(**args)
    except TypeError as error:
        raise RewardSpecError(
            f"reward {spec!r}: the factory did not accept the arguments {sorted(args)}: {error}; "
            f"its signature is {inspect.signature(target)}"
        ) from error
    if not callable(reward):
        raise RewardSpecError(f"reward {spec!r}: the factory returned {type(reward).__name__}, not a function")
    return reward


def required_columns(fn: RewardFn) -> frozenset[str]:
    """Names of the dataset columns that `fn` cannot do without: its parameters that have no default."""
    extra: frozenset[str] = getattr(
        fn, "required_columns", frozenset()
    )  # for functions that read columns by a configured name
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(fn).parameters.values()
    named = {p.name for p in parameters if p.default is p.empty and p.kind not in variadic}
    return frozenset((named | set(extra)) - PROVIDED)


def _resolve(spec: str) -> Any:
    location, colon, name = BUILT_IN.get(spec, spec).rpartition(":")
    if not colon:
        raise RewardSpecError(_unknown_name(spec))
    if not location or not name:
        raise RewardSpecError(f"reward {spec!r}: expected package.module:function or path/to/file.py:function")
    is_file = location.endswith(".py") or "/" in location
    module = _load_file(spec, location) if is_file else _import_module(spec, location)
    try:
        return functools.reduce(getattr, name.split("."), module)
    except AttributeError:
        raise RewardSpecError(f"reward {spec!r}: {location} has no {name!r}{_hint(name, vars(module))}") from None


def _unknown_name(spec: str) -> str:
    return (
        f"reward {spec!r}: no built-in of that name{_hint(spec, BUILT_IN)}; "
        f"allowed are {', '.join(sorted(BUILT_IN))}, package.module:function, path/to/file.py:function"
    )


def _hint(name: str, known: Mapping[str, object]) -> str:
    import difflib  # only mistakes pay for it

    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _import_module(spec: str, location: str) -> ModuleType:
    try:
        return importlib.import_module(location)
    except ModuleNotFoundError as error:
        raise RewardSpecError(f"reward {spec!r}: cannot import {location}: {error}") from error


def _load_file(spec: str, location: str) -> ModuleType:
    path = Path(location).expanduser().resolve()
    if not path.is_file():
        raise RewardSpecError(f"reward {spec!r}: there is no file {path}")
    name = f"reward_file_{path.stem}_{hashlib.sha1(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    loader_spec = importlib.util.spec_from_file_location(name, path)
    if loader_spec is None or loader_spec.loader is None:
        raise RewardSpecError(f"reward {spec!r}: {path} is not a Python file")
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # so that the file can import its neighbours
    module = importlib.util.module_from_spec(loader_spec)
    sys.modules[name] = module
    try:
        loader_spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]  # a later call must try again, not find half a module
        raise
    return module


def _is_reward(target: RewardFn, has_args: bool) -> bool:
    if inspect.isclass(target):
        return False
    parameters = inspect.signature(target).parameters
    if "completions" in parameters or "prompts" in parameters:
        return True
    only_columns = [p.kind for p in parameters.values()] == [inspect.Parameter.VAR_KEYWORD]
    return only_columns and not has_args  # def f(**columns), not def make(**options)


def _bind(spec: str, target: RewardFn, args: Mapping[str, object]) -> RewardFn:
    if not args:
        return target
    parameters = inspect.signature(target).parameters
    options = {name for name, p in parameters.items() if p.default is not p.empty and name not in PROVIDED}
    for name in args:
        if name not in options:
            hint = _hint(name, dict.fromkeys(options))
            allowed = ", ".join(sorted(options)) or "none"
            raise RewardSpecError(f"reward {spec!r}: unknown option {name!r}{hint}; its options are: {allowed}")
    bound = functools.update_wrapper(functools.partial(target, **args), target)  # TRL asks a reward for its __name__
    del bound.__wrapped__  # or inspect.signature would look through the binding
    return bound
