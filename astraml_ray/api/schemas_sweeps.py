"""The shapes of sweeps and their trials, for OpenAPI."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from astraml_ray.api.schemas import JobError, Shape, Status

__all__ = ["Importance", "RetrainRequest", "Sweep", "SweepCost", "SweepParameter", "Trial", "TrialPage"]

TrialStatus = Literal["pending", "running", "succeeded", "stopped", "failed", "cancelled"]


class Trial(Shape):
    """A training run of a sweep, with parameters of its own."""

    trial_id: str
    number: int
    status: TrialStatus
    """`stopped`: the sweep ended it early, because others were better."""
    parameters: dict[str, Any]
    """Dotted path -> value."""
    metric: float | None
    """The last value."""
    best_metric: float | None
    best_step: int | None
    step: int | None
    epoch: float | None
    rung: int | None
    """How often it has been let go on."""
    reason: str | None
    """Why it ended."""
    error: JobError | None
    run_path: str | None
    parent: str | None
    """The trial whose weights it began with."""
    started_at: datetime | None
    ended_at: datetime | None
    seconds: float
    gpu_hours: float
    cpu_hours: float
    history: list[tuple[int, float | None]] | None
    """Step and value of its evaluations, thinned out to 200; null where it was not asked for."""


class TrialPage(Shape):
    """A page of trials."""

    data: list[Trial]
    next_cursor: str | None
    """Of the next page; null on the last one."""


class SweepParameter(Shape):
    """A field that the trials differ in."""

    path: str
    """Dotted."""
    scale: Literal["log", "linear", "choice"]
    """How its values are to be laid out."""
    importance: float | None
    """Its share of what decides about a trial's value: 0 to 1, all together 1."""


class Importance(Shape):
    """How the shares of the parameters were found."""

    evaluator: Literal["ped_anova"]
    trials: int
    """Trials that have ended with a value."""
    reason: str | None
    """Why there are no shares."""


class SweepCost(Shape):
    """What a sweep has taken up to now."""

    seconds: float | None
    """From its start to its end, or to now."""
    trial_seconds: float
    """Of all trials together."""
    gpu_hours: float
    cpu_hours: float


class Sweep(Shape):
    """A job that tries several values of some fields."""

    job_id: str
    status: Status
    """Of the job."""
    metric: str | None
    mode: Literal["min", "max"] | None
    algorithm: str | None
    scheduler: str | None
    planned: int | None
    """Trials in all; null before the sweep has begun."""
    counts: dict[TrialStatus, int]
    best: Trial | None
    """The best one so far; null before there is a value."""
    cost: SweepCost
    parameters: list[SweepParameter]
    """The most important one first, where that is known."""
    importance: Importance


class RetrainRequest(Shape):
    """What to change besides the trial's parameters."""

    model_config = ConfigDict(extra="forbid")
    set: dict[Annotated[str, Field(min_length=1, max_length=256)], Any] = Field(default={})
    """Dotted path -> value: {"hyperparams.epochs": 20}."""
