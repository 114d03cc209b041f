"""What is kept of each iteration of an rl stage: rollouts, metrics, trace, the best policy, warnings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rl.durable import folder_written_aside
from rl.held_out_scores import measured_during
from rl.over_optimisation import first_finding, over_optimised, watch_points
from rl.progress import StageProgress
from rl.recipe import RlStage
from rl.run_parts import RunParts
from rl.trace import StageTrace

if TYPE_CHECKING:  # it imports torch, which takes seconds
    from rl.loop import Iteration


@dataclass(frozen=True)
class IterationLog:
    """The log of one rl stage."""

    parts: RunParts
    name: str
    stage: RlStage
    progress: StageProgress
    trace: StageTrace
    history: list[Mapping[str, Any]] = field(default_factory=list)
    """the stage's lines of metrics"""

    def after(self, iteration: Iteration) -> None:
        """Writes down an iteration, measures what is due after it, and saves the state when that is due."""
        parts, done = self.parts, iteration.state.iteration
        wanted = parts.recipe.saving.rollouts_per_iteration
        spread = max(len(iteration.scored) // max(wanted, 1), 1)  # over prompts and sources
        parts.run.append_rollouts(self.name, iteration.index, iteration.scored[::spread][:wanted])
        metrics = {**iteration.metrics, **parts.started_pool().fault_metrics()}
        metrics |= measured_during(parts, self.name, done)
        self.history.append({**metrics, "iteration": iteration.index})
        self._watch_rewards()
        self._keep_if_best(done, metrics)
        if self.trace.is_over(iteration.index):
            parts.run.write_json(parts.run.trace(self.name), self.trace.content())
        self.progress.after(iteration.index, metrics, iteration.state, last=done == self.stage.iterations)

    def _keep_if_best(self, done: int, metrics: Mapping[str, float]) -> None:
        """Saves the policy where it scored higher than any before on the held-out set that the stage names."""
        score = metrics.get(f"held_out/{self.stage.keep_best}")
        if score is None:
            return
        best = self.parts.run.best_model(self.name)
        note = best / "best.json"
        if note.exists() and json.loads(note.read_text())["score"] >= score:
            return
        with folder_written_aside(best) as aside:
            self.parts.learner.save_model(aside)
            self.parts.run.write_json(aside / note.name, {"score": score, "iteration": done})

    def _watch_rewards(self) -> None:
        """Warns the first time that a learned reward rises while what it stands for falls."""
        for reward in self.stage.rewards:
            if reward.gold is None or f"held_out/{reward.gold}" not in self.history[-1]:
                continue
            points = watch_points(self.history, reward.label, reward.gold)
            finding = over_optimised(points, reward.label, reward.gold)
            if finding is not None and first_finding(points[:-1], reward.label, reward.gold) is None:
                self.parts.display.message(f"[{self.name}] warning: {finding}")


def back_to_best(parts: RunParts, name: str) -> dict[str, float]:
    """Takes the best policy of a stage back, where one was kept."""
    best = parts.run.best_model(name)
    if not best.exists():
        return {}
    kept = json.loads((best / "best.json").read_text())
    parts.learner.load_model(best)
    parts.display.message(f"[{name}] hands on the policy after iteration {kept['iteration']}, which scored best")
    return {"best_iteration": float(kept["iteration"]), "best_score": float(kept["score"])}
