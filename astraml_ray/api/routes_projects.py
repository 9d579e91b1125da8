"""Routes of projects: list, make, look, archive, open again."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from sqlalchemy import Connection

from astraml_ray.access.administration import archive_project, create_project
from astraml_ray.access.denials import ProjectNotFoundError
from astraml_ray.access.permissions import Permission
from astraml_ray.access.quotas import WEEK_S
from astraml_ray.api.answers import JsonAnswer
from astraml_ray.api.openapi import BODY_CODES, STORE_CODES, body_of, problems
from astraml_ray.api.parameters import decode_cursor
from astraml_ray.api.requests import Body
from astraml_ray.api.schemas_access import Project, ProjectPage, ProjectRequest, read_input
from astraml_ray.api.services import ApiServices, Caller, Requires, Services, authorize_project
from astraml_ray.api.views_access import NAME, page_view, project_page_view, project_view
from astraml_ray.store.access import gpu_time_since
from astraml_ray.store.administration import administering
from astraml_ray.store.projects import find_project, find_quota, list_projects

__all__ = ["Cursor", "PageSize", "router"]

router = APIRouter(prefix="/v2.1", tags=["projects"])

Cursor = Annotated[str | None, Query(description="next_cursor of the page before")]
PageSize = Annotated[int, Query(ge=1, le=200)]
_PROJECT_CODES = ("project_not_found", *STORE_CODES)


@router.get(
    "/projects",
    summary="List projects",
    dependencies=[Depends(Requires(Permission.PROJECT_READ))],
    responses={**problems(*STORE_CODES), 200: {"model": ProjectPage}},
)
def list_own_projects(services: ApiServices, caller: Caller, cursor: Cursor = None, limit: PageSize = 50) -> JsonAnswer:
    """A page of the projects that the caller may see, by id, with the caller's role in each."""
    with services.store.read() as conn:
        found = list_projects(
            conn,
            ids=caller.projects_with(Permission.PROJECT_READ),
            after_id=decode_cursor(cursor, NAME),
            limit=limit + 1,
        )
    return JsonAnswer(page_view(found, limit, lambda one: one.id, lambda one: project_page_view(one, caller)))


@router.post(
    "/projects",
    status_code=201,
    summary="Make a project",
    dependencies=[Depends(Requires(Permission.PROJECT_CREATE, organisation=True))],
    responses={
        **problems(*BODY_CODES, *STORE_CODES, "already_exists"),
        201: {
            "model": Project,
            "description": "It is there",
            "headers": {"Location": {"description": "The project", "schema": {"type": "string"}}},
        },
    },
    openapi_extra={"requestBody": body_of("ProjectRequest", required=True)},
)
def make_project(services: ApiServices, caller: Caller, body: Body) -> JsonAnswer:
    """A project without members, policies and quota: org_admins can do everything there, and others nothing yet."""
    asked = read_input(ProjectRequest, body)
    now = services.clock()
    with administering(services.store) as conn:
        made = create_project(conn, caller, asked.id, title=asked.title, now=now)
    view = project_view(made, caller, None, (), now=now)
    return JsonAnswer(view, status_code=201, headers={"Location": f"/v2.1/projects/{made.id}"})


@router.get(
    "/projects/{project_id}",
    summary="Look at a project",
    dependencies=[Depends(Requires(Permission.PROJECT_READ))],
    responses={**problems(*_PROJECT_CODES), 200: {"model": Project}},
)
def show_project(request: Request, services: ApiServices, caller: Caller, project_id: str) -> JsonAnswer:
    """The project, what the caller may do there, and its quota with what is taken of it."""
    authorize_project(request, project_id)
    with services.store.read() as conn:
        return JsonAnswer(_view(conn, services, caller, project_id))


@router.post(
    "/projects/{project_id}/archive",
    summary="Archive a project",
    dependencies=[Depends(Requires(Permission.PROJECT_CREATE))],
    responses={**problems(*BODY_CODES, *_PROJECT_CODES), 200: {"model": Project}},
)
def close_project(request: Request, services: ApiServices, caller: Caller, project_id: str, body: Body) -> JsonAnswer:
    """It takes no more jobs; what is there stays readable, and what runs runs on. It may be repeated."""
    return _archive(request, services, caller, project_id, body, archived=True)


@router.post(
    "/projects/{project_id}/reopen",
    summary="Open an archived project again",
    dependencies=[Depends(Requires(Permission.PROJECT_CREATE))],
    responses={**problems(*BODY_CODES, *_PROJECT_CODES), 200: {"model": Project}},
)
def reopen_project(request: Request, services: ApiServices, caller: Caller, project_id: str, body: Body) -> JsonAnswer:
    """It takes jobs again. It may be repeated."""
    return _archive(request, services, caller, project_id, body, archived=False)


def _archive(
    request: Request, services: Services, caller: Caller, project_id: str, body: Body, *, archived: bool
) -> JsonAnswer:
    authorize_project(request, project_id)
    body.fields([])
    with administering(services.store) as conn:
        archive_project(conn, caller, project_id, archived=archived, now=services.clock())
        return JsonAnswer(_view(conn, services, caller, project_id))


def _view(conn: Connection, services: Services, caller: Caller, project_id: str) -> dict[str, Any]:
    project = find_project(conn, project_id)
    if project is None:
        raise ProjectNotFoundError(project_id)
    now = services.clock()
    times = gpu_time_since(conn, now - WEEK_S, project_id=project_id)
    return project_view(project, caller, find_quota(conn, project_id), times, now=now)
