"""The options that solve, evaluate and serve share: which model, how answers are sampled, what the rounds look like."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console

from rl.errors import UserError

if TYPE_CHECKING:  # loading these takes seconds
    from rl.inference.open_sampler import OpenModel
    from rollouts.engine import Sampling
    from rollouts.rounds import RoundSettings

T = TypeVar("T")
_MODES = ("sere", "single", "majority", "pacore")
_MAX_TOKENS = 8192


def model_arguments(parser: argparse.ArgumentParser) -> None:
    """Which model."""
    group = parser.add_argument_group("model")
    group.add_argument("--model", required=True, help="folder or hub name; with --endpoint, the name that it goes by")
    group.add_argument("--endpoint", metavar="URL", help="OpenAI-compatible server, up to and with /v1")
    group.add_argument("--api-key-env", metavar="VAR", help="variable with its key (default: OPENAI_API_KEY)")
    group.add_argument("--concurrency", type=positive, default=64, help="requests to the endpoint at once")
    group.add_argument("--retries", type=_count, default=5, help="of a failed request to the endpoint")
    group.add_argument("--request-timeout-s", type=positive_float, default=3600.0)
    group.add_argument("--engine", choices=("vllm", "hf"), default="vllm", help="of a local model")
    group.add_argument("--context", type=positive, help="tokens of prompt and response; needed of an endpoint")
    group.add_argument("--max-num-seqs", type=positive, default=256, help="responses decoded at the same time")
    group.add_argument("--kv-cache-gb", type=positive_float)
    group.add_argument("--dtype", choices=("float32", "bfloat16"))
    group.add_argument("--trust-remote-code", action="store_true")


def answer_arguments(parser: argparse.ArgumentParser) -> None:
    """How it answers."""
    group = parser.add_argument_group("answers")
    group.add_argument("--mode", choices=_MODES, help="default: pacore where --widths is given, else sere (one chain)")
    group.add_argument(
        "--widths",
        type=_widths,
        help="trajectories of the rounds before the last, such as 32,4, or low, medium, high, light-2, light-3, "
        "light-4; with --mode majority, the number of votes",
    )
    group.add_argument("--temperature", type=_count_float, default=1.0)
    group.add_argument("--top-p", type=_share, default=1.0)
    group.add_argument("--top-k", type=_count, default=0, help="0: every token")
    group.add_argument("--max-tokens", type=positive, help="of a response (default: 8192, at most half the context)")
    group.add_argument("--stop", action="append", default=[], metavar="TEXT", help="ends a response; may be repeated")
    group.add_argument("--template", type=Path, metavar="FILE", help="jinja2 synthesis prompt of `problem`, `messages`")
    group.add_argument("--conclusion", metavar="REGEX", help="its last match is the message (default: after </think>)")
    group.add_argument("--shuffle", choices=("round", "trajectory"), default="round", help="one order of messages for")
    group.add_argument("--overflow", choices=("drop", "shorten"), default="drop", help="messages that do not fit")
    group.add_argument("--append", default="", metavar="TEXT", help="put behind each problem; \\n is a new line")
    group.add_argument("--chat", action=argparse.BooleanOptionalAction, help="problems as conversations or plain text")
    group.add_argument("--seed", type=int, default=0)


def open_model(parsed: argparse.Namespace) -> OpenModel:
    """The model that the options name, loaded or behind its endpoint."""
    from rl.inference.open_sampler import EndpointSettings, LocalModel, api_key, open_endpoint, open_local

    if parsed.endpoint:
        console = Console(stderr=True, soft_wrap=True)
        settings = EndpointSettings(
            url=parsed.endpoint,
            model=parsed.model,
            api_key=api_key(parsed.api_key_env),
            concurrency=parsed.concurrency,
            timeout_s=parsed.request_timeout_s,
            retries=parsed.retries,
            context=parsed.context,
        )
        return open_endpoint(settings, on_retry=lambda why: console.print(why, style="yellow", markup=False))
    return open_local(
        LocalModel(
            path=parsed.model,
            engine=parsed.engine,
            context=parsed.context,
            max_num_seqs=parsed.max_num_seqs,
            kv_cache_gb=parsed.kv_cache_gb,
            dtype=parsed.dtype,
            trust_remote_code=parsed.trust_remote_code,
        )
    )


def run_with_model(parsed: argparse.Namespace, answer: Callable[[OpenModel], Awaitable[T]]) -> T:
    """Opens the model inside an event loop, as its clients need one, and runs the command's coroutine."""

    async def opened() -> T:
        return await answer(open_model(parsed))

    return asyncio.run(opened())


