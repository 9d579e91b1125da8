"""From what was asked for to what will run: the project, its policies and quotas, and what a job may name."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from fastapi import Request
from sqlalchemy import Connection

from astraml_ray.access.administration import create_project, require_open
from astraml_ray.access.denials import AlreadyThereError, ProjectNotFoundError, TargetNotAllowedError
from astraml_ray.access.effective import InForce, Outcome, apply_policies
from astraml_ray.access.measures import gpus_of
from astraml_ray.access.permissions import Permission
from astraml_ray.access.quotas import Quota, Usage, decide_all, require_submit
from astraml_ray.access.targets import guard_document
from astraml_ray.access.tokens import Principal
from astraml_ray.access.vault import needs_secret_use, require_secrets
from astraml_ray.api.services import Services, authorize_project, caller_of
from astraml_ray.errors import Problem, SpecError
from astraml_ray.spec import JobSpec
from astraml_ray.spec.loading import parse_spec
from astraml_ray.store.access_tables import ORGANISATION
from astraml_ray.store.policies import policies_in_force
from astraml_ray.store.projects import find_project, find_quota

__all__ = ["authorize_submission", "check_in_transaction", "project_of", "resolve"]


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
        organisation, project = policies_in_force(conn, project_id)
    outcome = apply_policies(document, organisation=InForce.of(organisation), project=InForce.of(project))
    outcome.raise_for_violations(within)
    problems = guard_document(outcome.document, allowed=services.targets)
    if problems:
        raise TargetNotAllowedError(problems)
    if needs_secret_use(outcome.provenance):
        services.gate.require(principal, Permission.SECRET_USE, project_id)
    return outcome


def check_in_transaction(conn: Connection, principal: Principal, outcome: Outcome, *, now: float) -> None:
    """What must hold when the job is made: its project is open, its secrets are there, and its quota is large enough.

    Raises:
        ProjectNotFoundError: There is no such project, and the caller may make none.
        ProjectArchivedError: The project takes no jobs.
        SecretNotFoundError: A secret is not there.
        QuotaExceededError: The job could never start.
    """
    project_id = outcome.spec.project_id
    if find_project(conn, project_id) is None and principal.may(Permission.PROJECT_CREATE, None):
        with suppress(AlreadyThereError):  # made by another request meanwhile
            create_project(conn, principal, project_id, now=now)
    require_open(conn, project_id)
    require_secrets(conn, project_id, outcome.document)
    quotas = [Quota.of(find_quota(conn, scope)) for scope in (project_id, ORGANISATION)]
    # A quota that is taken for now is the queue's to wait for.
    verdict = decide_all([(quota, Usage()) for quota in quotas], gpus=gpus_of(outcome.document), now=now)
    require_submit(verdict, now=now)
