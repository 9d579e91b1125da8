"""Routes of policies, of a project and of the organisation alike, and of where a job's fields are from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request

from astraml_ray.access.denials import NotThereError, PolicyInvalidError
from astraml_ray.access.effective import InForce
from astraml_ray.access.permissions import Permission
from astraml_ray.access.policies import Policy, diff
from astraml_ray.access.policy_versions import read_policy, restore_policy, write_policy
from astraml_ray.api.answers import JsonAnswer
from astraml_ray.api.errors import OverloadedError
from astraml_ray.api.openapi import BODY_CODES, JOB_CODES, STORE_CODES, body_of, problems
from astraml_ray.api.parameters import decode_cursor
from astraml_ray.api.replays import replay_last
from astraml_ray.api.requests import Body, known_job
from astraml_ray.api.schemas import Shape
from astraml_ray.api.schemas_access import read_input
from astraml_ray.api.schemas_policies import (
    PolicyDiff,
    PolicyObject,
    PolicyPage,
    PolicyReplay,
    PolicyRequest,
    Provenance,
    ReplayRequest,
    RestoreRequest,
)
from astraml_ray.api.services import ApiServices, Caller, Requires, Services, authorize_project, caller_of
from astraml_ray.api.views_access import NUMBER, page_view
from astraml_ray.api.views_policies import change_view, no_policy_view, policy_view, provenance_view, replay_view
from astraml_ray.store.access import find_origin
from astraml_ray.store.access_tables import ORGANISATION
from astraml_ray.store.policies import PolicyRecord, find_policy, list_policies, newest_policy

__all__ = ["router"]

router = APIRouter(prefix="/v2.1", tags=["policies"])

_PLACES = {"project": "/projects/{project_id}/policy", "organisation": "/organisation/policy"}
_PROJECT = {"name": "project_id", "in": "path", "required": True, "schema": {"type": "string"}}
_CHANGE_CODES = (*BODY_CODES, "inline_secret", "policy_invalid")
_NEWEST = 2**31 - 1
Version = Annotated[int, Path(ge=0, le=_NEWEST)]

_Route = Callable[..., JsonAnswer]


def _scope_of(request: Request) -> str:
    """Whose policy a path is about, if the caller may do there what the route asks for."""
    project_id = request.path_params.get("project_id")
    if project_id is not None:
        authorize_project(request, project_id)
        return str(project_id)
    caller, asked = caller_of(request), request.state.permission
    # The organisation's holds in every project, and so whoever reads one project's reads it too.
    if asked is not Permission.POLICY_READ or caller.projects_with(asked) == frozenset():
        caller.require(asked, None)
    return ORGANISATION


Scope = Annotated[str, Depends(_scope_of)]


def _both(
    method: str, path: str, permission: Permission, summary: str, model: type[Shape], *codes: str, body: str = ""
) -> Callable[[_Route], _Route]:
    """The same route for projects and for the organisation."""

    def add(route: _Route) -> _Route:
        for place, prefix in _PLACES.items():
            of_project = place == "project"
            known = (*codes, *STORE_CODES, *(("project_not_found",) if of_project else ()))
            extra: dict[str, Any] = {"parameters": [_PROJECT]} if of_project else {}
            if body:
                extra["requestBody"] = body_of(body, required=True, yaml=True)
            router.add_api_route(
                prefix + path,
                route,
                methods=[method],
                name=f"{route.__name__}_of_{place}",
                summary=f"{summary} of {'a project' if of_project else 'the organisation'}",
                dependencies=[Depends(Requires(permission))],
                responses={**problems(*known), 200: {"model": model}},
                openapi_extra=extra,
            )
        return route

    return add


@_both("GET", "", Permission.POLICY_READ, "Read the policy", PolicyObject)
def show_policy(services: ApiServices, scope: Scope) -> JsonAnswer:
    """The version in force; version 0, without rules, where none was ever written."""
    with services.store.read() as conn:
        policy = newest_policy(conn, scope)
    return JsonAnswer(policy_view(policy) if policy else no_policy_view(scope))


@_both(
    "PUT", "", Permission.POLICY_MANAGE, "Change the policy", PolicyObject, *_CHANGE_CODES, "policy_changed",
    body="PolicyRequest",
)  # fmt: skip
def set_policy(services: ApiServices, caller: Caller, scope: Scope, body: Body) -> JsonAnswer:
    """Puts a new version in force. Jobs that are there keep theirs."""
    asked = read_input(PolicyRequest, body)
    _policy_of(asked.document)
    with services.store.write() as conn:
        policy = write_policy(
            conn, caller, scope, asked.document, expected=asked.expected, note=asked.note, now=services.clock()
        )
    return JsonAnswer(policy_view(policy))


@_both("GET", "/versions", Permission.POLICY_READ, "List the versions of the policy", PolicyPage)
def list_policy_versions(
    services: ApiServices,
    scope: Scope,
    cursor: Annotated[str | None, Query(description="next_cursor of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> JsonAnswer:
    """A page of versions, newest first, without their rules."""
    before = decode_cursor(cursor, NUMBER)
    with services.store.read() as conn:
        found = list_policies(conn, scope, before=int(before) if before else None, limit=limit + 1)
    return JsonAnswer(
        page_view(found, limit, lambda one: str(one.version), lambda one: policy_view(one, with_document=False))
    )


@_both("GET", "/versions/{version}", Permission.POLICY_READ, "Read a version of the policy", PolicyObject, "not_found")
def show_policy_version(services: ApiServices, scope: Scope, version: Version) -> JsonAnswer:
    """That version; 0 is before there was any."""
    policy = _version(services, scope, version, "version")
    return JsonAnswer(policy_view(policy) if policy else no_policy_view(scope))


@_both(
    "GET", "/diff", Permission.POLICY_READ, "Compare two versions of the policy", PolicyDiff,
    "not_found", "policy_unreadable",
)  # fmt: skip
def compare_policies(
    services: ApiServices,
    scope: Scope,
    from_: Annotated[int | None, Query(alias="from", ge=0, le=_NEWEST, description="Left out: the one before")] = None,
    to: Annotated[int | None, Query(ge=0, le=_NEWEST, description="Left out: the newest")] = None,
) -> JsonAnswer:
    """What one version says differently from another, verb by verb; 0 is before there was any."""
    if to is None:
        with services.store.read() as conn:
            newest = newest_policy(conn, scope)
        to = newest.version if newest else 0
    if from_ is None:
        from_ = max(0, to - 1)
    both = (_version(services, scope, number, name) for number, name in ((from_, "from"), (to, "to")))
    before, after = (given.policy if (given := InForce.of(policy)) else None for policy in both)
    changes = [change_view(change) for change in diff(before, after)]
    return JsonAnswer({"from": from_, "to": to, "changes": changes})


@_both(
    "POST", "/restore", Permission.POLICY_MANAGE, "Bring back a version of the policy", PolicyObject,
    *_CHANGE_CODES, "not_found", "policy_changed",
    body="RestoreRequest",
)  # fmt: skip
def bring_back_policy(services: ApiServices, caller: Caller, scope: Scope, body: Body) -> JsonAnswer:
    """Puts an earlier version in force again, as a new one."""
    asked = read_input(RestoreRequest, body)
    with services.store.write() as conn:
        policy = restore_policy(
            conn, caller, scope, asked.version, expected=asked.expected, note=asked.note, now=services.clock()
        )
    return JsonAnswer(policy_view(policy))


@_both(
    "POST", "/replay", Permission.POLICY_MANAGE, "Try a change of the policy", PolicyReplay,
    *_CHANGE_CODES, "policy_unreadable",
    body="ReplayRequest",
)  # fmt: skip
def replay_policy(services: ApiServices, scope: Scope, body: Body) -> JsonAnswer:
    """What these rules would have changed or rejected among the last jobs. Changes nothing."""
    asked = read_input(ReplayRequest, body)
    policy = _policy_of(asked.document)
    # Milliseconds of computing for each job, which other requests would feel if many did so at once.
    if not services.validations.acquire(blocking=False):
        raise OverloadedError(f"{services.limits.max_validations} dry runs are under way in this process")
    try:
        return JsonAnswer(replay_view(replay_last(services.store, scope, policy, last=asked.last)))
    finally:
        services.validations.release()


@router.get(
    "/jobs/{job_id}/provenance",
    summary="See where a job's fields are from",
    dependencies=[Depends(Requires(Permission.POLICY_READ))],
    responses={**problems(*JOB_CODES), 200: {"model": Provenance}},
)
def show_provenance(request: Request, services: ApiServices, job_id: str) -> JsonAnswer:
    """The request as it was sent, what moved on the way to this version, and who set which field."""
    job = known_job(request, services, job_id)
    with services.store.read() as conn:
        origin = find_origin(conn, job_id)
    return JsonAnswer(provenance_view(job, origin))


def _policy_of(document: dict[str, Any]) -> Policy:
    """The policy in a body, whose problems are those of the body."""
    try:
        return read_policy(document)
    except PolicyInvalidError as error:
        raise PolicyInvalidError([replace(one, param=f"/document{one.param}") for one in error.problems]) from None


def _version(services: Services, scope: str, version: int, param: str) -> PolicyRecord | None:
    """A version; None is version 0, which says nothing."""
    if version == 0:
        return None
    with services.store.read() as conn:
        policy = find_policy(conn, scope, version)
    if policy is None:
        raise NotThereError(f"there is no version {version} of that policy", param=param)
    return policy
