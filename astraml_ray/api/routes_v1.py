"""The one route of v1.x that is left: its specs become jobs of the current version."""

from __future__ import annotations

from datetime import datetime, timezone
from email.utils import format_datetime
from typing import Any

from fastapi import APIRouter, Depends, Request

from astraml_ray.access.permissions import Permission
from astraml_ray.api.answers import JsonAnswer
from astraml_ray.api.openapi import BODY_CODES, KEY_HEADER, STORE_CODES, body_of, problems
from astraml_ray.api.requests import Body, document_of
from astraml_ray.api.routes_jobs import KEY_CODES, RULE_CODES, SUBMIT, SUBMITTED, key_of, make
from astraml_ray.api.services import ApiServices, Requires, caller_of
from astraml_ray.api.submission import Creation
from astraml_ray.spec.migration import migrate

__all__ = ["DEPRECATED", "SUNSET", "router"]

router = APIRouter(prefix="/v1", tags=["v1"])

DEPRECATED = datetime(2026, 11, 1, tzinfo=timezone.utc)
"""Since then there is v2.1 in its place."""
SUNSET = datetime(2027, 11, 1, tzinfo=timezone.utc)
"""From then on it may be gone."""
_HEADERS = {
    "Deprecation": f"@{int(DEPRECATED.timestamp())}",
    "Sunset": format_datetime(SUNSET, usegmt=True),
    "Link": '</openapi.json#/paths/~1v1~1jobs/post>; rel="deprecation"; type="application/json", '
    '</v2.1/jobs>; rel="successor-version"',
}
_ABOUT = {
    "Deprecation": "RFC 9745: since when this route is deprecated",
    "Sunset": "RFC 8594: when it may be gone",
    "Link": "RFC 8288: how to migrate, and the route that takes its place",
}
_CREATED: dict[str, Any] = {
    **SUBMITTED,
    "headers": {
        **SUBMITTED["headers"],
        **{name: {"description": text, "schema": {"type": "string"}} for name, text in _ABOUT.items()},
    },
}


@router.post(
    "/jobs",
    status_code=201,
    summary="Submit a job in the terms of v1.x",
    deprecated=True,
    dependencies=[Depends(Requires(Permission.JOB_SUBMIT))],
    responses={**problems(*BODY_CODES, *KEY_CODES, *STORE_CODES, *RULE_CODES), 201: _CREATED},
    openapi_extra={"requestBody": body_of("OldSpec", required=True, yaml=True), "parameters": [KEY_HEADER]},
)
def submit_old_job(request: Request, services: ApiServices, body: Body) -> JsonAnswer:
    """Takes a spec of v1.x, and makes the job that its v2.1 twin would make; both share idempotency keys.

    To migrate, write the spec as v2.1 (`astraml migrate spec.yaml` does, and lists what moved, what took a default and
    what to verify), and send it to POST /v2.1/jobs. The answer is that route's: its `spec` is the migrated one, and GET
    /v2.1/jobs/{job_id}/provenance tells field by field what became of the request.
    """
    sent = document_of(body)
    migration = migrate(sent)
    creation = Creation(
        SUBMIT,
        caller_of(request),
        migration.document,
        key_of(request),
        sent=sent,
        api_version=str(sent.get("api_version") or "v1.x"),
        migration=[move.as_dict() for move in migration.report],
    )
    answer = make(request, services, creation)
    answer.headers.update(_HEADERS)
    return answer
