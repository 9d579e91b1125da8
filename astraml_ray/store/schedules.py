"""Schedules: made, found, listed, paused, and found when they are due."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, or_, select, update

from astraml_ray.errors import ScheduleNotFoundError
from astraml_ray.store.records import new_id
from astraml_ray.store.schedule_tables import occurrences, schedules

__all__ = [
    "ScheduleRecord",
    "create_schedule",
    "delete_schedule",
    "due_schedules",
    "find_schedule",
    "get_schedule",
    "list_schedules",
    "new_schedule_id",
    "update_schedule",
]


@dataclass(frozen=True)
class ScheduleRecord:
    """A schedule's row; the columns are explained in schedule_tables.py."""

    id: str
    project_id: str
    name: str | None
    document: dict[str, Any]
    request: dict[str, Any] | None
    api_version: str
    migration: list[dict[str, Any]] | None
    timing: dict[str, Any]
    subject: str
    token_id: str | None
    created_at: float
    handled_at: float
    next_at: float | None
    paused_at: float | None = None
    paused_by: str | None = None
    pause_reason: str | None = None
    failures: int = 0
    dataset: str | None = None
    dataset_job_id: str | None = None


def new_schedule_id(now: float) -> str:
    """An identifier that sorts by time: `sch-`, and twenty characters as a job's."""
    return new_id("sch", now)


def create_schedule(conn: Connection, record: ScheduleRecord) -> None:
    """Makes a schedule."""
    conn.execute(insert(schedules).values(vars(record)))


def find_schedule(conn: Connection, schedule_id: str, *, lock: bool = False) -> ScheduleRecord | None:
    """The schedule, or None; locked until the transaction ends."""
    query = select(schedules).where(schedules.c.id == schedule_id)
    row = conn.execute(query.with_for_update() if lock else query).mappings().one_or_none()
    return ScheduleRecord(**row) if row else None


def get_schedule(conn: Connection, schedule_id: str, *, lock: bool = False) -> ScheduleRecord:
    """The schedule.

    Raises:
        ScheduleNotFoundError: There is none.
    """
    found = find_schedule(conn, schedule_id, lock=lock)
    if found is None:
        raise ScheduleNotFoundError(f"there is no schedule {schedule_id[:80]!r}", param="schedule_id")
    return found


def list_schedules(
    conn: Connection,
    *,
    project_id: str | None = None,
    project_ids: Collection[str] | None = None,
    before_id: str | None = None,
    limit: int,
) -> list[ScheduleRecord]:
    """A page of schedules, newest first: of one project, of some (None is all), or of both."""
    query = select(schedules)
    if project_id is not None:
        query = query.where(schedules.c.project_id == project_id)
    if project_ids is not None:
        query = query.where(schedules.c.project_id.in_(list(project_ids)))
    if before_id is not None:
        query = query.where(schedules.c.id < before_id)
    rows = conn.execute(query.order_by(schedules.c.id.desc()).limit(limit)).mappings()
    return [ScheduleRecord(**row) for row in rows]


def update_schedule(conn: Connection, schedule_id: str, **values: Any) -> None:
    """Sets columns of a schedule."""
    conn.execute(update(schedules).where(schedules.c.id == schedule_id).values(values))


def delete_schedule(conn: Connection, schedule_id: str) -> bool:
    """Takes a schedule away with its occurrences; its jobs stay. False: there is none."""
    if find_schedule(conn, schedule_id, lock=True) is None:
        return False
    conn.execute(delete(occurrences).where(occurrences.c.schedule_id == schedule_id))
    conn.execute(delete(schedules).where(schedules.c.id == schedule_id))
    return True


def due_schedules(conn: Connection, now: float, *, limit: int) -> list[ScheduleRecord]:
    """Those that something is to be decided about, the longest due first.

    Where all is decided up to a time that is to come, the clock was wrong, and the next instant is to be found anew.
    """
    due = or_(schedules.c.next_at <= now, schedules.c.handled_at > now)
    query = select(schedules).where(schedules.c.paused_at.is_(None), due)
    rows = conn.execute(query.order_by(schedules.c.next_at, schedules.c.id).limit(limit)).mappings()
    return [ScheduleRecord(**row) for row in rows]
