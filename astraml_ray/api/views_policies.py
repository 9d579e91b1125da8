"""Policies, what they would have done, and where a job's fields are from, as the API shows them. Pure."""

from __future__ import annotations

from typing import Any

from astraml_ray.access.effective import policy_notes
from astraml_ray.access.fields import flatten
from astraml_ray.access.policies import Change
from astraml_ray.access.replay import ReplayedJob
from astraml_ray.api.answers import iso_time
from astraml_ray.api.replays import Replayed
from astraml_ray.store.access import OriginRecord
from astraml_ray.store.access_tables import ORGANISATION
from astraml_ray.store.jobs import JobRecord
from astraml_ray.store.policies import PolicyRecord

__all__ = ["change_view", "no_policy_view", "policy_view", "provenance_view", "replay_view"]


def policy_view(policy: PolicyRecord, *, with_document: bool = True) -> dict[str, Any]:
    """A version; in lists without what it says."""
    view = {
        "project_id": _project_of(policy.scope),
        "version": policy.version,
        "note": policy.note,
        "restored_from": policy.restored_from,
        "created_at": iso_time(policy.created_at),
        "created_by": policy.created_by,
    }
    return {**view, "document": policy.document} if with_document else view


def no_policy_view(scope: str) -> dict[str, Any]:
    """What is in force where no policy was ever written."""
    return {
        "project_id": _project_of(scope),
        "version": 0,
        "note": None,
        "restored_from": None,
        "created_at": None,
        "created_by": None,
        "document": {"rules": {}},
    }


def change_view(change: Change) -> dict[str, Any]:
    """A difference of two versions."""
    return {
        "path": change.path,
        "verb": change.verb,
        "kind": "added" if not change.before else "changed" if change.after else "removed",
        "before": change.before[0] if change.before else None,
        "after": change.after[0] if change.after else None,
        "text": str(change),
    }


def replay_view(found: Replayed) -> dict[str, Any]:
    """What a policy would have made of past jobs."""
    counts = f"{found.changed} would have changed and {found.rejected} been rejected"
    return {
        "total": found.total,
        "changed": found.changed,
        "rejected": found.rejected,
        "summary": f"of {found.total} job{'s' if found.total != 1 else ''}, {counts}",
        "jobs": [_replayed_view(job) for job in found.jobs],
        "truncated": len(found.jobs) < found.changed + found.rejected,
    }


def provenance_view(job: JobRecord, origin: OriginRecord | None) -> dict[str, Any]:
    """Where a job is from; of one that no request made, no more than what it is."""
    if origin is None:
        unknown = {"source": None, "policy_version": None}
        fields = {".".join(parts): {"value": value, **unknown} for parts, value in flatten(job.spec).items()}
    else:
        fields = origin.provenance
    return {
        "job_id": job.id,
        "submitted_by": origin.subject if origin else None,
        "api_version": origin.api_version if origin else None,
        "request": origin.request if origin else None,
        "migration": (origin.migration or []) if origin else [],
        "fields": fields,
        "explained": policy_notes(fields),
    }


def _replayed_view(job: ReplayedJob) -> dict[str, Any]:
    return {
        "job_id": job.id,
        "outcome": "rejected" if job.problems else "changed",
        "changes": [vars(change) for change in job.changes],
        "problems": [vars(problem) for problem in job.problems],
    }


def _project_of(scope: str) -> str | None:
    return None if scope == ORGANISATION else scope
