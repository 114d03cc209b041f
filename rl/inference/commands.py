"""The commands solve, evaluate, compare, serve and export-cache. Arguments in, one call each."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rich.console import Console

from rl.errors import RunFailed, UserError
from rl.inference.evaluate_command import evaluate as run_evaluation
from rl.inference.evaluate_command import evaluate_arguments
from rl.inference.options import (
    answer_arguments,
    model_arguments,
    open_model,
    rounds_and_sampling,
    run_with_model,
    unescaped,
    wants_chat,
)

if TYPE_CHECKING:  # loading these takes seconds
    from rl.inference.open_sampler import OpenModel
    from rollouts.rounds import FinishedRound
    from rollouts.trajectory import PromptContent


def add_commands(commands: Any) -> None:
    """Adds the four parsers to argparse's sub-commands."""
    solve = commands.add_parser("solve", help="answer one problem, by one chain or by PaCoRe's rounds")
    solve.add_argument("problem", nargs="?", help="text of the problem; not given or -: standard input")
    model_arguments(solve)
    answer_arguments(solve)
    solve.add_argument("--image", action="append", default=[], type=Path, metavar="FILE", help="shown before the text")
    solve.add_argument("--json", action="store_true", help="print every round as JSON instead of the answer")
    solve.set_defaults(command=_solve)
    evaluate = commands.add_parser("evaluate", help="answer every problem of a data file, grade, and say how good")
    evaluate.add_argument("data", metavar="DATA", help=".jsonl, .json, .parquet, folder, hub dataset, or task:NAME")
    model_arguments(evaluate)
    answer_arguments(evaluate)
    evaluate_arguments(evaluate)
    evaluate.set_defaults(command=run_evaluation)
    compare = commands.add_parser("compare", help="result files side by side, and accuracy against tokens as a figure")
    compare.add_argument("files", nargs="+", type=Path, metavar="RESULTS.jsonl")
    compare.add_argument("--plot", type=Path, metavar="OUT.png")
    compare.add_argument("--json", type=Path, metavar="OUT.json", help="write every measure with its interval")
    compare.set_defaults(command=_compare)
    serve = commands.add_parser("serve", help="an OpenAI-compatible chat endpoint that answers by PaCoRe's rounds")
    model_arguments(serve)
    answer_arguments(serve)
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine alone)")
    serve.add_argument("--port", type=int, default=8100)
    serve.add_argument("--name", help="name of the model in requests (default: its path's last part)")
    serve.set_defaults(command=_serve)
    export = commands.add_parser("export-cache", help="write a message cache in the layout of PaCoRe-Train")
    export.add_argument("cache", type=Path, metavar="CACHE.jsonl", help="RUN_DIR/message_caches/STAGE.jsonl")
    export.add_argument("out", type=Path, metavar="OUT.jsonl")
    export.set_defaults(command=_export_cache)


# ---------------------------------------------------------------- commands


def _solve(parsed: argparse.Namespace) -> None:
    from rl.inference.evaluation_data import with_appended
    from rollouts.sampler import SamplingError

    text = sys.stdin.read() if parsed.problem in (None, "-") else parsed.problem
    if not text.strip():
        raise UserError("solve: the problem is empty")
    if parsed.mode == "majority":
        raise UserError("solve: --mode majority needs references to grade; use sere or pacore")
    rounds_settings, sampling = rounds_and_sampling(parsed)

    async def answer(model: OpenModel) -> list[FinishedRound]:
        from rollouts.rounds import solve

        try:
            content = _problem(parsed, model, with_appended(text, unescaped(parsed.append)))
            return await solve(content, model.sampler, rounds_settings, sampling(model), seed=parsed.seed)
        finally:
            await model.sampler.close()

    try:
        rounds = run_with_model(parsed, answer)
    except SamplingError as error:
        raise RunFailed(f"solve: {error}") from None
    if parsed.json:
        print(json.dumps([asdict(one) for one in rounds], ensure_ascii=False, indent=1))  # noqa: T201
        return
    _print_trace(rounds)
    print(rounds[-1].messages[0])  # noqa: T201


def _problem(parsed: argparse.Namespace, model: OpenModel, content: PromptContent) -> PromptContent:
    """What solve asks: the text, with its images before it.

    Raises:
        UserError: the model cannot take it, or an image cannot be read.
    """
    from rl.inference.open_sampler import as_conversation
    from rollouts.row_images import check_images, with_images
    from rollouts.rows import DatasetError

    try:
        if parsed.image:
            images = [str(path.resolve()) for path in parsed.image]
            rows = with_images([{"prompt": content, "images": images}], "--image")
            check_images(rows, "--image")
            content = cast("PromptContent", rows[0]["prompt"])
        return model.prompt(as_conversation(content) if wants_chat(parsed, model) else content)
    except (DatasetError, ValueError) as error:
        raise UserError(f"solve: {error}") from None


def _print_trace(rounds: Sequence[FinishedRound]) -> None:
    console = Console(stderr=True, soft_wrap=True)
    for number, one in enumerate(rounds, start=1):
        tokens = sum(reply.completion_tokens for reply in one.replies)
        told = f"{len(one.replies)} responses, {tokens} tokens, {one.seconds:.1f} s{_left_out(rounds, number - 1)}"
        console.print(f"round {number}: {told}", style="bold", highlight=False)
        for message in one.messages if number < len(rounds) else ():
            last_line = message.strip().rpartition("\n")[2]
            console.print(f"  {last_line[:160]}", style="dim", markup=False, highlight=False)
    total = sum(reply.completion_tokens for one in rounds for reply in one.replies)
    seconds = sum(one.seconds for one in rounds)
    console.print(f"{total} sampled tokens in all, {seconds:.1f} s", style="dim", highlight=False)


def _left_out(rounds: Sequence[FinishedRound], index: int) -> str:
    """What a round had no room for, for people; empty where it saw every message that says something."""
    if index == 0:
        return ""
    readable = sum(map(bool, rounds[index - 1].messages))
    shown = min(map(len, rounds[index].shown))
    return f"; saw only {shown} of {readable} messages, the others leave no room" if shown < readable else ""


def _compare(parsed: argparse.Namespace) -> None:
    from rl.inference.evaluation_display import print_report

    print_report(parsed.files, plot=parsed.plot, json_path=parsed.json)


def _export_cache(parsed: argparse.Namespace) -> None:
    from rollouts.message_cache import CacheFile, export_published
    from rollouts.rows import DatasetError

    if parsed.out.resolve() == parsed.cache.resolve():
        raise UserError(f"{parsed.out}: the output would overwrite the input; name another file")
    try:
        written = export_published(CacheFile(parsed.cache), parsed.out)
    except DatasetError as error:
        raise UserError(str(error)) from None
    Console().print(f"wrote {written} problems to {parsed.out}", highlight=False)


def _serve(parsed: argparse.Namespace) -> None:
    from rl.inference.serve import run_server

    if parsed.mode == "majority":
        raise UserError("serve: --mode is sere or pacore; a vote has no one response to stream")
    rounds, sampling = rounds_and_sampling(parsed)
    model = open_model(parsed)
    run_server(
        model,
        name=parsed.name or Path(parsed.model).name,
        rounds=rounds,
        sampling=sampling(model),
        host=parsed.host,
        port=parsed.port,
        on_ready=lambda url: Console(stderr=True).print(f"serving {url}", highlight=False),
    )

