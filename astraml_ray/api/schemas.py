"""The shapes of jobs and errors, for OpenAPI. The views build plain data; tests hold the two together."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from astraml_ray.api.catalogue_entry import ErrorClass, Stage

__all__ = [
    "Attempt",
    "AttemptList",
    "CancelRequest",
    "CloneRequest",
    "Job",
    "JobError",
    "JobPage",
    "JobSummary",
    "OpenShape",
    "Problem",
    "ProblemItem",
    "Progress",
    "Shape",
    "SpecWarning",
    "ValidationReport",
    "Wait",
]

Status = Literal["queued", "starting", "running", "succeeded", "failed", "cancelled"]


class Shape(BaseModel):
    """Base of all shapes."""

    model_config = ConfigDict(use_attribute_docstrings=True, strict=False)


class OpenShape(Shape):
    """May have more members."""

    model_config = ConfigDict(extra="allow")


class ProblemItem(Shape):
    """One of several things that are wrong."""

    param: str | None
    """JSON pointer of a field, or the name of a parameter."""
    message: str
    hint: str | None


class Problem(OpenShape):
    """An error (RFC 9457)."""

    type: str
    """Where its code is explained."""
    title: str
    status: int
    detail: str
    code: str
    class_: ErrorClass = Field(alias="class")
    stage: Stage
    retryable: bool
    """Whether the same request may succeed later, unchanged."""
    param: str | None
    hint: str | None
    request_id: str
    problems: list[ProblemItem] | None = None
    differs: list[dict[str, Any]] | None = None


class Wait(OpenShape):
    """Why a job is queued."""

    message: str | None
    would_start_with: dict[str, Any] | None
    """Field path -> value: with these it would start now."""


class Progress(OpenShape):
    """Where a run is."""

    step: int | None
    total_steps: int | None
    epoch: float | None
    epochs: float | None
    fraction: float | None
    eta_s: list[float | None] | None
    """Seconds until the end: the soonest, and the latest."""
    metrics: dict[str, float | None]


class SpecWarning(OpenShape):
    """A setting that cannot do what it is for."""

    param: str | None
    message: str
    hint: str | None


class JobError(OpenShape):
    """Why a job failed."""

    code: str
    class_: str = Field(alias="class")
    message: str
    param: str | None
    hint: str | None
    retryable: bool
    rank: int | None = None
    suggested_patch: Any = None


class JobSummary(Shape):
    """A job, as in lists."""

    id: str
    api_version: str
    project_id: str
    name: str | None
    kind: Literal["training", "sweep"]
    """`sweep`: it has trials."""
    submitted_by: str | None
    """The person or service whose token it was."""
    status: Status
    terminal: bool
    """Whether nothing follows; treat states that you do not know as running."""
    reason: str | None
    message: str | None
    labels: dict[str, str]
    priority: int
    effective_batch_size: int | None
    """batch_size × gradient_accumulation_steps."""
    created_at: datetime
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    attempts: int
    parent_id: str | None
    relation: Literal["resume", "clone", "retrain"] | None
    schedule_id: str | None
    """The schedule that it was made for; null once that is deleted."""
    scheduled_time: datetime | None
    """The instant that it was made for."""
    cancel_requested: Literal["now", "keep_best"] | None
    wait: Wait | None
    progress: Progress | None
    warnings: list[SpecWarning]
    error: JobError | None
    result: dict[str, Any] | None
    run_path: str | None
    model_path: str | None
    links: dict[str, str]


class Job(JobSummary):
    """A job."""

    spec: dict[str, Any]
    """Every default written out."""


class JobPage(Shape):
    """A page of jobs, newest first."""

    data: list[JobSummary]
    next_cursor: str | None
    """Of the next page; null on the last one."""


class Attempt(Shape):
    """One try at a job."""

    number: int
    status: Literal["running", "succeeded", "failed", "cancelled"]
    started_at: datetime
    finished_at: datetime | None
    first_step: int | None
    last_step: int | None
    micro_batch_divisor: int
    """How many parts each micro-batch is cut into, after running out of memory."""
    error: JobError | None


class AttemptList(Shape):
    """All attempts at a job."""

    data: list[Attempt]


class ValidationReport(OpenShape):
    """What a job would do."""

    spec: dict[str, Any]
    dataset: dict[str, Any]
    steps: dict[str, Any]
    warnings: list[SpecWarning]
    policies: list[str]
    """What policies have a hand in: "resources.gpus 4, capped from 8 by project policy v7"."""


class CancelRequest(Shape):
    """How to stop."""

    model_config = ConfigDict(extra="forbid")
    mode: Literal["now", "keep_best"] = "now"
    """`keep_best` publishes the best model so far."""


class CloneRequest(Shape):
    """What to change."""

    model_config = ConfigDict(extra="forbid")
    set: dict[Annotated[str, Field(min_length=1, max_length=256)], Any] = {}
    """Dotted path -> value: {"hyperparams.lr": 1e-4}."""
