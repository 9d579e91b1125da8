"""Routes of who is in a project, or in the organisation, and of how much either may have: members and quotas."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request

from astraml_ray.access.administration import grant_role, revoke_role, set_quota
from astraml_ray.access.permissions import Permission, Role
from astraml_ray.access.quotas import WEEK_S
from astraml_ray.access.tokens import Principal
from astraml_ray.api.answers import JsonAnswer
from astraml_ray.api.openapi import BODY_CODES, STORE_CODES, body_of, problems
from astraml_ray.api.parameters import decode_cursor
from astraml_ray.api.requests import Body, RawBody
from astraml_ray.api.routes_projects import Cursor, PageSize
from astraml_ray.api.schemas_access import Member, MemberPage, MemberRequest, Quota, QuotaRequest, read_input
from astraml_ray.api.services import ApiServices, Caller, Requires, Services, authorize_project
from astraml_ray.api.views_access import NAME, member_view, page_view, permissions_named, quota_view
from astraml_ray.store.access import gpu_time_since
from astraml_ray.store.access_tables import ORGANISATION
from astraml_ray.store.administration import administering
from astraml_ray.store.projects import find_member, find_quota, list_members

__all__ = ["router"]

router = APIRouter(prefix="/v2.1", tags=["members"])

_MEMBERS: dict[int | str, dict[str, Any]] = {200: {"model": MemberPage}}
_MEMBER: dict[int | str, dict[str, Any]] = {200: {"model": Member}}
_QUOTA: dict[int | str, dict[str, Any]] = {200: {"model": Quota}}
_GRANT: dict[str, Any] = {"requestBody": body_of("MemberRequest", required=True)}
_BOUNDS: dict[str, Any] = {"requestBody": body_of("QuotaRequest", required=True)}


@router.get(
    "/projects/{project_id}/members",
    summary="List the members of a project",
    dependencies=[Depends(Requires(Permission.PROJECT_READ))],
    responses={**problems(*STORE_CODES, "project_not_found"), **_MEMBERS},
)
def list_project_members(
    request: Request, services: ApiServices, project_id: str, cursor: Cursor = None, limit: PageSize = 50
) -> JsonAnswer:
    """A page of those who have a role in exactly this project, by name; org_admins are in every project besides."""
    authorize_project(request, project_id)
    return _members(services, project_id, cursor, limit)


@router.put(
    "/projects/{project_id}/members/{subject}",
    summary="Give someone a role in a project",
    dependencies=[Depends(Requires(Permission.MEMBER_MANAGE))],
    responses={**problems(*BODY_CODES, *STORE_CODES, "project_not_found"), **_MEMBER},
    openapi_extra=_GRANT,
)
def grant_in_project(
    request: Request, services: ApiServices, caller: Caller, project_id: str, subject: str, body: Body
) -> JsonAnswer:
    """In place of the role that they have there. Nobody gives more than they have themselves."""
    authorize_project(request, project_id)
    return _grant(services, caller, project_id, subject, body)


@router.delete(
    "/projects/{project_id}/members/{subject}",
    summary="Take someone's role in a project",
    dependencies=[Depends(Requires(Permission.MEMBER_MANAGE))],
    responses={**problems(*BODY_CODES, *STORE_CODES, "project_not_found", "not_found"), **_MEMBER},
)
def revoke_in_project(
    request: Request, services: ApiServices, caller: Caller, project_id: str, subject: str, body: Body
) -> JsonAnswer:
    """Their tokens give nothing there within a second. The answer is the role that they had."""
    authorize_project(request, project_id)
    return _revoke(services, caller, project_id, subject, body)


@router.get(
    "/organisation/members",
    summary="List who has a role in the organisation",
    dependencies=[Depends(Requires(Permission.MEMBER_MANAGE, organisation=True))],
    responses={**problems(*STORE_CODES), **_MEMBERS},
)
def list_organisation_members(services: ApiServices, cursor: Cursor = None, limit: PageSize = 50) -> JsonAnswer:
    """A page of those whose role holds in every project, by name."""
    return _members(services, ORGANISATION, cursor, limit)


@router.put(
    "/organisation/members/{subject}",
    summary="Give someone a role in the organisation",
    dependencies=[Depends(Requires(Permission.MEMBER_MANAGE, organisation=True))],
    responses={**problems(*BODY_CODES, *STORE_CODES, "last_admin"), **_MEMBER},
    openapi_extra=_GRANT,
)
def grant_in_organisation(services: ApiServices, caller: Caller, subject: str, body: Body) -> JsonAnswer:
    """It holds in every project. The last org_admin stays one."""
    return _grant(services, caller, ORGANISATION, subject, body)


@router.delete(
    "/organisation/members/{subject}",
    summary="Take someone's role in the organisation",
    dependencies=[Depends(Requires(Permission.MEMBER_MANAGE, organisation=True))],
    responses={**problems(*BODY_CODES, *STORE_CODES, "last_admin", "not_found"), **_MEMBER},
)
def revoke_in_organisation(services: ApiServices, caller: Caller, subject: str, body: Body) -> JsonAnswer:
    """Roles in single projects stay. The last org_admin stays one. The answer is the role that they had."""
    return _revoke(services, caller, ORGANISATION, subject, body)


@router.get(
    "/projects/{project_id}/quota",
    summary="Read a project's quota",
    dependencies=[Depends(Requires(Permission.PROJECT_READ))],
    responses={**problems(*STORE_CODES, "project_not_found"), **_QUOTA},
)
def show_project_quota(request: Request, services: ApiServices, project_id: str) -> JsonAnswer:
    """The bounds, and what is taken of them; the organisation's hold besides."""
    authorize_project(request, project_id)
    return _quota(services, project_id)


