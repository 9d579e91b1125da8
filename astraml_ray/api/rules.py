"""From what was asked for to what will run: the project, its policies and quotas, and what a job may name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import Request

from astraml_ray.access.denials import ProjectNotFoundError
from astraml_ray.access.effective import Outcome
from astraml_ray.access.permissions import Permission
from astraml_ray.access.resolution import resolve_document
from astraml_ray.access.tokens import Principal
from astraml_ray.access.vault import needs_secret_use
from astraml_ray.api.services import Services, authorize_project, caller_of
from astraml_ray.errors import Problem, SpecError
from astraml_ray.spec import JobSpec
from astraml_ray.spec.loading import parse_spec
from astraml_ray.spec.templates import fill_templates
from astraml_ray.store.policies import policies_in_force

__all__ = ["authorize_submission", "project_of", "resolve"]


def project_of(document: Mapping[str, Any]) -> str:
    """The project that a spec is for.

    Raises:
        SpecError: It is no name; with whatever else is wrong.
    """
    project_id = document.get("project_id", JobSpec.model_fields["project_id"].default)
    if isinstance(project_id, str):
        return project_id
    parse_spec(document)
    raise SpecError([Problem("/project_id", "is no name of a project")])


def authorize_submission(request: Request, project_id: str) -> None:
    """Asks for the route's permission in the project that a job is for.

    Whoever may make projects need not make this one first: it is made with its first job.

    Raises:
        ProjectNotFoundError: There is none, or the caller is no member.
        PermissionDeniedError: The caller's role lacks it.
    """
    try:
        authorize_project(request, project_id)
    except ProjectNotFoundError:
        caller = caller_of(request)
        if not caller.may(Permission.PROJECT_CREATE, None) or not caller.may(request.state.permission, None):
            raise


def resolve(
    services: Services, principal: Principal, project_id: str, document: Mapping[str, Any], *, within: str = ""
) -> Outcome:
    """The job that a request stands for under the policies in force, if it may be made.

    Args:
        services: The app's.
        principal: Who asks.
        project_id: Whose rules hold.
        document: The request.
        within: Of the limits, only those of fields below it are kept: a JSON pointer; "" is all of them.

    Raises:
        SpecError: What comes out is no valid job.
        PolicyViolationError: It breaks a limit.
        PolicyUnreadableError: A newer release wrote a policy.
        TargetNotAllowedError: It leads to an address that must not be called.
        PermissionDeniedError: It names a secret, and the caller may not.
        StoreError: The database failed.
    """
    with services.store.read() as conn:
        policies = policies_in_force(conn, project_id)
    asked = _with_time(document, services.clock())
    outcome = resolve_document(asked, policies, principal=principal, targets=services.targets, within=within)
    if needs_secret_use(outcome.provenance):
        services.gate.require(principal, Permission.SECRET_USE, project_id)
    return outcome


def _with_time(document: Mapping[str, Any], now: float) -> Mapping[str, Any]:
    """What is asked for as an occurrence of this moment, if it has a schedule."""
    return fill_templates(document, now) if isinstance(document.get("schedule"), Mapping) else document
