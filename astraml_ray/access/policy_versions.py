"""Putting policies in force, and earlier ones in force again. Every version stays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from astraml_ray.access.administration import require_scope
from astraml_ray.access.denials import InlineSecretError, NotThereError, PolicyChangedError
from astraml_ray.access.fields import assign, field_of
from astraml_ray.access.inline_secrets import find_inline_secrets
from astraml_ray.access.permissions import Permission
from astraml_ray.access.policies import Policy, parse_policy
from astraml_ray.access.tokens import Principal
from astraml_ray.store import policies as rows
from astraml_ray.store.plain import plain_text
from astraml_ray.store.policies import PolicyRecord

__all__ = ["read_policy", "restore_policy", "write_policy"]


def write_policy(
    conn: Connection,
    principal: Principal,
    scope: str,
    document: Mapping[str, Any],
    *,
    expected: int | None = None,
    note: str | None = None,
    now: float,
) -> PolicyRecord:
    """Puts a policy in force as a new version. Jobs that are there keep theirs.

    Args:
        conn: A transaction that writes.
        principal: Who.
        scope: Whose.
        document: The policy.
        expected: The version it was made from (0: none); None does not ask.
        note: Why.
        now: Seconds since the epoch.

    Raises:
        PermissionDeniedError: The caller may not.
        ProjectNotFoundError: There is no such project.
        PolicyInvalidError: It does not fit the fields of a job.
        InlineSecretError: It sets a secret as a literal.
        PolicyChangedError: There is another version by now.
    """
    require_scope(conn, principal, Permission.POLICY_MANAGE, scope)
    policy = read_policy(document)
    return _add_policy(conn, principal, scope, policy.document(), expected=expected, note=note, now=now)


def read_policy(document: Mapping[str, Any]) -> Policy:
    """A policy that may be put in force.

    Raises:
        PolicyInvalidError: It does not fit the fields of a job.
        InlineSecretError: It sets a secret as a literal.
    """
    policy = parse_policy(document)
    _refuse_secrets(policy)
    return policy


def restore_policy(
    conn: Connection,
    principal: Principal,
    scope: str,
    version: int,
    *,
    expected: int | None = None,
    note: str | None = None,
    now: float,
) -> PolicyRecord:
    """Puts an earlier version in force again, as a new one.

    Raises:
        PermissionDeniedError: The caller may not.
        ProjectNotFoundError: There is no such project.
        NotThereError: There is no such version.
        PolicyChangedError: There is another version by now.
        PolicyInvalidError: It no longer fits the fields of a job.
    """
    require_scope(conn, principal, Permission.POLICY_MANAGE, scope)
    old = rows.find_policy(conn, scope, version)
    if old is None:
        raise NotThereError(f"there is no version {version} of that policy", param="/version")
    document = parse_policy(old.document).document()
    note = note or f"back to v{version}"
    return _add_policy(conn, principal, scope, document, expected=expected, note=note, restored_from=version, now=now)


def _refuse_secrets(policy: Policy) -> None:
    """What a policy sets, everyone in the project can read."""
    problems = []
    for path, rule in policy.rules.items():
        for verb in ("default", "force"):
            if rule.sets(verb):
                job: dict[str, Any] = {}
                assign(job, field_of(path).parts, getattr(rule, verb))
                problems += find_inline_secrets(job)
    if problems:
        raise InlineSecretError(problems)


def _add_policy(
    conn: Connection,
    principal: Principal,
    scope: str,
    document: Mapping[str, Any],
    *,
    expected: int | None,
    note: str | None,
    restored_from: int | None = None,
    now: float,
) -> PolicyRecord:
    record = rows.add_policy(
        conn,
        scope,
        document,
        expected=expected,
        note=plain_text(note)[:500] if note else None,
        restored_from=restored_from,
        actor=principal.actor,
        now=now,
    )
    if record is None:
        hint = "read it again, and make the change from there"
        raise PolicyChangedError("someone changed the policy meanwhile", param="/expected", hint=hint)
    return record
