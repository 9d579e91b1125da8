"""A job of what policies made of a request: its row and its origin, in one transaction with whatever asked for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection

from astraml_ray.access.effective import Outcome
from astraml_ray.access.resolution import check_in_transaction
from astraml_ray.access.tokens import Principal
from astraml_ray.store.access import OriginRecord, record_origin
from astraml_ray.store.jobs import JobRecord, NewJob, create_job, new_job_id

__all__ = ["Request", "insert_job", "without_schedule"]


@dataclass(frozen=True)
class Request:
    """What a job is made of besides its outcome.

    Attributes:
        principal: Who asks for it.
        sent: As it was sent.
        api_version: Of that.
        migration: What moved, of a request of an older version.
        parent_id: The job that is resumed or cloned.
        relation: Which of the two.
    """

    principal: Principal
    sent: dict[str, Any]
    api_version: str
    migration: list[dict[str, Any]] | None = None
    parent_id: str | None = None
    relation: str | None = None


def insert_job(conn: Connection, request: Request, outcome: Outcome, *, now: float) -> JobRecord:
    """Makes the job.

    Raises:
        AccessError: Something does not hold that must; see `check_in_transaction`.
    """
    check_in_transaction(conn, request.principal, outcome, now=now)
    spec = outcome.spec
    job = create_job(
        conn,
        NewJob(
            id=new_job_id(now),
            spec=outcome.document,
            spec_digest=spec.digest(),
            api_version=spec.api_version,
            project_id=spec.project_id,
            name=spec.name,
            priority=spec.priority,
            labels=spec.labels,
            parent_id=request.parent_id,
            relation=request.relation,
        ),
        now=now,
    )
    origin = OriginRecord(
        job_id=job.id,
        subject=request.principal.subject,
        token_id=request.principal.token_id,
        api_version=request.api_version,
        request=request.sent,
        migration=request.migration,
        provenance=outcome.provenance,
        created_at=job.created_at,
    )
    record_origin(conn, origin)
    return job


def without_schedule(outcome: Outcome) -> Outcome:
    """The job of one occurrence: it runs once."""
    provenance = {path: entry for path, entry in outcome.provenance.items() if path.partition(".")[0] != "schedule"}
    return replace(
        outcome,
        spec=outcome.spec.model_copy(update={"schedule": None}),
        document={**outcome.document, "schedule": None},
        provenance={**provenance, "schedule": {"value": None, "source": "built-in", "policy_version": None}},
    )
