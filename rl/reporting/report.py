"""report.html of a run directory: one file that shows what a run did, and loads nothing from anywhere."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from rl.durable import json_lines, write_text
from rl.errors import UserError
from rl.reporting.charts import Chart, Row, charts, is_number
from rl.reporting.evaluations import EvaluationsReport, evaluations
from rl.reporting.preference import calibration_charts, watch_charts, watch_warnings, watched_rewards
from rl.reporting.samples import Sample, logged_samples, shortened
from rl.run_directory import RunDirectory, StageRecord

_TEMPLATE = "report.html.j2"


@dataclass(frozen=True)
class Score:
    """A held-out set at both ends of a stage; None where it was not measured."""

    before: float | None
    after: float | None
    low: float | None
    """of the 95% interval of `after`; None where it has none"""
    high: float | None

    @property
    def change(self) -> float | None:
        """After minus before."""
        return None if self.before is None or self.after is None else self.after - self.before


@dataclass(frozen=True)
class RewardLine:
    """One reward of a stage: its mean over the first and the last tenth of the iterations, and its failures."""

    label: str
    early: float | None
    late: float | None
    failures: Mapping[str, int]
    """by status"""
    example: str
    """message of the first failure"""


@dataclass(frozen=True)
class StageReport:
    """A stage of the recipe and what the run directory holds of it."""

    name: str
    kind: str
    status: str
    iterations: int
    seconds: float | None
    scores: Mapping[str, Score]
    details: Mapping[str, float]
    charts: Sequence[Chart]
    warnings: Sequence[str]
    rewards: Sequence[RewardLine]
    early: Sequence[Sample]
    late: Sequence[Sample]


def write_report(run_dir: Path) -> Path:
    """Writes report.html into a run directory, finished or not, and gives its path.

    Raises:
        UserError: it is not a run directory, or its state cannot be read.
    """
    run = RunDirectory(run_dir)
    recipe_text, recipe = _recipe(run_dir)
    records = _records(run)
    metrics = _metrics_by_stage(run_dir / "metrics.jsonl")
    stages = [
        _stage(run_dir, name, section, records.get(name), metrics.get(name, []))
        for name, section in recipe["stages"].items()
    ]
    path = run_dir / "report.html"
    answered = evaluations(run_dir / "evaluations")
    write_text(path, _render(recipe, recipe_text, stages, metrics, answered, finished=run.final.exists()))
    return path


# ---------------------------------------------------------------- what the run directory holds


def _recipe(run_dir: Path) -> tuple[str, dict[str, Any]]:
    path = run_dir / "recipe.yaml"
    if not run_dir.is_dir():
        raise UserError(f"{run_dir}: there is no such run directory; a folder such as runs/<name> is expected")
    if not path.is_file():
        raise UserError(f"{run_dir}: not a run directory: it has no recipe.yaml")
    try:
        text = path.read_text(encoding="utf-8")
        recipe = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    stages = recipe.get("stages") if isinstance(recipe, dict) else None
    if not isinstance(stages, dict) or not all(isinstance(section, dict) for section in stages.values()):
        raise UserError(f"{path}: not the recipe of a run: it has no stages")
    return text, recipe


def _records(run: RunDirectory) -> dict[str, StageRecord]:
    try:
        return run.records()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{run.path / 'state.json'}: not the state of a run: {error}") from None


def _metrics_by_stage(path: Path) -> dict[str, list[Row]]:
    rows: dict[str, list[Row]] = {}
    for row in json_lines(path) if path.exists() else ():
        if isinstance(row, dict) and is_number(row.get("iteration")):
            rows.setdefault(str(row.get("stage")), []).append(row)
    return rows


def _stage(
    run_dir: Path, name: str, section: Mapping[str, Any], record: StageRecord | None, rows: Sequence[Row]
) -> StageReport:
    kind = str(section.get("kind"))
    folder = run_dir / "rollouts" / name
    early, late = logged_samples(folder / "iterations.jsonl")
    return StageReport(
        name=name,
        kind=kind,
        status="done" if record else "not finished" if rows else "not started",
        iterations=record.iterations if record else len(rows),
        seconds=record.seconds if record else None,
        scores=_scores(record) if record else {},
        details=record.details if record else {},
        # the steps of a preference model are counted from 1, iterations and steps of the others from 0
        charts=[
            *charts(rows, salt=name, first=0 if kind == "preference_model" else 1),
            *calibration_charts(run_dir / "checkpoints" / name / "final", salt=name),
            *watch_charts(rows, watched_rewards(section), salt=name),
        ],
        warnings=watch_warnings(rows, watched_rewards(section)),
        rewards=_reward_lines(section, rows, folder / "failures.jsonl"),
        early=early,
        late=late,
    )


def _scores(record: StageRecord) -> dict[str, Score]:
    names = dict.fromkeys([*record.before, *record.after])
    details = record.details
    return {
        name: Score(
            record.before.get(name),
            record.after.get(name),
            details.get(f"{name}/score_low"),
            details.get(f"{name}/score_high"),
        )
        for name in names
    }


# ---------------------------------------------------------------- rewards


def _reward_lines(section: Mapping[str, Any], rows: Sequence[Row], failures: Path) -> list[RewardLine]:
    labels = [_reward_label(reward) for reward in section.get("rewards") or [] if isinstance(reward, dict)]
    counts, examples = _failures(failures)
    lines = [
        RewardLine(
            label=label,
            early=_mean(_values(rows, f"reward/{label}")[: max(len(rows) // 10, 1)]),
            late=_mean(_values(rows, f"reward/{label}")[-max(len(rows) // 10, 1) :]),
            failures={status: count for (reward, status), count in sorted(counts.items()) if reward == label},
            example=examples.get(label, ""),
        )
        for label in dict.fromkeys([*labels, *examples])
    ]
    return [line for line in lines if line.failures or line.late is not None]


def _reward_label(reward: Mapping[str, Any]) -> str:
    return str(reward.get("name") or str(reward.get("fn")).rpartition(":")[2])


def _failures(path: Path) -> tuple[Counter[tuple[str, str]], dict[str, str]]:
    """(number by reward and status, message of the first failure by reward)."""
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[str, str] = {}
    for row in json_lines(path) if path.exists() else ():
        reward = str(row.get("reward"))
        counts[reward, str(row.get("status"))] += 1
        examples.setdefault(reward, shortened(str(row.get("message"))))
    return counts, examples


def _values(rows: Sequence[Row], name: str) -> list[float]:
    return [row[name] for row in rows if is_number(row.get(name))]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


# ---------------------------------------------------------------- the page


def _render(
    recipe: Mapping[str, Any],
    recipe_text: str,
    stages: Sequence[StageReport],
    metrics: Mapping[str, Sequence[Row]],
    answered: EvaluationsReport | None,
    *,
    finished: bool,
) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "signed": _signed, "duration": _duration}
    times = [row["time"] for rows in metrics.values() for row in rows if is_number(row.get("time"))]
    return environment.get_template(_TEMPLATE).render(
        name=str(recipe.get("name", "run")),
        model=_model(recipe),
        seed=recipe.get("seed"),
        status="finished" if finished else "not finished",
        started=_moment(min(times)) if times else None,
        seconds=sum(stage.seconds or 0.0 for stage in stages),
        ppo_iterations=sum(stage.iterations for stage in stages if stage.kind == "rl"),
        stages=stages,
        held_out=list(dict.fromkeys(name for stage in stages for name in stage.scores)),
        recipe_text=recipe_text,
        answered=answered,
    )


def _model(recipe: Mapping[str, Any]) -> str:
    model = recipe.get("model")
    path = model.get("path") if isinstance(model, dict) else None
    return str(path) if path else "made from the recipe, random weights"


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _number(value: object) -> str:
    """Three decimals, or significant digits where those would hide the value."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return "-" if value is None else str(value)
    if value == int(value) and abs(value) >= 10:
        return f"{int(value):,}"
    return f"{value:.3f}" if value == 0 or 0.001 <= abs(value) < 1000 else f"{value:.3g}"


def _signed(value: float) -> str:
    return f"{value:+.3f}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60:02d} min"
