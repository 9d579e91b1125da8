"""What happened to a job, numbered 1, 2, 3 ... without gaps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select, update

from astraml_ray.errors import JobNotFoundError
from astraml_ray.store.notices import tell_of_job
from astraml_ray.store.statements import MAX_INTEGER
from astraml_ray.store.tables import events, jobs

__all__ = ["EventRecord", "append_event", "latest_event", "list_events"]


@dataclass(frozen=True)
class EventRecord:
    """One event of a job; `at` is in seconds since the epoch."""

    job_id: str
    seq: int
    at: float
    type: str
    message: str | None
    data: dict[str, Any] | None


def append_event(
    conn: Connection,
    job_id: str,
    type: str,  # noqa: A002
    *,
    now: float,
    message: str | None = None,
    data: Mapping[str, Any] | None = None,
) -> int:
    """Adds an event and returns its number; webhooks are told of it.

    Raises:
        JobNotFoundError: There is no such job.
    """
    # The row stays locked until the transaction ends, so nobody takes a number that is then rolled back.
    query = update(jobs).where(jobs.c.id == job_id).values(event_seq=jobs.c.event_seq + 1).returning(jobs.c.event_seq)
    seq = conn.execute(query).scalar_one_or_none()
    if seq is None:
        raise JobNotFoundError(f"there is no job {job_id}", param=job_id)
    row = {"job_id": job_id, "seq": seq, "at": now, "type": type, "message": message, "data": data}
    conn.execute(insert(events).values(row))
    tell_of_job(conn, job_id, type, now=now, message=message, data=data)
    return int(seq)


def list_events(conn: Connection, job_id: str, *, after: int = 0, limit: int) -> list[EventRecord]:
    """The events with numbers greater than `after`, oldest first, `limit` at most."""
    query = (
        select(events)
        .where(events.c.job_id == job_id, events.c.seq > min(after, MAX_INTEGER))
        .order_by(events.c.seq)
        .limit(limit)
    )
    return [EventRecord(**row) for row in conn.execute(query).mappings()]


def latest_event(conn: Connection, job_id: str, type: str) -> EventRecord | None:  # noqa: A002
    """The newest event of a type, if there is one."""
    query = select(events).where(events.c.job_id == job_id, events.c.type == type)
    row = conn.execute(query.order_by(events.c.seq.desc()).limit(1)).mappings().first()
    return None if row is None else EventRecord(**row)
