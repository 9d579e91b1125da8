"""What a schedule is asked for once: a job now, or those of a time that has passed. With a key, never a second time."""

from __future__ import annotations

from sqlalchemy import Connection

from astraml_ray.access.tokens import Principal
from astraml_ray.api.keyed import Keyed, Made, once
from astraml_ray.api.scheduling import plan_backfill
from astraml_ray.api.services import Services
from astraml_ray.api.submission import nudge
from astraml_ray.api.views_schedules import occurrence_view
from astraml_ray.control.firing import Firing
from astraml_ray.store.occurrences import OccurrenceRecord
from astraml_ray.store.schedules import ScheduleRecord

__all__ = ["backfill_once", "run_once"]

_ROUTE = "POST /v2.1/schedules/{id}/"


def run_once(services: Services, schedule: ScheduleRecord, principal: Principal, key: str | None) -> Made:
    """Makes the schedule's job now.

    Raises:
        AstraError: It cannot be made, or the key belongs to another request.
    """
    keyed = Keyed(schedule.project_id, f"{_ROUTE}run-now", key, {"schedule_id": schedule.id})

    def make() -> Made:
        now = services.clock()

        def remember(conn: Connection, made: OccurrenceRecord) -> None:
            keyed.remember(conn, _ran(made), now=now)

        return _ran(Firing(services.store, services.targets).run_now(schedule, principal, now=now, conclude=remember))

    return _told(services, once(services, keyed, make))


def backfill_once(
    services: Services, schedule: ScheduleRecord, principal: Principal, key: str | None, *, first: float, last: float
) -> Made:
    """Lets the instants of a time that has passed wait for their jobs.

    Args:
        services: What the process has.
        schedule: The schedule.
        principal: Who asks.
        key: The idempotency key, if the client sent one.
        first: Seconds since the epoch.
        last: Likewise; both are in it.

    Raises:
        ParameterError: The time is none, has not passed, or has too many instants.
        AstraError: The key belongs to another request.
    """
    asked = {"schedule_id": schedule.id, "from": first, "to": last}
    keyed = Keyed(schedule.project_id, f"{_ROUTE}backfill", key, asked)

    def make() -> Made:
        now = services.clock()

        def remember(conn: Connection, instants: int, planned: int) -> None:
            keyed.remember(conn, _planned(schedule, instants, planned), now=now)

        counts = plan_backfill(services.store, schedule, principal, first=first, last=last, now=now, conclude=remember)
        return _planned(schedule, *counts)

    return _told(services, once(services, keyed, make))


def _ran(made: OccurrenceRecord) -> Made:
    return Made(201, occurrence_view(made), made.job_id)


def _planned(schedule: ScheduleRecord, instants: int, planned: int) -> Made:
    return Made(202, {"instants": instants, "planned": planned}, None, schedule.id)


def _told(services: Services, made: Made) -> Made:
    if not made.replayed:
        nudge(services)
    return made
