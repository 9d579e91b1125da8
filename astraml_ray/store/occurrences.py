"""Occurrences of schedules: one row for each instant that was decided about, which is what makes it happen once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, and_, exists, func, select, update

from astraml_ray.spec.states import TERMINAL
from astraml_ray.store.schedule_tables import OPEN, occurrences, schedules
from astraml_ray.store.statements import upsert
from astraml_ray.store.tables import jobs

__all__ = [
    "EndedOccurrence",
    "Kind",
    "OccurrenceOutcome",
    "OccurrenceRecord",
    "add_occurrence",
    "ended_occurrences",
    "get_occurrence",
    "has_unnoted_end",
    "list_occurrences",
    "live_occurrences",
    "occasions_of",
    "occurrence_of",
    "plan_occurrences",
    "schedules_waiting",
    "set_occurrence",
    "waiting_occurrences",
]

Kind = Literal["scheduled", "manual", "backfill"]
OccurrenceOutcome = Literal["waiting", "started", "succeeded", "failed", "cancelled", "skipped", "missed"]
_TERMINAL = tuple(status.value for status in TERMINAL)
_AGAIN = ("skipped", "missed", "failed")
_BATCH = 500


@dataclass(frozen=True)
class OccurrenceRecord:
    """An occurrence's row.

    Attributes:
        schedule_id: Of which schedule.
        instant: Seconds since the epoch.
        kind: Of the schedule itself, by hand, or for a time that has passed.
        outcome: "waiting" has no job yet, "started" has one that has not ended; the rest is final.
        job_id: Its job.
        reason: Why it has none, or failed.
        error: As a problem object has it, if no job could be made.
        decided_at: Seconds since the epoch.
        dataset: Digest of what its job has trained on, where the schedule asks for that.
    """

    schedule_id: str
    instant: int
    kind: Kind
    outcome: OccurrenceOutcome
    job_id: str | None
    reason: str | None
    error: dict[str, Any] | None
    decided_at: float
    dataset: str | None = None


@dataclass(frozen=True)
class EndedOccurrence:
    """An occurrence whose job has ended since it was looked at."""

    schedule_id: str
    instant: int
    job_id: str
    status: str
    reason: str | None
    kind: Kind
    dataset: str | None


def add_occurrence(conn: Connection, record: OccurrenceRecord) -> bool:
    """Writes an occurrence; False if that instant was decided about already, and nothing is to be done."""
    query = upsert(conn, occurrences).values(vars(record)).on_conflict_do_nothing()
    return conn.execute(query.returning(occurrences.c.instant)).first() is not None


def plan_occurrences(conn: Connection, schedule_id: str, instants: Iterable[int], *, now: float) -> int:
    """Lets instants that have passed wait for their turn, those that have no job. Returns how many."""
    planned, wanted = 0, list(instants)
    for start in range(0, len(wanted), _BATCH):
        part = wanted[start : start + _BATCH]
        row: dict[str, Any] = {"schedule_id": schedule_id, "kind": "backfill", "outcome": "waiting", "decided_at": now}
        rows = [{**row, "instant": instant, "job_id": None, "reason": None, "error": None} for instant in part]
        anew = {"kind": "backfill", "outcome": "waiting", "reason": None, "error": None, "decided_at": now}
        where = and_(occurrences.c.job_id.is_(None), occurrences.c.outcome.in_(_AGAIN))
        query = upsert(conn, occurrences).values(rows)
        query = query.on_conflict_do_update(index_elements=["schedule_id", "instant"], set_=anew, where=where)
        planned += len(conn.execute(query.returning(occurrences.c.instant)).all())
    return planned


def set_occurrence(conn: Connection, schedule_id: str, instant: int, **values: Any) -> None:
    """Sets columns of an occurrence."""
    query = update(occurrences).where(occurrences.c.schedule_id == schedule_id, occurrences.c.instant == instant)
    conn.execute(query.values(values))


def get_occurrence(conn: Connection, schedule_id: str, instant: int) -> OccurrenceRecord:
    """An occurrence that is there."""
    query = select(occurrences).where(occurrences.c.schedule_id == schedule_id, occurrences.c.instant == instant)
    return OccurrenceRecord(**conn.execute(query).mappings().one())


def occurrence_of(conn: Connection, job_id: str) -> OccurrenceRecord | None:
    """The occurrence that a job was made for; None if it was made for none, or its schedule is gone."""
    row = conn.execute(select(occurrences).where(occurrences.c.job_id == job_id)).mappings().first()
    return OccurrenceRecord(**row) if row else None


def occasions_of(conn: Connection, job_ids: list[str]) -> Mapping[str, tuple[str, int]]:
    """Schedule and instant of each of these jobs that was made for one."""
    columns = (occurrences.c.job_id, occurrences.c.schedule_id, occurrences.c.instant)
    rows = conn.execute(select(*columns).where(occurrences.c.job_id.in_(job_ids)))
    return {row.job_id: (row.schedule_id, row.instant) for row in rows}


def has_unnoted_end(conn: Connection, schedule_id: str) -> bool:
    """Whether a job of the schedule has ended, and its occurrence does not tell yet."""
    query = select(occurrences.c.instant).join(jobs, jobs.c.id == occurrences.c.job_id)
    query = query.where(OPEN, occurrences.c.outcome == "started", occurrences.c.schedule_id == schedule_id)
    return conn.execute(query.where(jobs.c.status.in_(_TERMINAL)).limit(1)).first() is not None


def list_occurrences(
    conn: Connection, schedule_id: str, *, before: int | None = None, limit: int
) -> list[OccurrenceRecord]:
    """A page of occurrences, the latest instant first."""
    query = select(occurrences).where(occurrences.c.schedule_id == schedule_id)
    if before is not None:
        query = query.where(occurrences.c.instant < before)
    rows = conn.execute(query.order_by(occurrences.c.instant.desc()).limit(limit)).mappings()
    return [OccurrenceRecord(**row) for row in rows]


def live_occurrences(conn: Connection, schedule_id: str) -> list[OccurrenceRecord]:
    """Those whose jobs have not ended, the earliest first."""
    query = select(occurrences).join(jobs, jobs.c.id == occurrences.c.job_id)
    query = query.where(OPEN, occurrences.c.outcome == "started", occurrences.c.schedule_id == schedule_id)
    query = query.where(jobs.c.status.not_in(_TERMINAL)).order_by(occurrences.c.instant)
    return [OccurrenceRecord(**row) for row in conn.execute(query).mappings()]


def waiting_occurrences(conn: Connection, schedule_id: str, *, backfill: bool, limit: int) -> list[OccurrenceRecord]:
    """Those that wait for a job, the earliest first: of a backfill, or all others."""
    kind = occurrences.c.kind == "backfill"
    query = select(occurrences).where(
        OPEN, occurrences.c.outcome == "waiting", occurrences.c.schedule_id == schedule_id
    )
    query = query.where(kind if backfill else ~kind)
    rows = conn.execute(query.order_by(occurrences.c.instant).limit(limit)).mappings()
    return [OccurrenceRecord(**row) for row in rows]


def schedules_waiting(conn: Connection, *, limit: int) -> list[str]:
    """Schedules that are not paused, and have occurrences that wait."""
    waits = exists().where(OPEN, occurrences.c.outcome == "waiting", occurrences.c.schedule_id == schedules.c.id)
    # In any order, so that those whose turn has not come hold up no others, however many they are.
    query = select(schedules.c.id).where(schedules.c.paused_at.is_(None), waits).order_by(func.random())
    return list(conn.execute(query.limit(limit)).scalars())


def ended_occurrences(conn: Connection, *, limit: int) -> list[EndedOccurrence]:
    """Those whose jobs have ended, in the order in which they did."""
    columns = (occurrences.c.schedule_id, occurrences.c.instant, jobs.c.id, jobs.c.status, jobs.c.reason)
    query = select(*columns, occurrences.c.kind, occurrences.c.dataset).join(jobs, jobs.c.id == occurrences.c.job_id)
    query = query.where(OPEN, occurrences.c.outcome == "started", jobs.c.status.in_(_TERMINAL))
    return [EndedOccurrence(*row) for row in conn.execute(query.order_by(jobs.c.finished_at).limit(limit))]
