"""The shapes of schedules and their occurrences, for OpenAPI. Those of bodies check them too."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from astraml_ray.api.schemas import OpenShape, Shape
from astraml_ray.api.schemas_access import Input
from astraml_ray.spec import JobSpec

__all__ = [
    "Backfill",
    "BackfillRequest",
    "DeletedSchedule",
    "NextTime",
    "NextTimes",
    "Occurrence",
    "OccurrencePage",
    "PauseRequest",
    "ScheduleObject",
    "SchedulePage",
    "ScheduleRequest",
    "ScheduleSummary",
]


Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class NextTime(Shape):
    """An instant that is to come."""

    instant: datetime
    local: str
    """The same in the schedule's time zone."""
    mark: str | None
    """What a change of the clocks has to do with it."""


class NextTimes(Shape):
    """The next instants, in order; none once the schedule has ended."""

    timezone: str
    data: list[NextTime]


class ScheduleSummary(Shape):
    """A schedule, as in lists."""

    id: str
    project_id: str
    name: str | None
    """Of its jobs, with what is filled in each time."""
    owner: str
    """Who made it; what they may do is asked again each time."""
    status: Literal["active", "paused", "ended"]
    schedule: dict[str, Any]
    """Every default written out."""
    created_at: datetime
    next_at: datetime | None
    """When a job is made next, with its jitter."""
    paused_at: datetime | None
    paused_by: str | None
    """Null is the service itself."""
    pause_reason: str | None
    failures: int
    """In a row."""
    links: dict[str, str]


class ScheduleObject(ScheduleSummary):
    """A schedule."""

    spec: dict[str, Any]
    """As it was sent; policies come on top each time."""
    next: list[NextTime]
    """The next five."""


class SchedulePage(Shape):
    """A page of schedules, newest first."""

    data: list[ScheduleSummary]
    next_cursor: str | None


class Occurrence(Shape):
    """What became of an instant."""

    instant: datetime
    kind: Literal["scheduled", "manual", "backfill"]
    outcome: Literal["waiting", "started", "succeeded", "failed", "cancelled", "skipped", "missed"]
    """`waiting` has no job yet; the job of `started` has not ended."""
    job_id: str | None
    reason: str | None
    error: OpenShape | None
    """Why no job could be made."""
    decided_at: datetime


class OccurrencePage(Shape):
    """A page of occurrences, the latest instant first."""

    data: list[Occurrence]
    next_cursor: str | None


class Backfill(Shape):
    """What is made up for."""

    instants: int
    """That lie in the stretch of time."""
    planned: int
    """Those of them that have no job yet, and get one."""


class DeletedSchedule(Shape):
    """It is gone, with its occurrences; its jobs stay."""

    id: str


class ScheduleRequest(Input):
    """A spec with a `schedule`; the spec may also be sent by itself."""

    spec: JobSpec


class BackfillRequest(Input):
    """The first and the last time, both in it."""

    from_: Moment = Field(alias="from")
    to: Moment


class PauseRequest(Input):
    """Why."""

    reason: Annotated[str, Field(max_length=1000)] | None = None
