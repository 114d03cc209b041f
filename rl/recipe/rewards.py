"""What a reward of a stage may say."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from rl.recipe.section import NonNegativeFloat, Positive, PositiveFloat, Section, Share


class RewardActorSection(Section):
    """Ray actors that compute a reward, in place of processes beside the driver."""

    gpus: NonNegativeFloat = 0
    """GPUs that Ray reserves for one actor"""
    cpus: NonNegativeFloat = 1
    """CPU cores that Ray reserves for one actor"""


class RunningNormalisation(Section):
    """A reward minus its mean, over its standard deviation, of all responses of the stage so far."""

    clip: PositiveFloat | None = None
    """bound of the normalised reward; not given: none"""


class RewardSection(Section):
    """One reward function of a stage."""

    fn: str
    """built-in name, package.module:function or path/to/file.py:function"""
    name: str | None = None
    """label in metrics; not given: the part of fn after the colon"""
    weight: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    args: dict[str, Any] = {}
    from_stage: str | None = None
    """an earlier preference_model stage whose model is passed as the argument `model`"""
    timeout_s: PositiveFloat = 10.0
    """per row; the worker of a row that takes longer is killed"""
    on_error: Literal["drop", "zero", "abort"] = "drop"
    """of a row whose reward failed: drop the trajectory, count 0, or stop the run"""
    max_failure_rate: Share = 0.1
    """share of failed rows of one iteration above which the run stops"""
    range: tuple[float, float] | None = None
    """values outside are failures"""
    workers: Positive = 1
    """processes, or actors, that compute this reward"""
    actor: RewardActorSection | None = None
    """compute in Ray actors; not given: in processes beside the driver"""
    normalise: RunningNormalisation | None = None
    """what is learned from; metrics, and everything that is logged, show the reward as it is. Not given: as it is"""
    gold: str | None = None
    """an evaluation, measured every so many iterations, of what this reward stands for: a warning tells when the
    reward rises while it falls"""

    @property
    def label(self) -> str:
        """The name under which metrics show this reward."""
        return self.name or self.fn.rpartition(":")[2]

    @model_validator(mode="after")
    def _no_scale_that_is_lost(self) -> RewardSection:
        if self.fn == "preference" and self.args.get("running"):
            raise ValueError("args.running: its scale is lost with the process; in a recipe, use normalise: {}")
        return self
