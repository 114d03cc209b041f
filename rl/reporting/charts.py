"""The curves of a report: which metrics belong together, and one small SVG for each group."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]

_COLORS = ("#2563a8", "#d9772b", "#2e8b63", "#a8447c", "#6b6fb5", "#8a6d3b", "#3a9bb2", "#7a7f87")
_GREY = "#66707c"
_MAX_POINTS = 400
_SMOOTHED_FROM = 40
_PHASES = ("rollout", "scoring", "learning", "publishing")
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # a $ in a name is a $
    "font.family": "sans-serif",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#c3c9d1",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#eceff3",
    "xtick.color": _GREY,
    "ytick.color": _GREY,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
}


@dataclass(frozen=True)
class Series:
    """One curve."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class Group:
    """Metrics that one chart shows."""

    title: str
    names: tuple[str, ...]
    """metrics by exact name"""
    prefix: str | None = None
    """also metrics of this name and a slash, such as the values by source; the rest of the name is the label"""
    note: str = ""
    log: bool = False
    bounds: tuple[float, float] | None = None


@dataclass(frozen=True)
class Chart:
    """A drawn group."""

    title: str
    note: str
    svg: Markup


GROUPS = (
    Group("Loss", ("loss",)),
    Group("Reward", ("reward_mean",), prefix="reward_mean", note="mean of a trajectory, in all and by source"),
    Group("Accuracy", ("accuracy",), prefix="accuracy", note="share of successes, in all and by source", bounds=(0, 1)),
    Group("Held-out scores", (), prefix="held_out", note="measured during the stage"),
    Group("Shares of the reward", (), prefix="reward_share", note="parts of |weight x value|", bounds=(0, 1)),
    Group("KL to the reference", ("kl_ref",), note="nats per token"),
    Group("KL coefficient", ("kl_coef",), note="as adapted to kl_target"),
    Group("KL of the update", ("approx_kl",), note="old policy to new, nats per token"),
    Group("Entropy", ("entropy",), note="nats per token"),
    Group("Clip fraction", ("clipfrac",), note="share of tokens whose ratio was clipped"),
    Group("Explained variance", ("explained_variance",), note="of the returns, by the critic"),
    Group("Length", ("completion_tokens_mean", "completion_tokens_max"), note="tokens per response"),
    Group("Cut responses", ("truncated_share",), note="share that max_tokens ended", bounds=(0, 1)),
    Group("Log-prob gap", ("rollout_gap_mean", "rollout_gap_max"), note="engine against trainer, nats", log=True),
    Group("Synthesis accuracy", (), prefix="synthesis_accuracy", note="by right messages in the prompt", bounds=(0, 1)),
    Group("Margin", ("margin",), note="score of chosen minus rejected"),
    Group("Speed", ("tokens_per_s",), note="tokens per second, over everything"),
)


def charts(rows: Sequence[Row], *, salt: str, first: int) -> list[Chart]:
    """A chart for each group that has values.

    Args:
        rows: lines of metrics.jsonl of one stage.
        salt: makes ids inside the SVGs different from those of other stages.
        first: number that the iteration 0 is shown as.
    """
    import matplotlib
    from matplotlib.figure import Figure

    drawn: list[Chart] = []
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": salt}):
        for group in GROUPS:
            curves = series(rows, group, first=first)
            if curves:
                figure = Figure(figsize=(3.9, 2.15), layout="constrained")
                _draw(figure.add_subplot(), group, curves)
                drawn.append(Chart(group.title, group.note, svg_of(figure)))
        shares = _time_shares(rows, first=first)
        if shares:
            figure = Figure(figsize=(3.9, 2.15), layout="constrained")
            _draw_shares(figure.add_subplot(), shares)
            drawn.append(Chart("Time", "share of an iteration by phase", svg_of(figure)))
    return drawn


