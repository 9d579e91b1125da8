"""The shapes of what jobs leave behind, and of the service itself, for OpenAPI."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from astraml_ray.api.catalogue_entry import ErrorClass, Stage
from astraml_ray.api.schemas import OpenShape, Shape, Status

__all__ = [
    "Artifact",
    "ArtifactList",
    "Cluster",
    "Controller",
    "ErrorCode",
    "ErrorCodeList",
    "Event",
    "EventPage",
    "Health",
    "LogLineObject",
    "LogPage",
    "MetricSeries",
    "MetricWindow",
    "Metrics",
    "Readiness",
    "StreamEnd",
]

Resolution = Literal["30s", "5m", "1h"]


class Event(Shape):
    """Something that happened to a job."""

    seq: int
    """1, 2, 3 ... per job."""
    at: datetime
    type: str
    message: str | None
    data: dict[str, Any] | None


class EventPage(Shape):
    """A page of events."""

    data: list[Event]
    next_after: int
    has_more: bool


class LogLineObject(Shape):
    """A log line."""

    id: int
    attempt: int
    rank: int | None
    """The worker; null is the runner."""
    level: str
    at: datetime
    sequence: int
    text: str
    dropped: int
    """Lines that are missing here; 0 for a real line."""


class LogPage(Shape):
    """A page of log lines."""

    data: list[LogLineObject]
    next_after: int
    has_more: bool


class StreamEnd(Shape):
    """The data of the event `end`, the last one of a stream."""

    status: Status
    reason: str | None
    message: str | None
    last_id: int
    """Number of the last event that was delivered."""


class MetricWindow(Shape):
    """The points of one stretch of time."""

    start: datetime
    count: int
    mean: float | None
    sum: float
    sum_sq: float
    min: float | None
    max: float | None
    first: float | None
    last: float | None
    nan_count: int
    inf_count: int
    step_first: int | None
    step_last: int | None
    revision: int
    """How often late points have changed it."""


class MetricSeries(Shape):
    """Windows of one metric, oldest first."""

    name: str
    resolution: Resolution
    points: int
    """Raw points that the windows stand for."""
    windows: list[MetricWindow]


class Metrics(Shape):
    """Metrics of a job."""

    job_id: str
    resolution: Resolution
    series: list[MetricSeries]


class Artifact(Shape):
    """A file of a run."""

    path: str
    size: int
    modified_at: datetime | None


class ArtifactList(Shape):
    """The files of a run."""

    data: list[Artifact]
    truncated: bool
    """Whether there are more files than are listed."""


class Health(Shape):
    """The process lives."""

    status: Literal["ok"]
    version: str


class Readiness(Shape):
    """The service can do its work."""

    status: Literal["ready"]
    checks: dict[str, str]


class Controller(Shape):
    """The process that starts and ends runs."""

    holder: str
    token: int
    expires_at: datetime | None
    alive: bool


class Cluster(OpenShape):
    """What the service stands on."""

    controller: Controller | None
    jobs: dict[Status, int]
    cluster: dict[str, Any] | None


class ErrorCode(Shape):
    """One code of the catalogue."""

    type: str
    code: str
    title: str
    status: int | None
    """Of the HTTP answer; null for what only jobs fail with."""
    class_: ErrorClass = Field(alias="class")
    stage: Stage
    retryable: bool
    cause: str
    action: str


class ErrorCodeList(Shape):
    """The catalogue of error codes."""

    data: list[ErrorCode]
