"""Schedules and occurrences as the API shows them. Pure."""

from __future__ import annotations

from typing import Any

from astraml_ray.api.answers import iso_time
from astraml_ray.control.firing import timing_of
from astraml_ray.control.schedules import Upcoming, upcoming
from astraml_ray.store.occurrences import OccurrenceRecord
from astraml_ray.store.schedules import ScheduleRecord

__all__ = ["next_view", "occurrence_view", "schedule_path", "schedule_view"]

_NEXT = 5


def schedule_path(schedule_id: str) -> str:
    """Where a schedule is."""
    return f"/v2.1/schedules/{schedule_id}"


def schedule_view(schedule: ScheduleRecord, *, now: float, with_spec: bool = True) -> dict[str, Any]:
    """The schedule object; in lists without its spec."""
    place = schedule_path(schedule.id)
    view: dict[str, Any] = {
        "id": schedule.id,
        "project_id": schedule.project_id,
        "name": schedule.name,
        "owner": schedule.subject,
        "status": _status_of(schedule),
        "schedule": schedule.timing,
        "created_at": iso_time(schedule.created_at),
        "next_at": iso_time(schedule.next_at) if schedule.paused_at is None else None,
        "paused_at": iso_time(schedule.paused_at),
        "paused_by": schedule.paused_by,
        "pause_reason": schedule.pause_reason,
        "failures": schedule.failures,
        "links": {
            "self": place,
            "next": f"{place}/next",
            "occurrences": f"{place}/occurrences",
            "jobs": f"/v2.1/jobs?schedule_id={schedule.id}",
        },
    }
    if with_spec:
        view["spec"] = schedule.document
        view["next"] = next_view(schedule, now=now, count=_NEXT)
    return view


def next_view(schedule: ScheduleRecord, *, now: float, count: int) -> list[dict[str, Any]]:
    """The next instants."""
    after = max(now, schedule.handled_at)
    return [_upcoming_view(one) for one in upcoming(timing_of(schedule), after=after, count=count)]


def occurrence_view(occurrence: OccurrenceRecord) -> dict[str, Any]:
    """One occurrence."""
    return {
        "instant": iso_time(occurrence.instant),
        "kind": occurrence.kind,
        "outcome": occurrence.outcome,
        "job_id": occurrence.job_id,
        "reason": occurrence.reason,
        "error": occurrence.error,
        "decided_at": iso_time(occurrence.decided_at),
    }


def _upcoming_view(one: Upcoming) -> dict[str, Any]:
    return {"instant": iso_time(one.instant), "local": one.local.isoformat(), "mark": one.mark}


def _status_of(schedule: ScheduleRecord) -> str:
    if schedule.paused_at is not None:
        return "paused"
    return "active" if schedule.next_at is not None else "ended"