def one_chart(title: str, note: str, draw: Callable[[Figure], None], *, salt: str) -> Chart:
    """A chart that `draw` puts into an empty figure of the report's size and style."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": f"{salt} {title}"}):
        figure = Figure(figsize=(3.9, 2.15), layout="constrained")
        draw(figure)
        return Chart(title, note, svg_of(figure))


def series(rows: Sequence[Row], group: Group, *, first: int) -> list[Series]:
    """The curves of a group; a source is left out where it is the only one."""
    names = {name: _label(name) for name in group.names}
    if group.prefix is not None:
        start = group.prefix + "/"
        found = sorted({name for row in rows for name in row if name.startswith(start)}, key=_natural)
        labels = {name: name.removeprefix(start).removesuffix("_correct_messages") for name in _spread(found)}
        names |= labels if len(labels) > 1 or not names else {}
    curves = [_curve(rows, name, label, first=first) for name, label in names.items()]
    return [curve for curve in curves if curve.x]


def _spread(names: Sequence[str]) -> list[str]:
    """At most as many as there are colors beside the one of the whole, evenly chosen."""
    most = len(_COLORS) - 1
    if len(names) <= most:
        return list(names)
    return [names[round(index * (len(names) - 1) / (most - 1))] for index in range(most)]


def _label(name: str) -> str:
    suffix = name.rpartition("_")[2]
    return suffix if suffix in ("mean", "max") else name.replace("_", " ")


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts 2 before 10."""
    return [(int(part), "") if part.isascii() and part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def _curve(rows: Sequence[Row], name: str, label: str, *, first: int) -> Series:
    points = [(row["iteration"] + first, row[name]) for row in rows if is_number(row.get(name))]
    points = _thinned(points)
    return Series(label, tuple(x for x, _ in points), tuple(y for _, y in points))


def is_number(value: object) -> bool:
    """True for a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `_MAX_POINTS` points: means of neighbours where there are more."""
    size = max(-(-len(points) // _MAX_POINTS), 1)
    pieces = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in p) / len(p), sum(y for _, y in p) / len(p)) for p in pieces]


def smoothed(values: Sequence[float]) -> list[float]:
    """Mean over a centred window of a tenth of a long curve, narrower towards its ends; short ones as they are."""
    widest = len(values) // 20 if len(values) >= _SMOOTHED_FROM else 0
    windows = [min(widest, i, len(values) - 1 - i) for i in range(len(values))]
    return [sum(values[i - half : i + half + 1]) / (2 * half + 1) for i, half in enumerate(windows)]


def _draw(axes: Axes, group: Group, curves: Sequence[Series]) -> None:
    for number, curve in enumerate(curves):
        color = _COLORS[number % len(_COLORS)]
        marker = "o" if len(curve.x) < 12 else ""
        if len(curve.x) >= _SMOOTHED_FROM:
            axes.plot(curve.x, curve.y, color=color, linewidth=0.6, alpha=0.35)
        line = smoothed(curve.y)
        axes.plot(curve.x, line, color=color, linewidth=1.5, marker=marker, markersize=3, label=curve.label)
    if group.log and all(y > 0 for curve in curves for y in curve.y):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(lambda value, _: "")
    if group.bounds is not None:
        low, high = group.bounds
        axes.set_ylim(low - 0.03 * (high - low), high + 0.03 * (high - low))
    if len(curves) > 1:
        axes.legend(loc="best", ncols=1 if len(curves) < 5 else 2)
    _whole_numbers(axes)


def _whole_numbers(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))


def _time_shares(rows: Sequence[Row], *, first: int) -> list[Series]:
    """Share of each phase; nothing where only one phase takes time, as in an sft stage."""
    seconds = [[_seconds(row, phase) for phase in _PHASES] for row in rows]
    timed = [(row["iteration"] + first, times) for row, times in zip(rows, seconds) if sum(times) > 0]
    if sum(any(times[i] > 0 for _, times in timed) for i in range(len(_PHASES))) < 2:
        return []
    curves = []
    for index, phase in enumerate(_PHASES):
        points = _thinned([(x, times[index] / sum(times)) for x, times in timed])
        curves.append(Series(phase, tuple(x for x, _ in points), tuple(y for _, y in points)))
    return curves


def _seconds(row: Row, phase: str) -> float:
    value = row.get(f"time/{phase}_s")
    return max(float(value), 0.0) if value is not None and is_number(value) else 0.0


def _draw_shares(axes: Axes, curves: Sequence[Series]) -> None:
    x = curves[0].x if len(curves[0].x) > 1 else (curves[0].x[0] - 0.5, curves[0].x[0] + 0.5)
    heights = [curve.y if len(curve.y) > 1 else curve.y * 2 for curve in curves]
    axes.stackplot(x, *heights, labels=[curve.label for curve in curves], colors=_COLORS, alpha=0.85, linewidth=0)
    axes.set_ylim(0, 1)
    axes.margins(x=0)
    axes.figure.legend(loc="outside lower center", ncols=len(curves), handlelength=1)
    _whole_numbers(axes)


def svg_of(figure: Figure) -> Markup:
    """The figure as an <svg> element: without XML header, DOCTYPE and metadata, which name addresses."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    FigureCanvasSVG(figure).print_svg(buffer, metadata=nothing)
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    return Markup(text)  # noqa: S704 - matplotlib escapes the text that it draws
