"""Routes of tokens, and of what one may do with one's own."""

from __future__ import annotations

from itertools import dropwhile, islice
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from sqlalchemy import Connection

from astraml_ray.access.denials import PermissionDeniedError
from astraml_ray.access.issuing import issue_personal_token, issue_service_token, revoke_token, visible_token
from astraml_ray.access.permissions import ANYWHERE, Permission, Role, allows, roles_with
from astraml_ray.access.tokens import Principal
from astraml_ray.api.answers import JsonAnswer
from astraml_ray.api.errors import ParameterError
from astraml_ray.api.openapi import BODY_CODES, STORE_CODES, body_of, problems
from astraml_ray.api.parameters import decode_cursor
from astraml_ray.api.requests import Body
from astraml_ray.api.routes_projects import Cursor, PageSize
from astraml_ray.api.schemas_access import (
    CanI,
    Held,
    NewToken,
    PermissionList,
    Token,
    TokenPage,
    TokenRequest,
    Whoami,
    read_input,
)
from astraml_ray.api.services import ApiServices, Caller, Requires, Services, authorize_project
from astraml_ray.api.views_access import (
    NAME,
    in_order,
    page_view,
    permission_named,
    permission_table,
    permissions_named,
    token_view,
    whoami_view,
)
from astraml_ray.errors import Problem
from astraml_ray.store.administration import administering
from astraml_ray.store.tokens import TokenRecord, list_tokens

__all__ = ["router"]

router = APIRouter(prefix="/v2.1", tags=["tokens"])

_OF_ONE_KIND = {"personal": ("subject",), "service": ("name", "role")}


@router.get(
    "/tokens",
    summary="List tokens",
    dependencies=[Depends(Requires(None))],
    responses={**problems(*STORE_CODES, "project_not_found"), 200: {"model": TokenPage}},
)
def list_visible_tokens(
    request: Request,
    services: ApiServices,
    caller: Caller,
    project_id: Annotated[str | None, Query(description="Those that count in this project only")] = None,
    organisation: Annotated[bool, Query(description="Everyone's")] = False,
    cursor: Cursor = None,
    limit: PageSize = 50,
) -> JsonAnswer:
    """A page of the caller's own tokens, newest first; a project's, or all of them, need `token.manage` there."""
    if project_id is not None and organisation:
        raise ParameterError("give project_id or organisation", param="organisation", hint="leave one of them out")
    if project_id is not None:
        authorize_project(request, project_id, Permission.TOKEN_MANAGE)
    elif organisation:
        caller.require(Permission.TOKEN_MANAGE, None)
    after = decode_cursor(cursor, NAME)
    with services.store.read() as conn:
        rows = _listed(conn, caller, project_id, everyones=organisation)
    left = islice(dropwhile(lambda token: token.id != after, rows), 1, None) if after else iter(rows)
    found, now = list(islice(left, limit + 1)), services.clock()
    return JsonAnswer(page_view(found, limit, lambda one: one.id, lambda one: token_view(one, now=now)))


@router.post(
    "/tokens",
    status_code=201,
    summary="Make a token",
    dependencies=[Depends(Requires(None))],
    responses={
        **problems(*BODY_CODES, *STORE_CODES, "project_not_found"),
        201: {"model": NewToken, "description": "The token, which is never shown again"},
    },
    openapi_extra={"requestBody": body_of("TokenRequest", required=True)},
)
def make_token(services: ApiServices, caller: Caller, body: Body) -> JsonAnswer:
    """Anyone makes tokens for themselves, at most as strong and as lasting as the one that they make it with.

    A service's, and another person's, need `token.manage`. To repeat the request makes another token: revoke the one
    whose answer was lost.
    """
    asked = read_input(TokenRequest, body)
    _check_kind(asked)
    now = services.clock()
    terms: dict[str, Any] = {
        "project_id": asked.project_id,
        "permissions": None if asked.permissions is None else permissions_named(asked.permissions),
        "expires_at": asked.end(now=now),
        "note": asked.note,
        "now": now,
    }
    with administering(services.store) as conn:
        if asked.kind == "personal":
            text, made = issue_personal_token(conn, caller, asked.subject or caller.subject, **terms)
        else:
            text, made = issue_service_token(conn, caller, asked.name or "", Role(asked.role), **terms)
    return JsonAnswer({**token_view(made, now=now), "token": text}, status_code=201)


