"""When a run measures its held-out sets, and what it keeps of that: before, during and after a stage."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rl.scoring import Scorer
from rollouts.prompts import MixedSource, to_prompt

if TYPE_CHECKING:  # rl.held_out imports transformers, which takes seconds
    from rl.held_out import Measurement
    from rl.run_parts import RunParts

Measurements = dict[str, "Measurement"]


class HeldOutScores:
    """The held-out sets of a recipe, measured with the engines of a run and stored in its directory."""

    def __init__(self, parts: RunParts) -> None:
        self._parts = parts

    def is_win_rate(self, name: str) -> bool:
        """True where a set compares with the start of the stage."""
        return self._parts.recipe.evaluations[name].measure == "win_rate"

    def before(self, stage: str) -> Measurements:
        """Held-out measurements at the start of a stage: those after the last one that changed the policy.

        A model that was just made from random weights is not measured: it knows nothing.
        """
        done = self._parts.policy_stages(before=stage)
        if not done and self._parts.recipe.model.create is not None:
            return {}
        path = self._parts.run.measurements(done[-1] if done else "start")
        if not path.exists():
            self._parts.publish(version=0)
            self._measure(path, self._stored_measurements(self._parts.run.measurements(done[-2])) if done[1:] else {})
        return self._stored_measurements(path)

    @staticmethod
    def _stored_measurements(path: Path) -> Measurements:
        from rl.held_out import Measurement

        stored = json.loads(path.read_text()) if path.exists() else {}
        return {name: Measurement(**values) for name, values in stored.items()}

    def after(self, name: str, before: Measurements) -> Measurements:
        """Measures the policy at the end of a stage."""
        if not self._parts.recipe.evaluations:
            return {}
        self._parts.publish(version=-1)
        return self._measure(self._parts.run.measurements(name), before)

    def _measure(self, path: Path, before: Measurements) -> Measurements:
        partial = path.with_suffix(".partial")
        measured = self._stored_measurements(partial)
        for name in self._parts.recipe.evaluations:
            if name in measured:
                continue
            self._parts.stop_if_asked(f"while measuring, before {name}")
            measured[name] = self._measured_set(name, before.get(name))
            self._parts.run.write_json(partial, {name: asdict(measurement) for name, measurement in measured.items()})
        partial.replace(path)
        return measured

    def _measured_set(self, name: str, before: Measurement | None) -> Measurement:
        from rl.held_out import HeldOutSet

        section = self._parts.recipe.evaluations[name]
        source = MixedSource(self._parts.opener.rows(section.prompts, "problem", seed=0), 1.0, name)
        prompts = [to_prompt(source, row) for row in self._parts.held_out_rows[name]]
        scorer = Scorer(section.rewards, self._parts.pools)
        held_out = HeldOutSet(section, prompts, scorer, self._parts.recipe.engine.max_model_len)
        seed = self._parts.seed(f"measure {name}")
        return held_out.measure(self._parts.started_engine(), self._parts.tokenizer, seed=seed, before=before)

    def during(self, stage: str, done: int) -> dict[str, float]:
        """Held-out scores after `done` iterations of an rl stage, of the sets that the recipe wants measured now."""
        sets = self._parts.recipe.evaluations
        due = [name for name, section in sets.items() if section.every and done % section.every == 0]
        if not due:
            return {}
        start, before = time.monotonic(), self.before(stage)
        numbers: dict[str, float] = {}
        for name in due:
            measured = self._measured_set(name, before.get(name))
            numbers[f"held_out/{name}"] = measured.score
            numbers[f"held_out_error/{name}"] = measured.details.get("standard_error", 0.0)
            numbers[f"held_out_reward/{name}"] = measured.details.get("reward_mean", measured.score)
        return {**numbers, "time/held_out_s": time.monotonic() - start}
