"""The commands about pictures of screens: screens. Arguments in, one call each."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from rl.errors import UserError
from rl.inference_options import positive


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
    screens.set_defaults(command=_screens)


def _screens(parsed: argparse.Namespace) -> None:
    from rollouts.rows import DatasetError
    from rollouts.screens.dataset import export
    from rollouts.screens.sheet import contact_sheet

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
