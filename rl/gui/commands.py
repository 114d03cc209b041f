"""The commands about pictures of screens: screens, grounding. Arguments in, one call each."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.progress import Progress

from rewards.gui_click import Space
from rl.errors import UserError
from rl.inference.options import positive


def add_commands(commands: Any) -> None:
    """Adds the parsers to argparse's sub-commands."""
    screens = commands.add_parser("screens", help="draw screenshots whose elements are known, as a dataset")
    screens.add_argument("out", type=Path, metavar="OUT", help="a new folder")
    screens.add_argument("--count", type=positive, default=1000, help="screens (default: 1000)")
    screens.add_argument("--seed", type=int, default=0)
    screens.add_argument("--split", choices=("train", "validation", "test"), default="train")
    screens.add_argument("--platform", action="append", choices=("desktop", "web", "mobile"), help="default: all")
    screens.add_argument("--per-screen", type=positive, default=1, metavar="N", help="instructions (default: 1)")
    screens.add_argument("--sheet", type=Path, metavar="OUT.png", help="also draw the first screens with their boxes")
    screens.add_argument(
        "--renderer", choices=("pillow", "chromium"), default="pillow", help="chromium: pages of HTML (default: pillow)"
    )
    screens.set_defaults(command=_screens)
    replay = commands.add_parser("replay", help="draw an episode of a run as a strip of pictures")
    replay.add_argument("log", type=Path, metavar="ROLLOUTS.jsonl", help="RUN/rollouts/STAGE/iterations.jsonl")
    replay.add_argument("--row", type=positive, default=1, metavar="N", help="the Nth episode of the log (default: 1)")
    replay.add_argument("--out", type=Path, required=True, metavar="OUT.png")
    replay.set_defaults(command=_replay)
    _grounding_parser(commands.add_parser("grounding", help="score predicted clicks on ScreenSpot, -V2 or -Pro files"))


def _grounding_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("annotations", nargs="+", metavar="ANNOTATIONS", help="files as published, .json or .jsonl")
    parser.add_argument("--predictions", required=True, metavar="FILE.jsonl", help="completion, point or box a line")
    parser.add_argument("--coordinate-space", choices=get_args(Space), help="what the predicted numbers mean")
    parser.add_argument(
        "--input-size", nargs=2, type=positive, metavar=("W", "H"), help="of the resized image that pixels count on"
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help="screenshots (default: beside the annotations)")
    parser.add_argument(
        "--skip-bad-rows", action="store_true", help="leave out rows with a bad image or box; count them"
    )
    parser.add_argument("--json", type=Path, metavar="OUT.json", help="write the scores")
    parser.add_argument("--failures", type=Path, metavar="OUT.html", help="write a page of the misses")
    parser.add_argument("--max-failures", type=positive, default=50, metavar="N", help="on the page (default: 50)")
    parser.set_defaults(command=_grounding)


def _screens(parsed: argparse.Namespace) -> None:
    from rollouts.rows import DatasetError
    from rollouts.screens.dataset import export
    from rollouts.screens.sheet import contact_sheet

    if parsed.sheet and (parsed.sheet.suffix != ".png" or not parsed.sheet.parent.is_dir()):
        raise UserError(f"{parsed.sheet}: --sheet takes the name of a .png file in a folder that exists")
    try:
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("screens", total=parsed.count)
            exported = export(
                parsed.out,
                count=parsed.count,
                seed=parsed.seed,
                split=parsed.split,
                platforms=parsed.platform or ("desktop", "web", "mobile"),
                per_screen=parsed.per_screen,
                num_samples=16 if parsed.sheet else 0,
                renderer=parsed.renderer,
                on_progress=lambda done: progress.update(task, completed=done),
            )
        if parsed.sheet:
            contact_sheet(exported.samples).save(parsed.sheet)
    except (DatasetError, OSError) as error:
        raise UserError(str(error)) from None
    Console().print(
        f"wrote {exported.num_screens} screens with {exported.num_instructions} instructions into {parsed.out}",
        highlight=False,
    )


def _replay(parsed: argparse.Namespace) -> None:
    from rl.durable import json_lines
    from rl.gui.agent import replay, replayed

    if not parsed.log.is_file():
        raise UserError(f"{parsed.log}: there is no such file")
    if parsed.out.suffix != ".png" or not parsed.out.parent.is_dir():
        raise UserError(f"{parsed.out}: --out takes the name of a .png file in a folder that exists")
    rows = [row for row in json_lines(parsed.log) if "episode" in row]
    if len(rows) < parsed.row:
        raise UserError(f"{parsed.log}: has {len(rows)} episodes, --row is {parsed.row}")
    episode = replayed(rows[parsed.row - 1])
    replay(episode).save(parsed.out)
    outcome = episode.outcome
    Console().print(
        f"wrote {parsed.out}: {outcome.num_steps} steps, {outcome.num_hits} of {outcome.num_clicks} clicks hit, "
        f"{'completed' if outcome.completed else 'not completed'}, reward {outcome.reward:+.1f}",
        highlight=False,
    )


def _grounding(parsed: argparse.Namespace) -> None:
    from rl.gui.grounding import judge_predictions, scores, write_scores
    from rl.gui.page import results_table, summary, write_failures
    from rollouts.rows import DatasetError
    from rollouts.screenspot import read_annotations

    try:
        annotations = read_annotations(parsed.annotations, images=parsed.images, skip_bad_rows=parsed.skip_bad_rows)
    except DatasetError as error:
        raise UserError(str(error)) from None
    judged = judge_predictions(
        annotations, parsed.predictions, coordinate_space=parsed.coordinate_space, input_size=parsed.input_size
    )
    result = scores(judged, annotations)
    console = Console()
    console.print(results_table(result))
    console.print(summary(result), highlight=False)
    for message in annotations.refused[:5]:
        console.print(f"left out: {message}", highlight=False, markup=False)
    if parsed.json:
        write_scores(parsed.json, result)
    if parsed.failures:
        shown = write_failures(parsed.failures, judged, limit=parsed.max_failures)
        console.print(f"wrote {parsed.failures} with {shown} misses", highlight=False)
