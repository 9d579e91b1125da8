"""Changes to projects, members and quotas: who may make them is checked, and each leaves its audit row.

Nobody gives away what they do not have: a role, permission or token is at most what its giver may do there. Every
function takes a transaction that writes; a `scope` is a project's id or ORGANISATION.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from sqlalchemy import Connection

from astraml_ray.access.denials import (
    AlreadyThereError,
    LastAdminError,
    MalformedError,
    NotThereError,
    PermissionDeniedError,
    ProjectArchivedError,
    ProjectNotFoundError,
)
from astraml_ray.access.permissions import SINGLY, Permission, Role, permissions_of
from astraml_ray.access.tokens import Principal
from astraml_ray.store import projects as rows
from astraml_ray.store.access_tables import ORGANISATION
from astraml_ray.store.plain import plain_text
from astraml_ray.store.projects import MemberRecord, ProjectRecord, QuotaRecord

__all__ = [
    "archive_project",
    "check_giving",
    "check_subject",
    "create_project",
    "grant_role",
    "place_of",
    "require_open",
    "require_scope",
    "revoke_role",
    "set_quota",
]

_PROJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SUBJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}")


def create_project(
    conn: Connection, principal: Principal, project_id: str, *, title: str | None = None, now: float
) -> ProjectRecord:
    """A new project.

    Raises:
        PermissionDeniedError: The caller may make none.
        MalformedError: The id is malformed.
        AlreadyThereError: It is taken.
    """
    principal.require(Permission.PROJECT_CREATE, None)
    if not _PROJECT.fullmatch(project_id):
        hint = "letters, digits, `.`, `_` and `-`, at most 128, beginning with a letter or digit"
        raise MalformedError("this is no id of a project", param="/id", hint=hint)
    clean = plain_text(title)[:500] if title else None
    project = rows.create_project(conn, project_id, title=clean, actor=principal.actor, now=now)
    if project is None:
        raise AlreadyThereError(f"there is a project {project_id!r} already", param="/id")
    return project


def archive_project(
    conn: Connection, principal: Principal, project_id: str, *, archived: bool = True, now: float
) -> None:
    """Closes a project for new jobs, or opens it again.

    Raises:
        PermissionDeniedError: The caller may not.
        ProjectNotFoundError: There is none.
    """
    principal.require(Permission.PROJECT_CREATE, None)
    if not rows.archive_project(conn, project_id, archived=archived, actor=principal.actor, now=now):
        raise ProjectNotFoundError(project_id)


def require_open(conn: Connection, project_id: str) -> ProjectRecord:
    """The project, if it takes jobs.

    Raises:
        ProjectNotFoundError: There is none.
        ProjectArchivedError: It is archived.
    """
    project = rows.find_project(conn, project_id)
    if project is None:
        raise ProjectNotFoundError(project_id)
    if project.archived_at is not None:
        raise ProjectArchivedError(f"project {project_id!r} is archived and takes no jobs", param="/project_id")
    return project


def grant_role(
    conn: Connection,
    principal: Principal,
    scope: str,
    subject: str,
    role: Role,
    *,
    permissions: Collection[Permission] = (),
    expires_at: float | None = None,
    now: float,
) -> MemberRecord:
    """Gives someone a role, in place of the one they have, and permissions besides.

    Raises:
        PermissionDeniedError: The caller may give none, or not that one.
        ProjectNotFoundError: There is no such project.
        MalformedError: The name is malformed, or the role or a permission is not given like that.
    """
    place = require_scope(conn, principal, Permission.MEMBER_MANAGE, scope)
    check_subject(subject)
    if place is not None and role is Role.ORG_ADMIN:
        raise MalformedError("org_admin is a role in the organisation, not in a project", param="/role")
    odd = sorted(permission.value for permission in set(permissions) - SINGLY)
    if odd:
        hint = f"these are: {', '.join(sorted(p.value for p in SINGLY))}"
        raise MalformedError(f"{', '.join(odd)} cannot be given one by one", param="/permissions", hint=hint)
    check_giving(principal, permissions_of(role) | frozenset(permissions), place)
    _check_taking(conn, principal, scope, subject)
    if role is not Role.ORG_ADMIN or expires_at is not None:
        _keep_an_admin(conn, scope, subject, now)
    _check_future(expires_at, now)
    names = [permission.value for permission in permissions]
    return rows.set_member(
        conn, scope, subject, role.value, permissions=names, expires_at=expires_at, actor=principal.actor, now=now
    )


def revoke_role(conn: Connection, principal: Principal, scope: str, subject: str, *, now: float) -> None:
    """Takes someone's role; their tokens then give nothing there.

    Raises:
        PermissionDeniedError: The caller may not, or the other may do more there than the caller.
        ProjectNotFoundError: There is no such project.
        NotThereError: They have no role there.
        LastAdminError: The organisation would have no admin left.
    """
    require_scope(conn, principal, Permission.MEMBER_MANAGE, scope)
    _check_taking(conn, principal, scope, subject)
    _keep_an_admin(conn, scope, subject, now)
    if not rows.remove_member(conn, scope, subject, actor=principal.actor, now=now):
        raise NotThereError(f"{subject!r} has no role there", param="/subject")


def set_quota(
    conn: Connection,
    principal: Principal,
    scope: str,
    *,
    gpus_at_once: int | None,
    jobs_at_once: int | None,
    gpu_hours_per_week: float | None,
    now: float,
) -> QuotaRecord:
    """Sets all three bounds of a scope; None takes a bound away.

    Raises:
        PermissionDeniedError: The caller may not.
        ProjectNotFoundError: There is no such project.
        MalformedError: A bound is below zero, or no number.
    """
    require_scope(conn, principal, Permission.QUOTA_MANAGE, scope)
    bounds = {
        "gpus_at_once": gpus_at_once,
        "jobs_at_once": jobs_at_once,
        "gpu_hours_per_week": gpu_hours_per_week,
    }
    for name, bound in bounds.items():
        if bound is not None and not 0 <= bound <= 1_000_000_000:
            raise MalformedError("must be zero or above", param=f"/{name}")
    return rows.set_quota(
        conn,
        scope,
        gpus_at_once=gpus_at_once,
        jobs_at_once=jobs_at_once,
        gpu_hours_per_week=gpu_hours_per_week,
        actor=principal.actor,
        now=now,
    )


def check_giving(principal: Principal, given: frozenset[Permission], place: str | None) -> None:
    """Does nothing if the caller has whatever is given.

    Raises:
        PermissionDeniedError: Something is more than they have.
    """
    for permission in Permission:
        if permission in given and not principal.may(permission, place):
            message = f"you cannot give {permission.value}, which you do not have yourself"
            raise PermissionDeniedError(permission, place, message=message)


def check_subject(subject: str) -> None:
    """Does nothing for the name of a person or service.

    Raises:
        MalformedError: It is malformed.
    """
    if not _SUBJECT.fullmatch(subject):
        hint = "letters, digits, `.`, `_`, `@`, `+` and `-`, at most 100, beginning with a letter or digit"
        raise MalformedError("this is no name of a person or service", param="/subject", hint=hint)


def place_of(scope: str) -> str | None:
    """The scope as a Principal is asked about it."""
    return None if scope == ORGANISATION else scope


def require_scope(conn: Connection, principal: Principal, permission: Permission, scope: str) -> str | None:
    """The scope as a Principal is asked about it, if the caller may do something there.

    Raises:
        ProjectNotFoundError: There is no such project, or the caller is no member.
        PermissionDeniedError: The role lacks the permission.
    """
    place = place_of(scope)
    if place is not None and rows.find_project(conn, place) is None:
        raise ProjectNotFoundError(place)
    principal.require(permission, place)
    return place


def _check_taking(conn: Connection, principal: Principal, scope: str, subject: str) -> None:
    """Nobody takes from someone who may do more there."""
    known = rows.find_member(conn, scope, subject)
    if known is not None and known.role in {role.value for role in Role}:
        check_giving(principal, permissions_of(Role(known.role)), place_of(scope))


def _keep_an_admin(conn: Connection, scope: str, subject: str, now: float) -> None:
    if scope != ORGANISATION:
        return
    admins = {m.subject for m in rows.list_members(conn, scope) if m.role == Role.ORG_ADMIN.value and _lasts(m, now)}
    if admins == {subject}:
        hint = "make someone else org_admin first"
        raise LastAdminError("the organisation would have no admin left", param="/subject", hint=hint)


def _lasts(member: MemberRecord, now: float) -> bool:
    return member.expires_at is None or member.expires_at > now


def _check_future(expires_at: float | None, now: float) -> None:
    if expires_at is not None and not now < expires_at < 1e11:
        raise MalformedError("must be in the future", param="/expires_at")
