"""Jobs: made, found, listed, and moved from state to state."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Select, func, insert, select, update

from astraml_ray.errors import JobNotFoundError, JobTerminalError, TransitionError
from astraml_ray.spec.states import JobStatus, may_follow
from astraml_ray.store.events import append_event
from astraml_ray.store.notices import tell_of_job
from astraml_ray.store.pages import page_of_ids
from astraml_ray.store.plain import plain_text
from astraml_ray.store.records import JobRecord, NewJob, new_job_id
from astraml_ray.store.tables import LIVE, events, job_labels, jobs
from astraml_ray.store.trials import close_trials

__all__ = [
    "JobRecord",
    "NewJob",
    "change_status",
    "count_by_status",
    "create_job",
    "find_job",
    "get_job",
    "list_jobs",
    "list_live",
    "new_job_id",
    "request_cancel",
    "update_job",
]

_OWN = frozenset({"id", "status", "created_at", "event_seq", "log_seq"})
"""Columns that only this package writes."""
_SETTABLE = frozenset(column.name for column in jobs.columns) - _OWN


def create_job(conn: Connection, new: NewJob, *, now: float) -> JobRecord:
    """Makes a queued job with its labels and its first event, `job_created`."""
    row = {
        "id": new.id,
        "project_id": new.project_id,
        "name": new.name,
        "status": JobStatus.QUEUED.value,
        "spec": new.spec,
        "spec_digest": new.spec_digest,
        "api_version": new.api_version,
        "priority": new.priority,
        "parent_id": new.parent_id,
        "relation": new.relation,
        "created_at": now,
        "queued_at": now,
        "event_seq": 1,
    }
    made = conn.execute(insert(jobs).values(row).returning(jobs)).one()
    labels = {plain_text(key): plain_text(value) for key, value in new.labels.items()}
    if labels:
        conn.execute(insert(job_labels), [{"key": key, "value": labels[key], "job_id": new.id} for key in labels])
    data = None if new.parent_id is None else {"parent_id": new.parent_id, "relation": new.relation}
    conn.execute(insert(events).values(job_id=new.id, seq=1, at=now, type="job_created", data=data))
    tell_of_job(conn, new.id, "job_created", now=now, message=None, data=data)
    return JobRecord.from_row(made, labels)


def get_job(conn: Connection, job_id: str) -> JobRecord:
    """The job.

    Raises:
        JobNotFoundError: There is none.
    """
    job = find_job(conn, job_id)
    if job is None:
        raise _unknown(job_id)
    return job


def find_job(conn: Connection, job_id: str) -> JobRecord | None:
    """The job, or None."""
    return next(iter(_records(conn, select(jobs).where(jobs.c.id == job_id))), None)


def list_jobs(
    conn: Connection,
    *,
    project_id: str | None = None,
    project_ids: Collection[str] | None = None,
    status: Collection[JobStatus] | None = None,
    labels: Mapping[str, str] | None = None,
    created_after: float | None = None,
    created_before: float | None = None,
    parent_id: str | None = None,
    schedule_id: str | None = None,
    before_id: str | None = None,
    limit: int,
) -> list[JobRecord]:
    """A page of jobs, newest first.

    Args:
        conn: A connection.
        project_id: Only of this project.
        project_ids: Only of these; None is all.
        status: Only in one of these states.
        labels: Only with all of these labels.
        created_after: Only later ones than this time.
        created_before: Only earlier ones than this time.
        parent_id: Only those resumed or cloned from this job.
        schedule_id: Only those that this schedule has made.
        before_id: The last id of the page before.
        limit: How many at most.
    """
    ids = page_of_ids(
        project_id=project_id,
        project_ids=project_ids,
        status=status,
        labels=labels,
        created=(created_after, created_before),
        parent_id=parent_id,
        schedule_id=schedule_id,
        before_id=before_id,
        limit=limit,
    )
    return [] if ids is None else _records(conn, select(jobs).where(jobs.c.id.in_(ids)).order_by(jobs.c.id.desc()))


def list_live(conn: Connection) -> list[JobRecord]:
    """All jobs that have not ended, oldest first."""
    return sorted(_records(conn, select(jobs).where(LIVE)), key=lambda job: job.id)


def count_by_status(conn: Connection) -> dict[JobStatus, int]:
    """How many jobs there are in each state; every state is in it."""
    rows = conn.execute(select(jobs.c.status, func.count()).group_by(jobs.c.status))
    return dict.fromkeys(JobStatus, 0) | {JobStatus(status): count for status, count in rows}


def change_status(
    conn: Connection,
    job_id: str,
    status: JobStatus,
    *,
    reason: str | None,
    message: str | None,
    now: float,
    event_data: Mapping[str, Any] | None = None,
    **fields: Any,
) -> JobRecord:
    """Moves a job to another state and records the event `job_<status>`: the only way a state changes.

    Args:
        conn: A connection that writes.
        job_id: The job.
        status: The state it goes to.
        reason: A word that says why it is there.
        message: The same for people.
        now: Seconds since the epoch.
        event_data: Goes into the event's data, beside the reason.
        fields: Other columns to be set with it.

    Raises:
        JobNotFoundError: There is no such job.
        TransitionError: The state may not follow the present one.
    """
    job = _locked(conn, job_id)
    if not may_follow(job.status, status):
        raise TransitionError(f"a job that is {job.status.value} cannot become {status.value}", param=job_id)
    values = {**_times(job, status, now), **_settable(fields), "status": status.value}
    values |= {"reason": reason, "message": message}
    changed = conn.execute(update(jobs).where(jobs.c.id == job_id).values(values).returning(jobs)).one()
    if status.terminal:
        close_trials(conn, job_id, reason=message or reason, now=now)
    data = {"before": job.status.value, "reason": reason, **(event_data or {})}
    seq = append_event(conn, job_id, f"job_{status.value}", now=now, message=message, data=data)
    return replace(JobRecord.from_row(changed, job.labels), event_seq=seq)


def update_job(conn: Connection, job_id: str, **fields: Any) -> None:
    """Sets columns of a job, never its state.

    Raises:
        JobNotFoundError: There is no such job.
        TypeError: A column that does not exist or is not for callers to set.
    """
    if conn.execute(update(jobs).where(jobs.c.id == job_id).values(_settable(fields))).rowcount != 1:
        raise _unknown(job_id)


def request_cancel(conn: Connection, job_id: str, mode: str, *, now: float) -> JobRecord:
    """Cancels a queued job at once; asks an active one to stop. Asking again changes nothing, but `now` wins.

    Raises:
        JobNotFoundError: There is no such job.
        JobTerminalError: It has ended already.
    """
    job = _locked(conn, job_id)
    if job.status.terminal:
        raise JobTerminalError(f"the job has ended already: {job.status.value}", param=job_id)
    asked: dict[str, Any] = {"cancel_mode": mode, "cancel_requested_at": now}
    if job.status is JobStatus.QUEUED:
        message = "cancelled while it was queued"
        return change_status(conn, job_id, JobStatus.CANCELLED, reason="cancelled", message=message, now=now, **asked)
    if job.cancel_mode in (mode, "now"):
        return job
    update_job(conn, job_id, **asked)
    append_event(conn, job_id, "cancel_requested", now=now, data={"mode": mode})
    return get_job(conn, job_id)


def _locked(conn: Connection, job_id: str) -> JobRecord:
    found = _records(conn, select(jobs).where(jobs.c.id == job_id).with_for_update())
    if not found:
        raise _unknown(job_id)
    return found[0]


def _records(conn: Connection, query: Select[Any]) -> list[JobRecord]:
    rows = conn.execute(query).all()
    labels = _labels(conn, [row.id for row in rows])
    return [JobRecord.from_row(row, labels.get(row.id, {})) for row in rows]


def _labels(conn: Connection, ids: list[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    if ids:
        for row in conn.execute(select(job_labels).where(job_labels.c.job_id.in_(ids))):
            found.setdefault(row.job_id, {})[row.key] = row.value
    return found


def _times(job: JobRecord, status: JobStatus, now: float) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if status is JobStatus.QUEUED:
        values["queued_at"] = now
    elif job.status is JobStatus.QUEUED:
        values["wait"] = None
    if status in (JobStatus.STARTING, JobStatus.RUNNING) and job.started_at is None:
        values["started_at"] = now
    if status.terminal:
        values["finished_at"] = now
    return values


def _settable(fields: dict[str, Any]) -> dict[str, Any]:
    wrong = set(fields) - _SETTABLE
    if wrong:
        raise TypeError(f"not for callers to set: {', '.join(sorted(wrong))}")
    return fields


def _unknown(job_id: str) -> JobNotFoundError:
    return JobNotFoundError(f"there is no job {job_id}", param=job_id)
