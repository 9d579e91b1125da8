"""Every route, the permission it must ask for, and a request that reaches the question."""

from __future__ import annotations

from typing import Any

from astraml_ray.access.permissions import Permission
from tests.api.conftest import REFERENCE

Route = tuple[str, str]

SCHEDULE_ID = "sch-00000000000000000000"

EXPECTED: dict[Route, Permission | None] = {
    ("GET", "/metrics"): Permission.CLUSTER_READ,
    ("GET", "/v2.1/cluster"): Permission.CLUSTER_READ,
    ("GET", "/v2.1/errors"): None,
    ("GET", "/v2.1/errors/{code}"): None,
    ("GET", "/v2.1/schema"): None,
    ("GET", "/v2.1/jobs"): Permission.JOB_READ,
    ("POST", "/v2.1/jobs"): Permission.JOB_SUBMIT,
    ("POST", "/v2.1/jobs:validate"): Permission.JOB_SUBMIT,
    ("GET", "/v2.1/datasets:inspect"): Permission.JOB_SUBMIT,
    ("GET", "/v2.1/datasets:preview"): Permission.JOB_SUBMIT,
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
    ("GET", "/v2.1/jobs/{job_id}/sweep"): Permission.JOB_READ,
    ("GET", "/v2.1/jobs/{job_id}/trials"): Permission.JOB_READ,
    ("GET", "/v2.1/jobs/{job_id}/trials/{trial_id}"): Permission.JOB_READ,
    ("POST", "/v2.1/jobs/{job_id}/trials/{trial_id}:retrain"): Permission.JOB_SUBMIT,
    ("GET", "/v2.1/projects"): Permission.PROJECT_READ,
    ("POST", "/v2.1/projects"): Permission.PROJECT_CREATE,
    ("GET", "/v2.1/projects/{project_id}"): Permission.PROJECT_READ,
    ("POST", "/v2.1/projects/{project_id}/archive"): Permission.PROJECT_CREATE,
    ("POST", "/v2.1/projects/{project_id}/reopen"): Permission.PROJECT_CREATE,
    ("GET", "/v2.1/projects/{project_id}/members"): Permission.PROJECT_READ,
    ("PUT", "/v2.1/projects/{project_id}/members/{subject}"): Permission.MEMBER_MANAGE,
    ("DELETE", "/v2.1/projects/{project_id}/members/{subject}"): Permission.MEMBER_MANAGE,
    ("GET", "/v2.1/projects/{project_id}/quota"): Permission.PROJECT_READ,
    ("PUT", "/v2.1/projects/{project_id}/quota"): Permission.QUOTA_MANAGE,
    ("GET", "/v2.1/organisation/members"): Permission.MEMBER_MANAGE,
    ("PUT", "/v2.1/organisation/members/{subject}"): Permission.MEMBER_MANAGE,
    ("DELETE", "/v2.1/organisation/members/{subject}"): Permission.MEMBER_MANAGE,
    ("GET", "/v2.1/organisation/quota"): Permission.PROJECT_READ,
    ("PUT", "/v2.1/organisation/quota"): Permission.QUOTA_MANAGE,
    ("GET", "/v2.1/tokens"): None,
    ("POST", "/v2.1/tokens"): None,
    ("DELETE", "/v2.1/tokens/{token_id}"): None,
    ("GET", "/v2.1/whoami"): None,
    ("GET", "/v2.1/can-i"): None,
    ("GET", "/v2.1/permissions"): None,
    ("GET", "/v2.1/jobs/{job_id}/provenance"): Permission.POLICY_READ,
    **{
        (method, f"/v2.1/{place}/policy{path}"): permission
        for place in ("projects/{project_id}", "organisation")
        for method, path, permission in (
            ("GET", "", Permission.POLICY_READ),
            ("PUT", "", Permission.POLICY_MANAGE),
            ("GET", "/versions", Permission.POLICY_READ),
            ("GET", "/versions/{version}", Permission.POLICY_READ),
            ("GET", "/diff", Permission.POLICY_READ),
            ("POST", "/restore", Permission.POLICY_MANAGE),
            ("POST", "/replay", Permission.POLICY_MANAGE),
        )
    },
    ("GET", "/v2.1/projects/{project_id}/secrets"): Permission.SECRET_LIST,
    ("PUT", "/v2.1/projects/{project_id}/secrets/{name}"): Permission.SECRET_MANAGE,
    ("DELETE", "/v2.1/projects/{project_id}/secrets/{name}"): Permission.SECRET_MANAGE,
    ("GET", "/v2.1/projects/{project_id}/secrets/{name}/uses"): Permission.SECRET_LIST,
    **{
        (method, f"/v2.1/projects/{{project_id}}/webhooks{path}"): permission
        for method, path, permission in (
            ("GET", "", Permission.WEBHOOK_READ),
            ("POST", "", Permission.WEBHOOK_MANAGE),
            ("GET", "/{name}", Permission.WEBHOOK_READ),
            ("PATCH", "/{name}", Permission.WEBHOOK_MANAGE),
            ("DELETE", "/{name}", Permission.WEBHOOK_MANAGE),
            ("POST", "/{name}/test", Permission.WEBHOOK_MANAGE),
            ("POST", "/{name}/rotate", Permission.WEBHOOK_MANAGE),
            ("GET", "/{name}/deliveries", Permission.WEBHOOK_READ),
            ("GET", "/{name}/deliveries/{delivery_id}", Permission.WEBHOOK_READ),
            ("POST", "/{name}/deliveries/{delivery_id}/replay", Permission.WEBHOOK_MANAGE),
        )
    },
    ("POST", "/v2.1/schedules"): Permission.SCHEDULE_MANAGE,
    ("GET", "/v2.1/schedules"): Permission.JOB_READ,
    ("GET", "/v2.1/schedules/{schedule_id}"): Permission.JOB_READ,
    ("GET", "/v2.1/schedules/{schedule_id}/next"): Permission.JOB_READ,
    ("GET", "/v2.1/schedules/{schedule_id}/occurrences"): Permission.JOB_READ,
    ("POST", "/v2.1/schedules/{schedule_id}/pause"): Permission.SCHEDULE_MANAGE,
    ("POST", "/v2.1/schedules/{schedule_id}/resume"): Permission.SCHEDULE_MANAGE,
    ("POST", "/v2.1/schedules/{schedule_id}/run-now"): Permission.SCHEDULE_MANAGE,
    ("POST", "/v2.1/schedules/{schedule_id}/backfill"): Permission.SCHEDULE_MANAGE,
    ("DELETE", "/v2.1/schedules/{schedule_id}"): Permission.SCHEDULE_MANAGE,
    ("POST", "/v1/jobs"): Permission.JOB_SUBMIT,
    ("GET", "/v2.1/audit"): Permission.AUDIT_READ,  # of the whole installation
    ("GET", "/v2.1/audit/verify"): Permission.AUDIT_READ,
}
"""None is for whoever has a token."""

