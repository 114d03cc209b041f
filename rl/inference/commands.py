"""The commands solve, evaluate, compare, serve and export-cache. Arguments in, one call each."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console

from rl.errors import RunFailed, UserError
from rl.inference.options import (
    answer_arguments,
    keyword_arguments,
    mode_of,
    model_arguments,
    named_value,
    open_model,
    positive,
    positive_float,
    rounds_and_sampling,
    unescaped,
    wants_chat,
)

if TYPE_CHECKING:  # loading these takes seconds
    from rl.inference.answering import Progress
    from rl.inference.open_sampler import OpenModel
    from rl.inference.result_file import EvaluationSettings
    from rollouts.engine import Sampling
    from rollouts.rounds import FinishedRound, RoundSettings
    from rollouts.trajectory import Prompt

T = TypeVar("T")


def add_commands(commands: Any) -> None:
    """Adds the four parsers to argparse's sub-commands."""
    solve = commands.add_parser("solve", help="answer one problem, by one chain or by PaCoRe's rounds")
    solve.add_argument("problem", nargs="?", help="text of the problem; not given or -: standard input")
    model_arguments(solve)
    answer_arguments(solve)
    solve.add_argument("--json", action="store_true", help="print every round as JSON instead of the answer")
    solve.set_defaults(command=_solve)
    evaluate = commands.add_parser("evaluate", help="answer every problem of a data file, grade, and say how good")
    evaluate.add_argument("data", metavar="DATA", help=".jsonl, .json, .parquet, folder, hub dataset, or task:NAME")
    model_arguments(evaluate)
    answer_arguments(evaluate)
    _evaluate_arguments(evaluate)
    evaluate.set_defaults(command=_evaluate)
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


def _evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("evaluation")
    group.add_argument("--out", type=Path, help="result file; an interrupted one is continued (default: named by all)")
    group.add_argument("--samples", type=positive, default=1, help="answers per problem")
    group.add_argument("--reward", default="math", help="built-in name, package.module:function or file.py:function")
    group.add_argument("--arg", action="append", default=[], metavar="KEY=VALUE", help="argument of the reward")
    group.add_argument("--success", type=float, default=1.0, help="an answer is right from this reward on")
    group.add_argument("--vote", choices=("math", "text"), default="math", help="when two answers are the same")
    group.add_argument("--reward-timeout-s", type=positive_float, default=10.0)
    group.add_argument("--reward-workers", type=positive, default=1)
    group.add_argument("--layout", default="auto", help="of the data (default: known by its columns)")
    group.add_argument("--column", action="append", default=[], metavar="WANTED=NAME", help="a column of the data")
    group.add_argument("--task-arg", action="append", default=[], metavar="KEY=VALUE", help="argument of a task")
    group.add_argument("--split", default="test", help="of a folder or hub dataset")
    group.add_argument("--limit", type=positive, help="only the first so many problems")
    group.add_argument("--plot", type=Path, metavar="OUT.png", help="accuracy against tokens per answer")


# ---------------------------------------------------------------- commands


def _solve(parsed: argparse.Namespace) -> None:
    from rl.inference.evaluation_data import with_appended
    from rl.inference.open_sampler import as_conversation
    from rollouts.sampler import SamplingError

    text = sys.stdin.read() if parsed.problem in (None, "-") else parsed.problem
    if not text.strip():
        raise UserError("solve: the problem is empty")
    if parsed.mode == "majority":
        raise UserError("solve: --mode majority needs references to grade; use sere or pacore")
    rounds_settings, sampling = rounds_and_sampling(parsed)

    async def answer(model: OpenModel) -> list[FinishedRound]:
        from rollouts.rounds import solve

        content = with_appended(text, unescaped(parsed.append))
        content = model.prompt(as_conversation(content) if wants_chat(parsed, model) else content)
        try:
            return await solve(content, model.sampler, rounds_settings, sampling(model), seed=parsed.seed)
        finally:
            await model.sampler.close()

    try:
        rounds = _run(parsed, answer)
    except SamplingError as error:
        raise RunFailed(f"solve: {error}") from None
    if parsed.json:
        print(json.dumps([asdict(one) for one in rounds], ensure_ascii=False, indent=1))  # noqa: T201
        return
    _print_trace(rounds)
    print(rounds[-1].messages[0])  # noqa: T201


def _print_trace(rounds: Sequence[FinishedRound]) -> None:
    console = Console(stderr=True, soft_wrap=True)
    for number, one in enumerate(rounds, start=1):
        tokens = sum(reply.completion_tokens for reply in one.replies)
        told = f"{len(one.replies)} responses, {tokens} tokens, {one.seconds:.1f} s"
        console.print(f"round {number}: {told}", style="bold", highlight=False)
        for message in one.messages if number < len(rounds) else ():
            last_line = message.strip().rpartition("\n")[2]
            console.print(f"  {last_line[:160]}", style="dim", markup=False, highlight=False)
    total = sum(reply.completion_tokens for one in rounds for reply in one.replies)
    seconds = sum(one.seconds for one in rounds)
    console.print(f"{total} sampled tokens in all, {seconds:.1f} s", style="dim", highlight=False)


