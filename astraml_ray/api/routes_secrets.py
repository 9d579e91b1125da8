"""Routes of secrets: names and uses to see, values to store. None gives a value back, nor repeats one in an error."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from sqlalchemy import Connection

from astraml_ray.access.permissions import Permission
from astraml_ray.access.secrets import KeyRing
from astraml_ray.access.vault import delete_secret, put_secret
from astraml_ray.api.answers import JsonAnswer, iso_time
from astraml_ray.api.errors import MalformedBodyError, ParameterError
from astraml_ray.api.openapi import BODY_CODES, STORE_CODES, body_of, problems
from astraml_ray.api.parameters import decode_cursor
from astraml_ray.api.requests import Body, RawBody
from astraml_ray.api.routes_projects import Cursor
from astraml_ray.api.schemas_secrets import DeletedSecret, SecretList, SecretUsePage, StoredSecret
from astraml_ray.api.services import ApiServices, Caller, Requires, authorize_project
from astraml_ray.api.views_access import NUMBER, page_view
from astraml_ray.control.secrets import seal_with
from astraml_ray.store.secrets import SecretRecord, SecretUse, last_uses, list_secrets, list_uses

__all__ = ["router"]

router = APIRouter(prefix="/v2.1/projects/{project_id}/secrets", tags=["secrets"])

_NOT_FOUND = ("project_not_found", *STORE_CODES)
_EXPECTED = 'send {"value": "..."} as application/json'


@router.get(
    "",
    summary="List a project's secrets",
    dependencies=[Depends(Requires(Permission.SECRET_LIST))],
    responses={**problems(*_NOT_FOUND), 200: {"model": SecretList}},
)
def list_all_secrets(request: Request, services: ApiServices, project_id: str) -> JsonAnswer:
    """The newest version of each, by name, and when a job was last given it. Never a value."""
    authorize_project(request, project_id)
    with services.store.read() as conn:
        found, used = list_secrets(conn, project_id), last_uses(conn, project_id)
    return JsonAnswer({"data": [_view(secret, used.get(secret.name)) for secret in found]})


@router.put(
    "/{name}",
    summary="Store a secret",
    dependencies=[Depends(Requires(Permission.SECRET_MANAGE))],
    responses={
        **problems(*_NOT_FOUND, *BODY_CODES, "secret_invalid", "secret_key"),
        200: {"model": StoredSecret, "description": "It is stored, encrypted"},
    },
    openapi_extra={"requestBody": body_of("SecretRequest", required=True)},
)
def store_secret(
    request: Request, services: ApiServices, caller: Caller, project_id: str, name: str, body: Body
) -> JsonAnswer:
    """A new secret, or a new version of one. Jobs that run keep the version that they began with."""
    authorize_project(request, project_id)
    value, now = _value_in(body), services.clock()

    def work(conn: Connection, ring: KeyRing) -> tuple[SecretRecord, list[str]]:
        return put_secret(conn, caller, ring, project_id, name, value, now=now)

    stored, warnings = seal_with(services.store, services.keys, work)
    with services.store.read() as conn:
        used = last_uses(conn, project_id).get(name)
    return JsonAnswer({**_view(stored, used), "warnings": warnings})


@router.delete(
    "/{name}",
    summary="Delete a secret",
    dependencies=[Depends(Requires(Permission.SECRET_MANAGE))],
    responses={**problems(*_NOT_FOUND, *BODY_CODES, "not_found"), 200: {"model": DeletedSecret}},
)
def remove_secret(
    request: Request, services: ApiServices, caller: Caller, project_id: str, name: str, body: Body
) -> JsonAnswer:
    """Destroys its value, in all versions. Attempts that begin afterwards and need it fail."""
    authorize_project(request, project_id)
    body.fields([])
    with services.store.write() as conn:
        delete_secret(conn, caller, project_id, name, now=services.clock())
    return JsonAnswer({"project_id": project_id, "name": name})


@router.get(
    "/{name}/uses",
    summary="List who used a secret",
    dependencies=[Depends(Requires(Permission.SECRET_LIST))],
    responses={**problems(*_NOT_FOUND), 200: {"model": SecretUsePage}},
)
def list_secret_uses(
    request: Request,
    services: ApiServices,
    project_id: str,
    name: str,
    cursor: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
) -> JsonAnswer:
    """A page of attempts of jobs that were given it, the newest first; also of one that is deleted by now."""
    authorize_project(request, project_id)
    last = decode_cursor(cursor, NUMBER)
    before = None if last is None else int(last)
    with services.store.read() as conn:
        found = list_uses(conn, project_id=project_id, name=name, before=before, limit=limit + 1)
    return JsonAnswer(page_view(found, limit, lambda use: str(use.id), _use_view))


def _value_in(body: RawBody) -> str:
    """The value; what is wrong with a body is told without a word of it."""
    try:
        data = body.parsed()
    except MalformedBodyError:
        raise MalformedBodyError("the body does not parse", hint=_EXPECTED) from None
    if not isinstance(data, dict) or set(data) != {"value"} or not isinstance(data["value"], str):
        raise ParameterError("the body has one member, `value`, which is text", param="/value", hint=_EXPECTED)
    return data["value"]


def _view(secret: SecretRecord, last_used_at: float | None) -> dict[str, Any]:
    return {
        "project_id": secret.project_id,
        "name": secret.name,
        "version": secret.version,
        "size": secret.size,
        "created_at": iso_time(secret.created_at),
        "created_by": secret.created_by,
        "last_used_at": iso_time(last_used_at),
    }


def _use_view(use: SecretUse) -> dict[str, Any]:
    return {
        "id": use.id,
        "version": use.version,
        "job_id": use.job_id,
        "attempt": use.attempt,
        "subject": use.subject,
        "at": iso_time(use.at),
    }
