"""The command `stepladder`: parses, calls, prints.

Exit codes: 0 done, 1 the run failed, 2 the user's mistake, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.table import Table

from rl.errors import Interrupted, RunFailed, UserError
from rl.gui.commands import add_commands as add_screen_commands
from rl.inference.commands import add_commands


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; its exit code."""
    # Before torch, transformers or ray are imported by anything.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    # torch would take the folder for temporary files, which does not outlive a run.
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache / "torchinductor"))
    code = _exit_code(sys.argv[1:] if arguments is None else arguments)
    if arguments is None:
        # The process ends now. Python gives signals back to the system while it ends: a late one would kill it, and
        # the exit code would no longer say what came of the run.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
    return code


def _exit_code(arguments: Sequence[str]) -> int:
    try:
        parsed = _parsed(arguments)
        parsed.command(parsed)
    except UserError as error:
        return _fail(str(error), 2)
    except RunFailed as error:
        return _fail(str(error), 1)
    except (Interrupted, KeyboardInterrupt) as error:
        return _fail(str(error) or "interrupted; run the same command to continue from the last checkpoint", 130)
    except SystemExit as stop:  # argparse: 0 after --help and --version, 2 after a mistake
        return stop.code if isinstance(stop.code, int) else 1
    return 0


def _fail(message: str, code: int) -> int:
    Console(stderr=True, soft_wrap=True).print(message, style="bold red", highlight=False, markup=False)
    return code


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The command and its arguments. Overrides may also stand behind options, which argparse alone refuses."""
    parser = _parser()
    parsed, rest = parser.parse_known_args(arguments)
    misplaced = [text for text in rest if text.startswith("-") or "=" not in text or not hasattr(parsed, "overrides")]
    if misplaced:
        parser.error(f"unrecognized arguments: {' '.join(misplaced)}")
    if rest:
        parsed.overrides = [*parsed.overrides, *rest]
    return parsed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="stepladder", description="RL post-training: SFT, RLVR, RLHF, PaCoRe")
    parser.add_argument("--version", action="version", version=f"%(prog)s {_version()}")
    parser.set_defaults(command=lambda parsed: parser.print_help())
    commands = parser.add_subparsers(metavar="COMMAND")
    run = commands.add_parser("run", help="run all stages of a recipe; run again to continue where it stopped")
    _recipe_arguments(run)
    run.add_argument("--run-dir", type=Path, help="default: runs/<name of the recipe>")
    run.add_argument(
        "--fork-from", metavar="RUN_DIR[:STAGE[:ITERATION]]", help="start with what another run has done up to there"
    )
    run.set_defaults(command=_run)
    validate = commands.add_parser("validate", help="check a recipe without loading a model; print derived numbers")
    _recipe_arguments(validate)
    validate.set_defaults(command=_validate)
    _score_parser(commands.add_parser("score", help="score a JSONL file of completions with a reward"))
    add_commands(commands)
    add_screen_commands(commands)
    report = commands.add_parser("report", help="write report.html of a run directory")
    report.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    report.set_defaults(command=_report)
    return parser


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("stepladder")
    except PackageNotFoundError:  # run from the source folder without an install
        return "(not installed)"


def _score_parser(score: argparse.ArgumentParser) -> None:
    score.add_argument("file", type=Path, metavar="FILE.jsonl", help="rows with `completion` and the reward's columns")
    score.add_argument("--reward", required=True, help="built-in name, package.module:function or file.py:function")
    score.add_argument("--arg", action="append", default=[], metavar="KEY=VALUE", help="argument of the reward")
    score.add_argument("--out", type=Path, help="write the rows with reward, status and message")
    score.add_argument("--timeout-s", type=float, default=10.0, help="per row (default: 10)")
    score.add_argument("--workers", type=int, default=1)
    score.add_argument("--range", type=float, nargs=2, metavar=("LOW", "HIGH"), help="values outside are invalid")
    score.set_defaults(command=_score)


def _recipe_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help="changes to the recipe")


def _run(parsed: argparse.Namespace) -> None:
    signal.signal(signal.SIGTERM, _stop_at_once)  # until the pipeline, seconds later, does better
    from rl.preflight import read_checked

    recipe = read_checked(parsed.recipe, parsed.overrides, on_this_machine=True)
    from rl.display import make_display  # only now, because this loads torch
    from rl.pipeline import run_pipeline

    display = make_display()
    path = parsed.run_dir or Path("runs") / recipe.name
    if parsed.fork_from is not None:
        from rl.fork import fork, parse_fork_point

        for line in fork(parse_fork_point(parsed.fork_from), path, recipe):
            display.message(line)
    run_pipeline(recipe, path, display)


def _stop_at_once(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _validate(parsed: argparse.Namespace) -> None:
    from rl.derived_numbers import derived_numbers
    from rl.preflight import read_checked

    recipe = read_checked(parsed.recipe, parsed.overrides, on_this_machine=False)
    table = Table(title=f"{parsed.recipe}: valid", title_justify="left")
    for column in ("stage", "quantity", "value"):
        table.add_column(column)
    for row in derived_numbers(recipe):
        table.add_row(*row)
    Console().print(table)


def _score(parsed: argparse.Namespace) -> None:
    import yaml

    from rewards.registry import BUILT_IN
    from rewards.score_file import ScoreFileError, score_file
    from rewards.worker import RewardLoadError

    args = {key: yaml.safe_load(value) for key, _, value in (item.partition("=") for item in parsed.arg)}
    status = Console(stderr=True).status(f"scoring {parsed.file} with {parsed.reward}")
    try:
        with status:  # shown on a terminal alone
            summary = score_file(
                parsed.file,
                parsed.reward,
                args=args,
                out=parsed.out,
                timeout_s=parsed.timeout_s,
                num_workers=parsed.workers,
                value_range=None if parsed.range is None else tuple(parsed.range),
                on_progress=lambda done: status.update(f"{done:,} rows scored"),
            )
    except RewardLoadError as error:  # the traceback is of use where the code is the user's
        told = str(error)
        raise UserError(told.partition("\nTraceback")[0] if parsed.reward in BUILT_IN else told) from None
    except (ScoreFileError, ValueError) as error:
        raise UserError(str(error)) from None
    console = Console()
    console.print(str(summary), highlight=False)
    for name, mean in summary.metrics.items():
        console.print(f"  {name} {mean:.4f}", highlight=False, markup=False)
    for failure in summary.first_failures:
        console.print(f"  {failure}", highlight=False, markup=False)


def _report(parsed: argparse.Namespace) -> None:
    from rl.reporting.report import write_report

    Console().print(f"wrote {write_report(parsed.run_dir)}", highlight=False)


if __name__ == "__main__":
    sys.exit(main())