def _evaluate(parsed: argparse.Namespace) -> None:
    from rewards import load_reward, required_columns
    from rewards.registry import RewardSpecError
    from rl.inference.evaluation_display import print_report

    args = keyword_arguments(parsed.arg)
    try:
        needed = required_columns(load_reward(parsed.reward, **args))
    except RewardSpecError as error:
        raise UserError(f"--reward: {error}") from None
    rounds, sampling = rounds_and_sampling(parsed)
    columns = dict(named_value(item, "--column") for item in parsed.column)

    async def answer(model: OpenModel) -> tuple[Progress, Path]:
        from rl.inference.evaluation_data import check_columns, read_problems

        try:
            prompts = read_problems(
                parsed.data,
                model,
                split=parsed.split,
                columns=columns,
                layout=parsed.layout,
                limit=parsed.limit,
                append=unescaped(parsed.append),
                chat=wants_chat(parsed, model),
                task_args=keyword_arguments(parsed.task_arg),
            )
            check_columns(prompts, needed, parsed.reward)
            settings = _settings(parsed, args, model, prompts, rounds, sampling(model))
            out = parsed.out or _default_out(settings)
            return await _answered(parsed, model, prompts, settings, out), out
        finally:
            await model.sampler.close()

    progress, out = _run(parsed, answer)
    print_report([out], plot=parsed.plot)
    if progress.failed:
        from rl.inference.result_file import read_results

        first = read_results(out).failures[0].error
        raise RunFailed(
            f"{progress.failed} of {progress.total} answers failed, the first with: {first}. "
            f"Run the same command to try them again"
        )


async def _answered(
    parsed: argparse.Namespace, model: OpenModel, prompts: Sequence[Prompt], settings: EvaluationSettings, out: Path
) -> Progress:
    from rewards.worker import RewardPool
    from rl.inference.answering import Grader, answer_problems
    from rl.inference.evaluation_display import ProgressLine
    from rl.inference.result_file import ResultWriter
    from rollouts.sampler import SamplerUnusable

    width = max((*settings.widths, 1))
    requests_at_once = parsed.concurrency if parsed.endpoint else parsed.max_num_seqs
    pool = RewardPool(
        parsed.reward,
        args=settings.reward_args,
        timeout_s=parsed.reward_timeout_s,
        num_workers=parsed.reward_workers,
    )
    with ResultWriter(out, settings) as writer, pool, ProgressLine(str(out), len(writer.done)) as line:
        try:
            return await answer_problems(
                prompts,
                num_samples=parsed.samples,
                sampler=model.sampler,
                grader=Grader(pool),
                settings=settings,
                writer=writer,
                on_progress=line.update,
                # Twice what fills the engine, for the answers that are in a narrow round.
                max_in_flight=max(2 * requests_at_once // (1 if width == 1 else 2), 4),
            )
        except SamplerUnusable as error:
            raise RunFailed(f"evaluate: {error}. What was answered is in {out}") from None


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


# ---------------------------------------------------------------- parts


def _run(parsed: argparse.Namespace, answer: Callable[[OpenModel], Awaitable[T]]) -> T:
    """Opens the model inside an event loop, as its clients need one, and runs the command's coroutine."""

    async def opened() -> T:
        return await answer(open_model(parsed))

    return asyncio.run(opened())


def _settings(
    parsed: argparse.Namespace,
    args: dict[str, object],
    model: OpenModel,
    prompts: Sequence[Prompt],
    rounds: RoundSettings,
    sampling: Sampling,
) -> EvaluationSettings:
    from rl.inference.evaluation_data import fingerprint_of
    from rl.inference.result_file import EvaluationSettings

    return EvaluationSettings(
        mode=mode_of(parsed),  # type: ignore[arg-type]
        model=model.name,
        model_fingerprint=model.fingerprint,
        data=parsed.data,
        data_fingerprint=fingerprint_of(prompts),
        reward=parsed.reward,
        reward_args=args,
        success=parsed.success,
        vote=parsed.vote,
        widths=rounds.widths,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        max_tokens=sampling.max_tokens,
        stop=sampling.stop,
        template=rounds.template,
        conclusion=rounds.conclusion,
        shuffle=rounds.shuffle,
        overflow=rounds.overflow,
        seed=parsed.seed,
    )


def _default_out(settings: EvaluationSettings) -> Path:
    widths = "-".join(map(str, settings.widths))
    parts = [Path(settings.data).stem, Path(settings.model).name, settings.mode, *([widths] if widths else [])]
    return Path("-".join(parts) + ".jsonl")


