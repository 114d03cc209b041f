"""When a run measures its held-out sets, and what it keeps of that: before, during and after a stage."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rl.run_parts import RunParts
from rl.scoring import Scorer
from rollouts.prompts import MixedSource, to_prompt

if TYPE_CHECKING:  # rl.held_out imports transformers, which takes seconds
    from rl.held_out import Measurement

Measurements = dict[str, "Measurement"]


def is_win_rate(parts: RunParts, name: str) -> bool:
    """True where a set compares with the start of the stage."""
    return parts.recipe.evaluations[name].measure == "win_rate"


def measured_before(parts: RunParts, stage: str) -> Measurements:
    """Held-out measurements at the start of a stage: those after the last one that changed the policy.

    A model that was just made from random weights is not measured: it knows nothing.
    """
    if not parts.recipe.evaluations:
        return {}
    done = parts.policy_stages(before=stage)
    if not done and parts.recipe.model.create is not None:
        return {}
    path = parts.run.measurements(done[-1] if done else "start")
    if not path.exists():
        parts.publish(version=0)
        _measure(parts, path, _stored_measurements(parts.run.measurements(done[-2])) if done[1:] else {})
    return _stored_measurements(path)


def _stored_measurements(path: Path) -> Measurements:
    from rl.held_out import Measurement

    stored = json.loads(path.read_text()) if path.exists() else {}
    return {name: Measurement(**values) for name, values in stored.items()}


def measured_after(parts: RunParts, name: str, before: Measurements) -> Measurements:
    """Measures the policy at the end of a stage."""
    if not parts.recipe.evaluations:
        return {}
    parts.publish(version=-1)
    return _measure(parts, parts.run.measurements(name), before)


def _measure(parts: RunParts, path: Path, before: Measurements) -> Measurements:
    partial = path.with_suffix(".partial")
    measured = _stored_measurements(partial)
    for name in parts.recipe.evaluations:
        if name in measured:
            continue
        parts.stop_if_asked(f"while measuring, before {name}")
        measured[name] = _measured_set(parts, name, before.get(name))
        parts.run.write_json(partial, {name: asdict(measurement) for name, measurement in measured.items()})
    partial.replace(path)
    return measured


def _measured_set(parts: RunParts, name: str, before: Measurement | None) -> Measurement:
    from rl.held_out import HeldOutSet

    section = parts.recipe.evaluations[name]
    source = MixedSource(parts.opener.rows(section.prompts, "problem", seed=0), 1.0, name)
    prompts = [to_prompt(source, row) for row in parts.held_out_rows[name]]
    scorer = Scorer(section.rewards, parts.pools)
    held_out = HeldOutSet(section, prompts, scorer, parts.recipe.engine.max_model_len)
    seed = parts.seed(f"measure {name}")
    return held_out.measure(parts.started_engine(), parts.tokenizer, seed=seed, before=before)


def measured_during(parts: RunParts, stage: str, done: int) -> dict[str, float]:
    """Held-out scores after `done` iterations of an rl stage, of the sets that the recipe wants measured now."""
    sets = parts.recipe.evaluations
    due = [name for name, section in sets.items() if section.every and done % section.every == 0]
    if not due:
        return {}
    start, before = time.monotonic(), measured_before(parts, stage)
    numbers: dict[str, float] = {}
    for name in due:
        measured = _measured_set(parts, name, before.get(name))
        numbers[f"held_out/{name}"] = measured.score
        numbers[f"held_out_error/{name}"] = measured.details.get("standard_error", 0.0)
        numbers[f"held_out_reward/{name}"] = measured.details.get("reward_mean", measured.score)
    return {**numbers, "time/held_out_s": time.monotonic() - start}
