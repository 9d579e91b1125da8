"""The OpenAPI document: what the routes do not say by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from astraml_ray.access.policies import Policy
from astraml_ray.api.catalogue import entry_of
from astraml_ray.api.schemas import CancelRequest, CloneRequest, Problem
from astraml_ray.api.schemas_access import MemberRequest, ProjectRequest, QuotaRequest, TokenRequest
from astraml_ray.api.schemas_policies import OldSpec, PolicyRequest, ReplayRequest, RestoreRequest
from astraml_ray.api.schemas_records import StreamEnd
from astraml_ray.api.schemas_schedules import BackfillRequest, PauseRequest, ScheduleRequest
from astraml_ray.api.schemas_secrets import SecretRequest
from astraml_ray.api.schemas_sweeps import RetrainRequest
from astraml_ray.api.schemas_webhooks import RotateRequest
from astraml_ray.spec import JobSpec
from astraml_ray.spec.webhook import NewWebhook, WebhookChange

__all__ = ["BODY_CODES", "JOB_CODES", "KEY_HEADER", "STORE_CODES", "body_of", "describe", "event_stream", "problems"]

STORE_CODES = ("store_busy", "store_unavailable")
JOB_CODES = ("job_not_found", *STORE_CODES)
BODY_CODES = ("invalid_json", "body_too_large", "unsupported_media_type", "request_timeout")
_EVERYWHERE = (
    "invalid_parameter",
    "overloaded",
    "internal",
    "unauthenticated",
    "too_many_failures",
    "permission_denied",
    *STORE_CODES,
)
_REF = "#/components/schemas/{model}"
_PROBLEM = {"application/problem+json": {"schema": {"$ref": _REF.format(model="Problem")}}}
_REQUEST_ID = {"X-Request-Id": {"description": "Also in the service's log", "schema": {"type": "string"}}}
_RETRY_AFTER = {"Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}}
_INPUTS: Sequence[type[BaseModel]] = (
    JobSpec,
    CancelRequest,
    CloneRequest,
    ProjectRequest,
    MemberRequest,
    QuotaRequest,
    TokenRequest,
    Policy,
    PolicyRequest,
    ReplayRequest,
    RestoreRequest,
    OldSpec,
    SecretRequest,
    ScheduleRequest,
    PauseRequest,
    BackfillRequest,
    NewWebhook,
    WebhookChange,
    RotateRequest,
    RetrainRequest,
)

KEY_HEADER = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Repeating a request with its key gives the same job and answer, for a day at least.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
}


def problems(*codes: str) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that can fail with these codes, and with those that every route has."""
    by_status: dict[int, list[str]] = {}
    for code in sorted({*codes, *_EVERYWHERE}):
        status = entry_of(code).status
        assert status is not None, code
        by_status.setdefault(status, []).append(code)
    return {status: _problem_response(of_status) for status, of_status in sorted(by_status.items())}


def body_of(model: str, *, required: bool, yaml: bool = False) -> dict[str, Any]:
    """The `requestBody` of a route that reads its body itself."""
    schema = {"schema": {"$ref": _REF.format(model=f"{model}Input")}}
    kinds = ["application/json", *(["application/yaml"] if yaml else [])]
    return {"required": required, "content": dict.fromkeys(kinds, schema)}


def event_stream(model: str) -> dict[str, Any]:
    """The `content` of a stream whose events carry this model, and at the end a StreamEnd."""
    choices = [{"$ref": _REF.format(model=name)} for name in (model, "StreamEnd")]
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": {"anyOf": choices}}
    fields = {"id": {"type": "string"}, "event": {"type": "string"}, "retry": {"type": "integer"}, "data": data}
    return {"text/event-stream": {"itemSchema": {"type": "object", "properties": fields}}}


def describe(app: FastAPI) -> None:
    """Makes the app's document complete."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            built = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
            )
            schemas = built.setdefault("components", {}).setdefault("schemas", {})
            schemas.update(_input_schemas())
            schemas.update(_answer_schemas())
            _add_headers(built)
            app.openapi_schema = built
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _problem_response(codes: list[str]) -> dict[str, Any]:
    entries = [entry_of(code) for code in codes]
    response: dict[str, Any] = {
        "description": "; ".join(f"`{entry.code}`: {entry.title}" for entry in entries),
        "content": _PROBLEM,
    }
    if any(entry.retry_after_s is not None for entry in entries):
        response["headers"] = _RETRY_AFTER
    return response


def _input_schemas() -> dict[str, Any]:
    """The models of bodies, apart from those of answers, which have other required fields."""
    _, definitions = models_json_schema(
        [(model, "validation") for model in _INPUTS], ref_template="#/components/schemas/{model}Input"
    )
    return {f"{name}Input": schema for name, schema in definitions["$defs"].items()}


def _answer_schemas() -> dict[str, Any]:
    """Of what is referred to by name only."""
    models: list[type[BaseModel]] = [Problem, StreamEnd]
    _, definitions = models_json_schema([(model, "serialization") for model in models], ref_template=_REF)
    return dict(definitions["$defs"])


def _add_headers(document: dict[str, Any]) -> None:
    for path in document["paths"].values():
        for operation in path.values():
            for response in operation["responses"].values():
                response["headers"] = {**_REQUEST_ID, **response.get("headers", {})}