OWN_LISTS: set[Route] = {
    ("GET", "/v2.1/jobs"),
    ("GET", "/v2.1/projects"),
    ("GET", "/v2.1/schedules"),
    *(route for route in EXPECTED if route[0] == "GET" and "/organisation/policy" in route[1]),
}
"""What they show is the caller's to see, from whichever project, and so nobody is refused."""

ORGANISATION_ROUTES: set[Route] = {
    ("GET", "/metrics"),
    ("GET", "/v2.1/cluster"),
    ("POST", "/v2.1/projects"),
    ("GET", "/v2.1/audit"),
    ("GET", "/v2.1/audit/verify"),
    *(route for route in EXPECTED if "/organisation/" in route[1] and route not in OWN_LISTS),
}
"""Routes about no project: there a refusal hides nothing."""

BODIES: dict[Route, Any] = {
    ("POST", "/v2.1/jobs"): REFERENCE,
    ("POST", "/v2.1/jobs:validate"): REFERENCE,
    ("POST", "/v2.1/projects"): {"id": "p-new"},
    ("PUT", "/v2.1/projects/{project_id}/members/{subject}"): {"role": "viewer"},
    ("PUT", "/v2.1/organisation/members/{subject}"): {"role": "viewer"},
    ("PUT", "/v2.1/projects/{project_id}/quota"): {
        "gpus_at_once": 8,
        "jobs_at_once": None,
        "gpu_hours_per_week": None,
    },
    ("PUT", "/v2.1/organisation/quota"): {"gpus_at_once": 8, "jobs_at_once": None, "gpu_hours_per_week": None},
    ("POST", "/v2.1/tokens"): {"note": "of a test"},
    ("PUT", "/v2.1/projects/{project_id}/secrets/{name}"): {"value": "of a test"},
    **{
        (method, f"/v2.1/{place}/policy{path}"): body
        for place in ("projects/{project_id}", "organisation")
        for method, path, body in (
            ("PUT", "", {"document": {"rules": {}}}),
            ("POST", "/restore", {"version": 1}),
            ("POST", "/replay", {"document": {"rules": {}}}),
        )
    },
    ("POST", "/v2.1/projects/{project_id}/webhooks"): {"name": "s3-prod", "url": "https://93.184.216.34/hook"},
    ("PATCH", "/v2.1/projects/{project_id}/webhooks/{name}"): {"events": ["job.*"]},
    ("POST", "/v2.1/schedules"): {**REFERENCE, "schedule": {"cron": "0 2 * * *"}},
    ("POST", "/v2.1/schedules/{schedule_id}/backfill"): {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"},
    ("POST", "/v1/jobs"): {"project": "p-demo", "dataset": "s3://bucket/dataset", "model": "bert-base"},
}

QUERIES: dict[Route, dict[str, str]] = {
    ("GET", "/v2.1/datasets:inspect"): {"project_id": "p-demo", "path": "file:///no-such-folder"},
    ("GET", "/v2.1/datasets:preview"): {"project_id": "p-demo", "path": "file:///no-such-folder"},
}

_VALUES = {
    "{code}": "internal",
    "{name}": "s3-prod",
    "{delivery_id}": "msg-00000000000000000000",
    "{path}": "metrics.jsonl",
    "{schedule_id}": SCHEDULE_ID,
    "{project_id}": "p-demo",
    "{subject}": "someone",
    "{token_id}": "000000000000",
    "{trial_id}": "t0000",
    "{version}": "0",
}


def path_of(path: str, job_id: str) -> str:
    """The path with something in every place."""
    for place, value in {**_VALUES, "{job_id}": job_id}.items():
        path = path.replace(place, value)
    assert "{" not in path, path
    return path
