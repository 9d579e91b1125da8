"""The attempts at a job, numbered from 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select, update

from astraml_ray.errors import JobNotFoundError
from astraml_ray.store.tables import attempts, jobs

__all__ = ["AttemptRecord", "amend_attempt", "begin_attempt", "end_attempt", "list_attempts"]


@dataclass(frozen=True)
class AttemptRecord:
    """One attempt; `status` is running, succeeded, failed or cancelled; times are seconds since the epoch."""

    job_id: str
    number: int
    status: str
    started_at: float
    finished_at: float | None
    first_step: int | None
    last_step: int | None
    micro_batch_divisor: int
    error: dict[str, Any] | None


def begin_attempt(
    conn: Connection, job_id: str, *, now: float, first_step: int | None = None, micro_batch_divisor: int = 1
) -> int:
    """Begins the next attempt, makes it the job's newest, and returns its number.

    Raises:
        JobNotFoundError: There is no such job.
    """
    query = update(jobs).where(jobs.c.id == job_id).values(attempt=jobs.c.attempt + 1).returning(jobs.c.attempt)
    number = conn.execute(query).scalar_one_or_none()
    if number is None:
        raise JobNotFoundError(f"there is no job {job_id}", param=job_id)
    row = {
        "job_id": job_id,
        "number": number,
        "status": "running",
        "started_at": now,
        "first_step": first_step,
        "micro_batch_divisor": micro_batch_divisor,
    }
    conn.execute(insert(attempts).values(row))
    return int(number)


def end_attempt(
    conn: Connection,
    job_id: str,
    number: int,
    status: str,
    *,
    now: float,
    last_step: int | None = None,
    error: Mapping[str, Any] | None = None,
) -> bool:
    """Ends an attempt. False: it had ended already (or never began), and nothing is changed."""
    query = update(attempts).where(
        attempts.c.job_id == job_id, attempts.c.number == number, attempts.c.finished_at.is_(None)
    )
    values = {"status": status, "finished_at": now, "last_step": last_step, "error": error}
    return conn.execute(query.values(values)).rowcount == 1


def amend_attempt(conn: Connection, job_id: str, number: int, error: Mapping[str, Any]) -> None:
    """Completes what is known of a failed attempt: the runner after a lost one finds what it had saved."""
    query = update(attempts).where(attempts.c.job_id == job_id, attempts.c.number == number)
    conn.execute(query.values(error=error))


def list_attempts(conn: Connection, job_id: str) -> list[AttemptRecord]:
    """All attempts, the first one first."""
    query = select(attempts).where(attempts.c.job_id == job_id).order_by(attempts.c.number)
    return [AttemptRecord(**row) for row in conn.execute(query).mappings()]