def wants_chat(parsed: argparse.Namespace, model: OpenModel) -> bool:
    """Whether plain-text problems become conversations."""
    return model.takes_conversations if parsed.chat is None else bool(parsed.chat)


def mode_of(parsed: argparse.Namespace) -> str:
    """The mode, also where --widths alone says it."""
    mode = parsed.mode or ("pacore" if parsed.widths else "sere")
    return "sere" if mode == "single" else str(mode)


def rounds_and_sampling(parsed: argparse.Namespace) -> tuple[RoundSettings, Callable[[OpenModel], Sampling]]:
    """The rounds, and the sampling once the model's context is known.

    Raises:
        UserError: the mode and the widths do not fit, or the template or the expression is wrong.
    """
    from rollouts.engine import Sampling
    from rollouts.pacore import SYNTHESIS_TEMPLATE
    from rollouts.rounds import RoundSettings

    mode, widths = mode_of(parsed), parsed.widths or ()
    if mode == "sere" and widths:
        raise UserError("--widths: one chain has none; leave --mode out, or name majority or pacore")
    if mode == "majority" and len(widths) != 1:
        raise UserError("--mode majority needs --widths with one number, that of the votes")
    if mode == "pacore" and not widths:
        raise UserError("--mode pacore needs --widths, such as 16, or low, medium or high")
    rounds = RoundSettings(
        widths=widths,
        conclusion=_expression(parsed.conclusion),
        shuffle=parsed.shuffle,
        overflow=parsed.overflow,
        template=_template(parsed.template) if parsed.template else SYNTHESIS_TEMPLATE,
    )

    def sampling(model: OpenModel) -> Sampling:
        limit = _MAX_TOKENS if model.context is None else min(_MAX_TOKENS, model.context // 2)
        max_tokens = parsed.max_tokens or limit
        return Sampling(parsed.temperature, parsed.top_p, parsed.top_k, max_tokens, tuple(parsed.stop))

    return rounds, sampling


def _template(path: Path) -> str:
    from rollouts.pacore import TemplateError, synthesis_prompt

    try:
        template = path.read_text(encoding="utf-8")
        synthesis_prompt("problem", ["message"], template=template)
    except OSError as error:
        raise UserError(f"--template {path}: cannot be read: {error.strerror}") from None
    except TemplateError as error:
        raise UserError(f"--template {path}: {error}") from None
    return template


def _expression(text: str | None) -> str | None:
    import re

    try:
        re.compile(text or "")
    except re.error as error:
        raise UserError(f"--conclusion {text!r}: not a regular expression: {error}") from None
    return text


def unescaped(text: str) -> str:
    """Text of the command line with its \\n as new lines."""
    return text.replace("\\n", "\n")


def keyword_arguments(items: Sequence[str]) -> dict[str, object]:
    """The KEY=VALUE items, values as YAML."""
    import yaml

    return {key: yaml.safe_load(value) for key, value in (named_value(item, "an argument") for item in items)}


def named_value(item: str, option: str) -> tuple[str, str]:
    """Both sides of NAME=VALUE."""
    key, equals, value = item.partition("=")
    if not equals or not key:
        raise UserError(f"{option} {item}: expected NAME=VALUE")
    return key, value


# ---------------------------------------------------------------- types of arguments


def _widths(text: str) -> tuple[int, ...]:
    from rollouts.pacore import PRESETS

    if text in PRESETS:
        return PRESETS[text]
    try:
        widths = tuple(int(part) for part in text.split(","))
    except ValueError:
        widths = ()
    if not widths or min(widths) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: positive numbers such as 32,4, or one of {', '.join(PRESETS)}")
    return widths


def _number(text: str, kind: type, allowed: str, test: Any) -> Any:
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not test(value):
        raise argparse.ArgumentTypeError(f"{text!r}: {allowed}")
    return value


def positive(text: str) -> Any:
    """A whole number from 1 on."""
    return _number(text, int, "a whole number from 1 on", lambda x: x >= 1)


def _count(text: str) -> Any:
    return _number(text, int, "a whole number from 0 on", lambda x: x >= 0)


def positive_float(text: str) -> Any:
    """A number above 0."""
    return _number(text, float, "a number above 0", lambda x: 0 < x < float("inf"))


def _count_float(text: str) -> Any:
    return _number(text, float, "a number from 0 on", lambda x: 0 <= x < float("inf"))


def _share(text: str) -> Any:
    return _number(text, float, "a number above 0 and up to 1", lambda x: 0 < x <= 1)
