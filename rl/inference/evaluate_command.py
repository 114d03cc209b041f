"""`stepladder evaluate`: arguments in, every problem of a data file answered and graded."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from rl.errors import RunFailed, UserError
from rl.inference.options import (
    keyword_arguments,
    mode_of,
    named_value,
    positive,
    positive_float,
    rounds_and_sampling,
    run_with_model,
    unescaped,
    wants_chat,
)

if TYPE_CHECKING:  # loading these takes seconds
    from rl.inference.answering import Progress
    from rl.inference.open_sampler import OpenModel
    from rl.inference.result_file import EvaluationSettings
    from rollouts.engine import Sampling
    from rollouts.rounds import RoundSettings
    from rollouts.trajectory import Prompt


def evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    """What is asked, how it is graded, where the results go."""
    group = parser.add_argument_group("evaluation")
    group.add_argument("--out", type=Path, help="result file; an interrupted one is continued (default: named by all)")
    group.add_argument("--samples", type=positive, default=1, help="answers per problem")
    group.add_argument(
        "--reward",
        action="append",
        default=[],
        help="built-in name, package.module:function or file.py:function (default: math); may be repeated: the first "
        "decides which answers are right, of the others the mean is told",
    )
    group.add_argument(
        "--arg",
        action="append",
        default=[],
        metavar="[REWARD.]KEY=VALUE",
        help="argument of the first reward, or of the one that is named before the dot",
    )
    group.add_argument("--success", type=float, default=1.0, help="an answer is right from this reward on")
    group.add_argument("--vote", choices=("math", "text"), default="math", help="when two answers are the same")
    group.add_argument("--reward-timeout-s", type=positive_float, default=10.0)
    group.add_argument("--reward-workers", type=positive, default=1)
    group.add_argument("--layout", default="auto", help="of the data (default: known by its columns)")
    group.add_argument("--column", action="append", default=[], metavar="WANTED=NAME", help="a column of the data")
    group.add_argument("--task-arg", action="append", default=[], metavar="KEY=VALUE", help="argument of a task")
    group.add_argument("--split", default="test", help="of a folder or hub dataset")
    group.add_argument("--config", metavar="NAME", help="of a folder or hub dataset that has several")
    group.add_argument("--images", action=argparse.BooleanOptionalAction, default=True, help="show those of the rows")
    group.add_argument("--limit", type=positive, help="only the first so many problems")
    group.add_argument("--plot", type=Path, metavar="OUT.png", help="accuracy against tokens per answer")


def evaluate(parsed: argparse.Namespace) -> None:
    """Runs the command."""
    from rl.inference.evaluation_display import print_report

    rewards = _rewards(parsed)
    needed = {name: _needed_columns(name, args) for name, args in rewards.items()}
    rounds, sampling = rounds_and_sampling(parsed)
    columns = dict(named_value(item, "--column") for item in parsed.column)

    async def answer(model: OpenModel) -> tuple[Progress, Path]:
        from rl.inference.evaluation_data import check_columns, read_problems

        try:
            prompts = read_problems(
                parsed.data,
                model,
                split=parsed.split,
                config=parsed.config,
                columns=columns,
                layout=parsed.layout,
                limit=parsed.limit,
                append=unescaped(parsed.append),
                chat=wants_chat(parsed, model),
                task_args=keyword_arguments(parsed.task_arg),
                images=parsed.images,
            )
            for name, wanted in needed.items():
                check_columns(prompts, wanted, name)
            settings = _settings(parsed, rewards, model, prompts, rounds, sampling(model))
            out = parsed.out or _default_out(settings)
            return await _answered(parsed, model, prompts, settings, out), out
        finally:
            await model.sampler.close()

    progress, out = run_with_model(parsed, answer)
    print_report([out], plot=parsed.plot)
    if progress.failed:
        from rl.inference.result_file import read_results

        first = read_results(out).failures[0].error
        raise RunFailed(
            f"{progress.failed} of {progress.total} answers failed, the first with: {first}. "
            f"Run the same command to try them again"
        )


def _rewards(parsed: argparse.Namespace) -> dict[str, dict[str, object]]:
    """Name -> arguments, the deciding reward first.

    Raises:
        UserError: a reward is named twice.
    """
    names = parsed.reward or ["math"]
    found: dict[str, dict[str, object]] = {name: {} for name in names}
    if len(found) < len(names):
        raise UserError(f"--reward: named twice; there are: {', '.join(names)}")
    for key, value in keyword_arguments(parsed.arg).items():
        owner, _, own_key = key.rpartition(".")
        if owner and owner not in found:
            raise UserError(f"--arg {key}: there is no --reward {owner}; there are: {', '.join(found)}")
        found[owner or names[0]][own_key] = value
    return found


def _needed_columns(name: str, args: dict[str, object]) -> frozenset[str]:
    from rewards import load_reward, required_columns
    from rewards.registry import RewardSpecError

    try:
        return required_columns(load_reward(name, **args))
    except RewardSpecError as error:
        raise UserError(f"--reward: {error}") from None


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
    with ExitStack() as stack:
        writer = stack.enter_context(ResultWriter(out, settings))
        pools = {
            name: stack.enter_context(
                RewardPool(name, args=args, timeout_s=parsed.reward_timeout_s, num_workers=parsed.reward_workers)
            )
            for name, args in {settings.reward: settings.reward_args, **settings.further_rewards}.items()
        }
        line = stack.enter_context(ProgressLine(str(out), len(writer.done)))
        try:
            return await answer_problems(
                prompts,
                num_samples=parsed.samples,
                sampler=model.sampler,
                grader=Grader(pools.pop(settings.reward), pools),
                settings=settings,
                writer=writer,
                on_progress=line.update,
                # Twice what fills the engine, for the answers that are in a narrow round.
                max_in_flight=max(2 * requests_at_once // (1 if width == 1 else 2), 4),
            )
        except SamplerUnusable as error:
            raise RunFailed(f"evaluate: {error}. What was answered is in {out}") from None


def _settings(
    parsed: argparse.Namespace,
    rewards: dict[str, dict[str, object]],
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
        reward=next(iter(rewards)),
        reward_args=next(iter(rewards.values())),
        further_rewards=dict(list(rewards.items())[1:]),
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
