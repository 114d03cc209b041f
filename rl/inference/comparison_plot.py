"""The figure of a comparison: accuracy against tokens per answer, by way of answering and by model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rl.inference.comparison import Kind, Measure, Summary, label_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLORS = ("#2563a8", "#d9772b", "#2e8b63", "#a8447c", "#6b6fb5", "#8a6d3b")
_MARKERS: dict[Kind, str] = {"one chain": "o", "majority vote": "s", "PaCoRe": "D"}


@dataclass(frozen=True)
class Curve:
    """The measures of one way of answering of one model, by growing number of tokens."""

    model: str
    kind: Kind
    measures: Sequence[Measure]
    labels: Sequence[str]


def curves(summaries: Sequence[Summary]) -> list[Curve]:
    """One chain and majority vote from the file of a model that has the most chains, PaCoRe from each of its files."""
    found: list[Curve] = []
    for model in dict.fromkeys(summary.results.settings.model for summary in summaries):
        own = [summary for summary in summaries if summary.results.settings.model == model]
        widest = max(own, key=lambda summary: summary.num_chains)
        for kind in ("one chain", "majority vote"):
            measures = [measure for measure in widest.measures if measure.kind == kind]
            measures += [m for s in own if s is not widest for m in s.measures[:1] if m.kind == kind == "majority vote"]
            found += _curve(model, kind, [(m, m.name.partition(",")[0]) for m in measures])
        pacore = [(summary.measures[0], label_of(summary.results.settings)) for summary in own]
        found += _curve(model, "PaCoRe", [pair for pair in pacore if pair[0].kind == "PaCoRe"])
    return found


def _curve(model: str, kind: Kind, pairs: Sequence[tuple[Measure, str]]) -> list[Curve]:
    pairs = sorted(pairs, key=lambda pair: pair[0].tokens_per_answer or 0.0)
    return [Curve(model, kind, [m for m, _ in pairs], [label for _, label in pairs])] if pairs else []


def plot(summaries: Sequence[Summary], path: Path) -> None:
    """Writes the figure; the suffix of the path says in which format."""
    with style():
        path.parent.mkdir(parents=True, exist_ok=True)
        figure(summaries).savefig(path)


def style() -> AbstractContextManager[None]:
    """matplotlib's settings, in which a figure has to be drawn and written."""
    import matplotlib

    return matplotlib.rc_context({"text.parse_math": False, "font.size": 9, "svg.fonttype": "none"})


def figure(summaries: Sequence[Summary]) -> Figure:
    """Accuracy against tokens per answer, with 95% intervals; a colour for each way of answering, or each model."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    drawn = curves(summaries)
    models = list(dict.fromkeys(curve.model for curve in drawn))
    names = short_names(models) if len(models) > 1 else {}
    made = Figure(figsize=(7, 4.5), dpi=150, layout="constrained")
    axes = made.subplots()
    for curve in drawn:
        index = models.index(curve.model) if len(models) > 1 else list(_MARKERS).index(curve.kind)
        _draw(axes, curve, _COLORS[index % len(_COLORS)], names.get(curve.model))
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("sampled tokens per answer, over every trajectory")
    axes.set_ylabel("accuracy, with 95% bootstrap intervals over problems")
    axes.grid(color="#eceff3")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="best")
    return made


def short_names(models: Sequence[str]) -> dict[str, str]:
    """The ends of the models' paths, as many parts as it takes to tell them apart: every run has its `final`."""
    parts = {model: Path(model).parts for model in models}
    for count in range(1, max(map(len, parts.values())) + 1):
        names = {model: "/".join(own[-count:]) for model, own in parts.items()}
        if len(set(names.values())) == len(names):
            return names
    return {model: model for model in models}


def _draw(axes: Axes, curve: Curve, color: str, model: str | None) -> None:
    x = [measure.tokens_per_answer or 0.0 for measure in curve.measures]
    y = [measure.estimate.value for measure in curve.measures]
    below = [measure.estimate.value - measure.estimate.low for measure in curve.measures]
    above = [measure.estimate.high - measure.estimate.value for measure in curve.measures]
    name = curve.kind if model is None else f"{curve.kind}, {model}"
    solid = curve.kind == "PaCoRe"
    axes.errorbar(
        x, y, yerr=[below, above], label=name, color=color, marker=_MARKERS[curve.kind], capsize=2, linewidth=1.2,
        linestyle="-" if solid else "--", markerfacecolor=color if solid else "white", elinewidth=0.7,
    )  # fmt: skip
    for x_at, y_at, label in zip(x, y, curve.labels):
        label = label.removeprefix("PaCoRe ")
        if label.startswith("one chain"):  # the legend says it
            continue
        axes.annotate(label, (x_at, y_at), textcoords="offset points", xytext=(5, 5), fontsize=7, color="#66707c")
