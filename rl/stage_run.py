"""One stage of a pipeline: where it continues, what it hands on, and its record."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict

from rl.durable import damage, folder_written_aside, remove
from rl.held_out_scores import Measurements, is_win_rate, measured_after, measured_before
from rl.recipe import PreferenceModelStage, RlStage, SftStage, Stage, rewards_of
from rl.run_directory import StageRecord
from rl.run_parts import RunParts
from rl.stage_kinds import RUNNERS, StageOutcome


def run_stage(parts: RunParts, name: str, stage: Stage) -> None:
    """One stage from its start or its newest checkpoint to its record in state.json."""
    changes_policy = isinstance(stage, SftStage | RlStage)
    earlier = parts.policy_stages(before=name)
    parts.hold(earlier[-1] if earlier else None)
    before: Measurements = measured_before(parts, name) if changes_policy else {}
    outcome, seconds = _ran(parts, name, stage)
    if isinstance(stage, PreferenceModelStage):
        parts.offer_reward_model(name)
    after: Measurements = measured_after(parts, name, before) if changes_policy else {}
    scores_before = {key: 0.5 if is_win_rate(parts, key) else m.score for key, m in before.items()}
    scores_after = {key: m.score for key, m in after.items()}
    details = {**outcome.details, **_flat_details(after)}
    record = StageRecord(stage.kind, outcome.iterations, seconds, scores_before, scores_after, details)
    parts.run.add_record(name, record, order=list(parts.recipe.stages))
    parts.display.stage_finished(name, record)
    parts.pools.keep(rewards_of(parts.recipe, after=name))


def _ran(parts: RunParts, name: str, stage: Stage) -> tuple[StageOutcome, float]:
    """(what came of the stage, seconds), from the run directory where an earlier process got as far as that."""
    path = parts.run.outcome(name)
    if path.exists() and damage(parts.run.stage_model(name)) is None:
        stored = json.loads(path.read_text())
        if isinstance(stage, SftStage | RlStage):
            parts.hold(name)
        return StageOutcome(stored["iterations"], stored["details"]), stored["seconds"]
    start = time.monotonic()
    outcome = RUNNERS[type(stage)](parts, name, stage)
    if isinstance(stage, SftStage | RlStage):
        parts.holds(name)
        with folder_written_aside(parts.run.stage_model(name)) as aside:
            parts.learner.save_model(aside)
            parts.tokenizer.save_pretrained(aside)
    seconds = time.monotonic() - start
    if isinstance(stage, SftStage | RlStage | PreferenceModelStage):
        parts.run.write_json(path, {**asdict(outcome), "seconds": seconds})
    remove(parts.run.unfinished(name))
    return outcome, seconds


def export_final(parts: RunParts) -> None:
    """The last policy as a plain transformers model in `final/`."""
    done = parts.policy_stages()
    if done:
        with folder_written_aside(parts.run.final) as aside:
            shutil.copytree(parts.run.stage_model(done[-1]), aside, dirs_exist_ok=True)


def _flat_details(measured: Measurements) -> dict[str, float]:
    return {f"{name}/{key}": value for name, m in measured.items() for key, value in m.details.items()}
