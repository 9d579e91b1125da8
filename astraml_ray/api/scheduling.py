"""Making and changing schedules: each change in one transaction with its line in the audit trail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection

from astraml_ray.access.effective import Outcome
from astraml_ray.access.resolution import check_in_transaction
from astraml_ray.access.tokens import Principal
from astraml_ray.api.errors import ParameterError
from astraml_ray.control.firing import timing_of
from astraml_ray.control.making import Request, without_schedule
from astraml_ray.control.schedules import next_due, passed_instants
from astraml_ray.spec.schedule import Schedule
from astraml_ray.store.audit import append_audit
from astraml_ray.store.engine import Store
from astraml_ray.store.notices import tell_of_schedule
from astraml_ray.store.occurrences import plan_occurrences
from astraml_ray.store.schedules import (
    ScheduleRecord,
    create_schedule,
    delete_schedule,
    get_schedule,
    new_schedule_id,
    update_schedule,
)

__all__ = ["delete", "insert_schedule", "pause", "plan_backfill", "resume"]

_MAX_BACKFILL = 1000
_EARLIEST = 946_684_800.0  # 2000, as in a spec's `start`


def insert_schedule(
    conn: Connection, request: Request, document: dict[str, Any], outcome: Outcome, *, now: float
) -> ScheduleRecord:
    """Makes a schedule of what policies made of a spec that has one, if its job could be made now.

    Raises:
        AccessError: Something does not hold that must; see `check_in_transaction`.
    """
    check_in_transaction(conn, request.principal, without_schedule(outcome), now=now)
    timing = outcome.document["schedule"]
    schedule_id = new_schedule_id(now)
    schedule = ScheduleRecord(
        id=schedule_id,
        project_id=outcome.spec.project_id,
        name=document["name"] if isinstance(document.get("name"), str) else outcome.spec.name,
        document=document,
        request=None if request.sent is document else request.sent,
        api_version=request.api_version,
        migration=request.migration,
        timing=timing,
        subject=request.principal.subject,
        token_id=request.principal.token_id,
        created_at=now,
        handled_at=now,
        next_at=next_due(schedule_id, Schedule.model_validate(timing), now),
    )
    create_schedule(conn, schedule)
    tell_of_schedule(conn, schedule, "created", now=now, data={"by": request.principal.subject})
    _audit(conn, "created", schedule, request.principal, now, after=timing)
    return schedule


def pause(store: Store, schedule_id: str, principal: Principal, reason: str | None, *, now: float) -> ScheduleRecord:
    """Makes no more jobs until it is resumed; one that is paused stays as it is."""

    def change(conn: Connection, schedule: ScheduleRecord) -> None:
        if schedule.paused_at is None:
            update_schedule(conn, schedule.id, paused_at=now, paused_by=principal.subject, pause_reason=reason)
            told = {"by": principal.subject}
            tell_of_schedule(conn, schedule, "paused", now=now, message=reason, data=told)
            _audit(conn, "paused", schedule, principal, now, after={"reason": reason})

    return _changed(store, schedule_id, change)


def resume(store: Store, schedule_id: str, principal: Principal, *, now: float) -> ScheduleRecord:
    """Goes on with what comes from now on; what passed meanwhile is for `backfill`."""

    def change(conn: Connection, schedule: ScheduleRecord) -> None:
        if schedule.paused_at is None:
            return
        values: dict[str, Any] = dict.fromkeys(("paused_at", "paused_by", "pause_reason"))
        values |= {"failures": 0, "handled_at": now, "next_at": next_due(schedule.id, timing_of(schedule), now)}
        update_schedule(conn, schedule.id, **values)
        tell_of_schedule(conn, schedule, "resumed", now=now, data={"by": principal.subject})
        _audit(conn, "resumed", schedule, principal, now)

    return _changed(store, schedule_id, change)


def delete(store: Store, schedule: ScheduleRecord, principal: Principal, *, now: float) -> None:
    """Takes it away; one that is gone already stays so."""
    with store.write() as conn:
        if delete_schedule(conn, schedule.id):
            tell_of_schedule(conn, schedule, "deleted", now=now, data={"by": principal.subject})
            _audit(conn, "deleted", schedule, principal, now, before=schedule.timing)


def plan_backfill(
    store: Store,
    schedule: ScheduleRecord,
    principal: Principal,
    *,
    first: float,
    last: float,
    now: float,
    conclude: Callable[[Connection, int, int], None] | None = None,
) -> tuple[int, int]:
    """Lets the instants of a time that has passed wait for their jobs; how many there are, and how many get one.

    Args:
        store: The truth.
        schedule: The schedule.
        principal: Who asks.
        first: Seconds since the epoch.
        last: Likewise; both are in it.
        now: Likewise.
        conclude: What else is to be written in the same transaction, of both numbers.

    Raises:
        ParameterError: The time is none, has not passed, or has too many instants.
    """
    if not _EARLIEST <= first <= last:
        raise ParameterError("`from` must be before `to`, and after the year 2000", param="/from")
    if last > now:
        raise ParameterError("`to` has not passed yet", param="/to", hint="what is to come needs no backfill")
    instants = passed_instants(timing_of(schedule), first=first, last=last, limit=_MAX_BACKFILL)
    if len(instants) > _MAX_BACKFILL:
        message = f"more than {_MAX_BACKFILL} occurrences lie between the two"
        raise ParameterError(message, param="/to", hint="ask for a part of it at a time")
    with store.write() as conn:
        get_schedule(conn, schedule.id, lock=True)
        planned = plan_occurrences(conn, schedule.id, instants, now=now)
        _audit(conn, "backfilled", schedule, principal, now, after={"from": first, "to": last, "planned": planned})
        if conclude is not None:
            conclude(conn, len(instants), planned)
    return len(instants), planned


def _changed(store: Store, schedule_id: str, change: Callable[[Connection, ScheduleRecord], None]) -> ScheduleRecord:
    with store.write() as conn:
        change(conn, get_schedule(conn, schedule_id, lock=True))
        return get_schedule(conn, schedule_id)


def _audit(
    conn: Connection, verb: str, schedule: ScheduleRecord, principal: Principal, now: float, **changes: Any
) -> None:
    action, scope = f"schedule.{verb}", schedule.project_id
    append_audit(conn, action, actor=principal.actor, scope=scope, target=schedule.id, now=now, **changes)
