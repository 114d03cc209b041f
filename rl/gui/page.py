"""Results of clicks to look at: a table, and a page of the misses with screenshot, target and click."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw
from rich.table import Table

from rl.errors import UserError
from rl.gui.grounding import Cell, GroundingScores, Judged
from rl.intervals import wilson

_SIDE = 900  # pixels of the longer side of a picture on the page
_TARGET, _CLICK = "#e00030", "#0060ff"
_ANSWER_CHARS = 600


def results_table(result: GroundingScores) -> Table:
    """Sections in rows; text, icon and both in columns, in percent."""
    title = "group of applications" if result.is_pro else "platform"
    table = Table(title="Clicks inside the target, in percent", title_justify="left")
    table.add_column(title)
    for name in ("text", "icon", "both", "rows"):
        table.add_column(name, justify="right")
    for section in result.sections:
        both = result.together(section)
        parts = [_percent(result.cells.get((section, kind))) for kind in ("text", "icon")]
        table.add_row(section, *parts, _percent(both), str(both.total))
    table.add_section()
    kinds = [_percent(_of_type(result, kind)) for kind in ("text", "icon")]
    table.add_row("all rows", *kinds, _percent(result.overall), str(result.overall.total), style="bold")
    return table


def summary(result: GroundingScores) -> str:
    """What does not fit the table, in one line."""
    low, high = wilson(result.overall.share, result.overall.total)
    parts = [
        f"mean of the {len(result.cells)} cells {100 * result.mean_of_cells:.1f}%",
        f"all rows {100 * result.overall.share:.1f}% (95% interval {100 * low:.1f} to {100 * high:.1f})",
        f"{result.num_unreadable} answers without one readable click",
    ]
    if result.num_refused:
        parts.append(f"{result.num_refused} bad annotation rows left out")
    return "; ".join(parts)


def write_failures(path: Path, judged: Sequence[Judged], *, limit: int = 50) -> int:
    """A self-contained HTML page of the first misses; how many it shows.

    Raises:
        UserError: the file cannot be written.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    misses = [j for j in judged if not j.is_hit]
    page = environment.get_template("grounding.html.j2").render(
        hits=len(judged) - len(misses),
        total=len(judged),
        shown=len(misses[:limit]),
        misses=[
            {
                "picture": _jpeg(miss),
                "instruction": miss.target.instruction,
                "where": f"{Path(miss.target.file).name} row {miss.target.row}",
                "section": miss.target.section,
                "element_type": miss.target.element_type,
                "outcome": str(miss.outcome),
                "answer": miss.answer[:_ANSWER_CHARS],
            }
            for miss in misses[:limit]
        ],
    )
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None
    return len(misses[:limit])


def picture(judged: Judged) -> Image.Image:
    """The screenshot, reduced, with target and click."""
    with Image.open(judged.target.image) as opened:
        image = opened.convert("RGB")
    width, height = judged.target.image_size
    image.thumbnail((_SIDE, _SIDE))
    scale_x, scale_y = image.width / width, image.height / height
    draw = ImageDraw.Draw(image)

    def frame(box: Sequence[float], colour: str) -> None:
        x1, x2 = (_clamp(x * scale_x, image.width) for x in (box[0], box[2]))
        y1, y2 = (_clamp(y * scale_y, image.height) for y in (box[1], box[3]))
        draw.rectangle((x1 - 2, y1 - 2, x2 + 2, y2 + 2), outline=colour, width=2)

    frame(judged.target.box, _TARGET)
    if judged.click is not None:
        if judged.click.box is not None:
            frame(judged.click.box, _CLICK)
        x = _clamp(judged.click.point[0] * scale_x, image.width)
        y = _clamp(judged.click.point[1] * scale_y, image.height)
        draw.line((x - 10, y, x + 10, y), fill=_CLICK, width=3)
        draw.line((x, y - 10, x, y + 10), fill=_CLICK, width=3)
        draw.ellipse((x - 7, y - 7, x + 7, y + 7), outline=_CLICK, width=2)
    return image


def _clamp(value: float, size: int) -> float:
    return min(max(value, 0.0), size - 1.0)


def _jpeg(judged: Judged) -> str:
    buffer = io.BytesIO()
    picture(judged).save(buffer, "JPEG", quality=80)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _of_type(result: GroundingScores, kind: str) -> Cell | None:
    cells = [cell for (_, name), cell in result.cells.items() if name == kind]
    return Cell(sum(cell.hits for cell in cells), sum(cell.total for cell in cells)) if cells else None


def _percent(cell: Cell | None) -> str:
    return "-" if cell is None else f"{100 * cell.share:.1f}"
