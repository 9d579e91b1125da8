"""What deciding about a request needs: a token with its subject's roles, a job's origin, GPU time used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, or_, select, update

from astraml_ray.store.access_tables import gpu_usage, job_origins
from astraml_ray.store.projects import MemberRecord, memberships_of
from astraml_ray.store.statements import upsert
from astraml_ray.store.tokens import TokenRecord, find_token

__all__ = [
    "GpuTime",
    "OriginRecord",
    "begin_gpu_time",
    "end_gpu_time",
    "find_origin",
    "gpu_time_since",
    "load_access",
    "record_origin",
    "submitters_of",
]


@dataclass(frozen=True)
class OriginRecord:
    """Who submitted a job, as what, and where each of its fields is from.

    Attributes:
        job_id: The job.
        subject: Who submitted it.
        token_id: With which token.
        api_version: Of the request as it was sent.
        request: As it was sent.
        migration: What moved, of a request of an older version.
        provenance: `{path: {value, source, policy_version, was}}`.
        created_at: Seconds since the epoch.
    """

    job_id: str
    subject: str
    token_id: str | None
    api_version: str
    request: dict[str, Any]
    migration: list[dict[str, Any]] | None
    provenance: dict[str, Any]
    created_at: float


@dataclass(frozen=True)
class GpuTime:
    """GPUs that an attempt holds or held; `finished_at` is None while it runs."""

    job_id: str
    attempt: int
    project_id: str
    gpus: float
    started_at: float
    finished_at: float | None


def load_access(conn: Connection, token_id: str, *, now: float) -> tuple[TokenRecord | None, list[MemberRecord]]:
    """A token and the roles that its subject has now."""
    token = find_token(conn, token_id)
    if token is None or token.kind != "personal":
        return token, []
    return token, memberships_of(conn, token.subject, now=now)


def record_origin(conn: Connection, origin: OriginRecord) -> None:
    """Writes a job's origin, in the transaction that makes the job."""
    conn.execute(insert(job_origins).values(origin.__dict__))


def find_origin(conn: Connection, job_id: str) -> OriginRecord | None:
    """A job's origin; None for jobs from before there were projects."""
    row = conn.execute(select(job_origins).where(job_origins.c.job_id == job_id)).mappings().one_or_none()
    return OriginRecord(**row) if row else None


def submitters_of(conn: Connection, job_ids: list[str]) -> Mapping[str, str]:
    """Who submitted each of these jobs, where that is known."""
    query = select(job_origins.c.job_id, job_origins.c.subject).where(job_origins.c.job_id.in_(job_ids))
    return {row.job_id: row.subject for row in conn.execute(query)}


def begin_gpu_time(conn: Connection, time: GpuTime) -> None:
    """An attempt holds GPUs from now on; saying so again changes nothing."""
    conn.execute(upsert(conn, gpu_usage).values(time.__dict__).on_conflict_do_nothing())


def end_gpu_time(conn: Connection, job_id: str, *, now: float) -> None:
    """Whatever a job still holds is free again."""
    query = update(gpu_usage).where(gpu_usage.c.job_id == job_id, gpu_usage.c.finished_at.is_(None))
    conn.execute(query.values(finished_at=now))


def gpu_time_since(conn: Connection, since: float, *, project_id: str | None = None) -> list[GpuTime]:
    """GPU time that has not ended before `since`: of one project, or of all."""
    query = select(gpu_usage).where(or_(gpu_usage.c.finished_at.is_(None), gpu_usage.c.finished_at > since))
    if project_id is not None:
        query = query.where(gpu_usage.c.project_id == project_id)
    return [GpuTime(**row) for row in conn.execute(query).mappings()]