@router.delete(
    "/tokens/{token_id}",
    summary="Revoke a token",
    dependencies=[Depends(Requires(None))],
    responses={**problems(*BODY_CODES, *STORE_CODES, "not_found"), 200: {"model": Token}},
)
def take_token(services: ApiServices, caller: Caller, token_id: str, body: Body) -> JsonAnswer:
    """Within a second it counts nowhere, for ever: one's own, or a project's with `token.manage`. May be repeated."""
    body.fields([])
    now = services.clock()
    with administering(services.store) as conn:
        revoke_token(conn, caller, token_id, now=now)
        revoked = visible_token(conn, caller, token_id)
    services.gate.cache.forget()
    return JsonAnswer(token_view(revoked, now=now))


@router.get(
    "/whoami",
    summary="Whom the token stands for",
    dependencies=[Depends(Requires(None))],
    responses={**problems(*STORE_CODES), 200: {"model": Whoami}},
)
def who_am_i(caller: Caller) -> JsonAnswer:
    """The caller's name, and the roles that the token has."""
    return JsonAnswer(whoami_view(caller))


@router.get(
    "/can-i",
    summary="Ask what one may do",
    dependencies=[Depends(Requires(None))],
    responses={**problems(*STORE_CODES, "project_not_found"), 200: {"model": CanI | Held}},
)
def can_i(
    services: ApiServices,
    caller: Caller,
    permission: Annotated[str | None, Query(description="Such as job.submit; left out, all of them")] = None,
    project_id: Annotated[str | None, Query(description="Where; left out, in the organisation")] = None,
) -> JsonAnswer:
    """Whether the caller may do something with this token, why, and which roles may; or everything that they may."""
    asked = None if permission is None else permission_named(permission, param="permission")
    denied = _denial(services, caller, asked or Permission.PROJECT_READ, project_id)
    role = caller.role_in(project_id)
    place = {"project_id": project_id, "role": role.value if role else None}
    if asked is None:
        return JsonAnswer({**place, "permissions": in_order(caller.permissions_in(project_id))})
    granting = [one.value for one in roles_with(asked)]
    if project_id is None and asked not in ANYWHERE:
        granting = granting[-1:]
    reason = f"{denied.message}; {denied.hint}" if denied else _why(role, asked, project_id)
    decision = {"allowed": denied is None, "permission": asked.value, "roles": granting, "reason": reason}
    return JsonAnswer({**place, **decision})


@router.get(
    "/permissions",
    summary="All permissions",
    dependencies=[Depends(Requires(None))],
    responses={**problems(), 200: {"model": PermissionList}},
)
def list_permissions() -> JsonAnswer:
    """What each permission is for, and which roles have it."""
    return JsonAnswer({"data": permission_table()})


def _listed(conn: Connection, caller: Principal, project_id: str | None, *, everyones: bool) -> list[TokenRecord]:
    if project_id is not None or everyones:
        return list_tokens(conn, scope=project_id)
    own = list_tokens(conn, subject=caller.subject)
    return [token for token in own if caller.bound in (None, token.scope)]


def _check_kind(asked: TokenRequest) -> None:
    """Each kind has fields that the other has not."""
    other = "service" if asked.kind == "personal" else "personal"
    odd = [name for name in _OF_ONE_KIND[other] if getattr(asked, name) is not None]
    problems = [
        Problem(f"/{name}", f"is of a {other} token", f'leave it out, or send "kind": "{other}"') for name in odd
    ]
    if asked.kind == "service":
        missing = [name for name in _OF_ONE_KIND["service"] if getattr(asked, name) is None]
        problems += [Problem(f"/{name}", "is missing", "a service token has a name and a role") for name in missing]
    if problems:
        raise ParameterError.of(problems)


def _denial(
    services: Services, caller: Principal, permission: Permission, project_id: str | None
) -> PermissionDeniedError | None:
    """Why it may not be done; a project that the caller may not know of is not found."""
    try:
        services.gate.require(caller, permission, project_id)
    except PermissionDeniedError as denied:
        return denied
    return None


def _why(role: Role | None, permission: Permission, project_id: str | None) -> str:
    if role is not None and allows(role, permission):
        return f"you are {role.value}"
    return "it was given to you besides your role" if project_id is not None else "whoever has a role anywhere may"
