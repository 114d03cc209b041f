"""What a run leaves in its directory, and what it does about steps that are not finite."""

from __future__ import annotations

from typing import Literal

from rl.recipe.section import NonNegative, Positive, Section


class SavingSection(Section):
    """What is left in the run directory."""

    checkpoint_every: Positive = 50
    """iterations (steps of an sft stage) between checkpoints"""
    keep_checkpoints: Positive = 2
    """newest checkpoints of a stage that are kept"""
    rollouts_per_iteration: NonNegative = 8
    """trajectories that are written with their rewards in every iteration"""
    trace_iterations: NonNegative = 0
    """first iterations of each rl stage whose time line is written to traces/<stage>.json in Chrome's trace format"""


class NonFiniteSection(Section):
    """Optimizer steps whose loss or gradient is not finite: each is skipped, its batch kept in the run directory."""

    max_in_a_row: NonNegative = 3
    """skipped steps of one model in a row that are borne"""
    then: Literal["stop", "roll_back"] = "stop"
    """roll_back: go back to the newest checkpoint of the stage and continue with other prompts and seeds"""
    max_rollbacks: NonNegative = 3
    """per stage; the run stops at the next one"""