@router.put(
    "/projects/{project_id}/quota",
    summary="Set a project's quota",
    dependencies=[Depends(Requires(Permission.QUOTA_MANAGE))],
    responses={**problems(*BODY_CODES, *STORE_CODES, "project_not_found"), **_QUOTA},
    openapi_extra=_BOUNDS,
)
def set_project_quota(
    request: Request, services: ApiServices, caller: Caller, project_id: str, body: Body
) -> JsonAnswer:
    """All three bounds. Jobs that run go on; those that wait are measured by the new ones."""
    authorize_project(request, project_id)
    return _set_quota(services, caller, project_id, body)


@router.get(
    "/organisation/quota",
    summary="Read the organisation's quota",
    dependencies=[Depends(Requires(Permission.PROJECT_READ, organisation=True))],
    responses={**problems(*STORE_CODES), **_QUOTA},
)
def show_organisation_quota(services: ApiServices) -> JsonAnswer:
    """The bounds of all projects together, and what is taken of them."""
    return _quota(services, ORGANISATION)


@router.put(
    "/organisation/quota",
    summary="Set the organisation's quota",
    dependencies=[Depends(Requires(Permission.QUOTA_MANAGE, organisation=True))],
    responses={**problems(*BODY_CODES, *STORE_CODES), **_QUOTA},
    openapi_extra=_BOUNDS,
)
def set_organisation_quota(services: ApiServices, caller: Caller, body: Body) -> JsonAnswer:
    """All three bounds of all projects together."""
    return _set_quota(services, caller, ORGANISATION, body)


def _members(services: Services, scope: str, cursor: str | None, limit: int) -> JsonAnswer:
    after = decode_cursor(cursor, NAME)
    with services.store.read() as conn:
        # Databases sort names each in their own way.
        rows = sorted(list_members(conn, scope), key=lambda member: member.subject)
    found = [member for member in rows if after is None or member.subject > after]
    now = services.clock()
    return JsonAnswer(page_view(found, limit, lambda one: one.subject, lambda one: member_view(one, now=now)))


def _grant(services: Services, caller: Principal, scope: str, subject: str, body: RawBody) -> JsonAnswer:
    asked = read_input(MemberRequest, body)
    permissions = permissions_named(asked.permissions)
    now = services.clock()
    end = asked.end(now=now)
    with administering(services.store) as conn:
        member = grant_role(
            conn, caller, scope, subject, Role(asked.role), permissions=permissions, expires_at=end, now=now
        )
    services.gate.cache.forget()
    return JsonAnswer(member_view(member, now=now))


def _revoke(services: Services, caller: Principal, scope: str, subject: str, body: RawBody) -> JsonAnswer:
    body.fields([])
    now = services.clock()
    with administering(services.store) as conn:
        had = find_member(conn, scope, subject)
        revoke_role(conn, caller, scope, subject, now=now)
    services.gate.cache.forget()
    assert had is not None, "else it would have been refused"
    return JsonAnswer(member_view(had, now=now))


def _quota(services: Services, scope: str) -> JsonAnswer:
    now = services.clock()
    project_id = None if scope == ORGANISATION else scope
    with services.store.read() as conn:
        times = gpu_time_since(conn, now - WEEK_S, project_id=project_id)
        return JsonAnswer(quota_view(scope, find_quota(conn, scope), times, now=now))


def _set_quota(services: Services, caller: Principal, scope: str, body: RawBody) -> JsonAnswer:
    asked = read_input(QuotaRequest, body)
    with administering(services.store) as conn:
        set_quota(
            conn,
            caller,
            scope,
            gpus_at_once=asked.gpus_at_once,
            jobs_at_once=asked.jobs_at_once,
            gpu_hours_per_week=asked.gpu_hours_per_week,
            now=services.clock(),
        )
    return _quota(services, scope)
