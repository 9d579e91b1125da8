"""From what was asked for to what will run, for whoever makes jobs: policies, addresses, secrets, quotas."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from astraml_ray.access.administration import create_project, require_open
from astraml_ray.access.denials import AlreadyThereError, TargetNotAllowedError
from astraml_ray.access.effective import InForce, Outcome, apply_policies
from astraml_ray.access.machine_files import guard_files
from astraml_ray.access.measures import gpus_of
from astraml_ray.access.permissions import Permission
from astraml_ray.access.quotas import Quota, Usage, decide_all, require_submit
from astraml_ray.access.sweeps import sweep_problems
from astraml_ray.access.targets import AllowedTargets, guard_document, remembering, resolve_name
from astraml_ray.access.tokens import Principal, principal_of
from astraml_ray.access.vault import require_secrets
from astraml_ray.errors import Problem
from astraml_ray.store.access_tables import ORGANISATION
from astraml_ray.store.policies import PolicyRecord
from astraml_ray.store.projects import find_project, find_quota, memberships_of
from astraml_ray.store.tokens import find_token

__all__ = ["Policies", "check_in_transaction", "owner_of", "resolve_document"]

Policies = tuple[PolicyRecord | None, PolicyRecord | None]
"""Those in force: the organisation's, and the project's."""


def resolve_document(
    document: Mapping[str, Any],
    policies: Policies,
    *,
    principal: Principal,
    targets: AllowedTargets,
    within: str = "",
) -> Outcome:
    """The job that a request stands for under policies, if it may be made. Looks up names of hosts.

    Args:
        document: The request.
        policies: Those in force.
        principal: Whose job it is; an org_admin's may read this machine's files.
        targets: Addresses that it may name besides public ones.
        within: Of the limits, only those of fields below it are kept: a JSON pointer; "" is all of them.

    Raises:
        SpecError: What comes out is no valid job.
        PolicyViolationError: It breaks a limit.
        PolicyUnreadableError: A newer release wrote a policy.
        TargetNotAllowedError: It leads to an address or a file that is not for it.
    """
    resolve = remembering(resolve_name)
    organisation, project = (InForce.of(policy) for policy in policies)
    outcome = apply_policies(document, organisation=organisation, project=project)
    outcome.raise_for_violations(within)

    def forbidden(made: Mapping[str, Any]) -> list[Problem]:
        files = [] if principal.may(Permission.PROJECT_CREATE, None) else guard_files(made, allowed=targets)
        return [*guard_document(made, allowed=targets, resolve=resolve), *files]

    problems = forbidden(outcome.document)
    if outcome.spec.sweep is not None and not problems:
        base = {key: value for key, value in document.items() if key != "sweep"}

        def rules(values: Mapping[str, Any]) -> tuple[Outcome, list[Problem]]:
            trial = apply_policies(base, organisation=organisation, project=project, sweep=values)
            return trial, forbidden(trial.document)

        breaches, problems = sweep_problems(outcome.spec.sweep, rules)
        replace(outcome, problems=breaches).raise_for_violations(within)
    if problems:
        raise TargetNotAllowedError(problems)
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


def owner_of(conn: Connection, subject: str, token_id: str | None, *, now: float) -> Principal:
    """Whom something was made by, with the rights that they have now: those that the token then used could give.

    A personal token that has ended counts as it did: its subject is there all the same. A service is nothing without
    its token.
    """
    nobody = Principal(token_id or "", subject)
    token = None if token_id is None else find_token(conn, token_id)
    if token is None:
        return nobody
    if token.kind == "personal":
        return principal_of(token, memberships_of(conn, subject, now=now))
    ended = token.revoked_at is not None or (token.expires_at is not None and token.expires_at <= now)
    return nobody if ended else principal_of(token, [])
