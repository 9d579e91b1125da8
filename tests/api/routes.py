"""Every route, the permission it must ask for, and a request that reaches the question."""

from __future__ import annotations

from typing import Any

from astraml_ray.access.permissions import Permission
from tests.api.conftest import REFERENCE

Route = tuple[str, str]

EXPECTED: dict[Route, Permission | None] = {
    ("GET", "/metrics"): Permission.CLUSTER_READ,
    ("GET", "/v2.1/cluster"): Permission.CLUSTER_READ,
    ("GET", "/v2.1/errors"): None,
    ("GET", "/v2.1/errors/{code}"): None,
    ("GET", "/v2.1/schema"): None,
    ("GET", "/v2.1/jobs"): Permission.JOB_READ,
    ("POST", "/v2.1/jobs"): Permission.JOB_SUBMIT,
    ("POST", "/v2.1/jobs:validate"): Permission.JOB_SUBMIT,
    ("GET", "/v2.1/jobs/{job_id}"): Permission.JOB_READ,
    ("GET", "/v2.1/jobs/{job_id}/attempts"): Permission.JOB_READ,
    ("GET", "/v2.1/jobs/{job_id}/events"): Permission.JOB_READ,
    ("GET", "/v2.1/jobs/{job_id}/logs"): Permission.JOB_READ,
    ("GET", "/v2.1/jobs/{job_id}/metrics"): Permission.JOB_READ,
    ("GET", "/v2.1/jobs/{job_id}/artifacts"): Permission.ARTIFACT_READ,
    ("GET", "/v2.1/jobs/{job_id}/artifacts/{path}"): Permission.ARTIFACT_READ,
    ("POST", "/v2.1/jobs/{job_id}/cancel"): Permission.JOB_CANCEL_ANY,  # for the job is another's
    ("POST", "/v2.1/jobs/{job_id}/clone"): Permission.JOB_SUBMIT,
    ("POST", "/v2.1/jobs/{job_id}/resume"): Permission.JOB_RESUME,
}
"""None is for whoever has a token."""

ORGANISATION_ROUTES: set[Route] = {("GET", "/metrics"), ("GET", "/v2.1/cluster")}
"""Routes about no project: there a refusal hides nothing."""

BODIES: dict[Route, Any] = {
    ("POST", "/v2.1/jobs"): REFERENCE,
    ("POST", "/v2.1/jobs:validate"): REFERENCE,
}

_VALUES = {"{code}": "internal", "{path}": "metrics.jsonl", "{project_id}": "p-demo"}


def path_of(path: str, job_id: str) -> str:
    """The path with something in every place."""
    for place, value in {**_VALUES, "{job_id}": job_id}.items():
        path = path.replace(place, value)
    assert "{" not in path, path
    return path
