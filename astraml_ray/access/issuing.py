"""Making and revoking tokens, and the first one of an installation."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from pathlib import Path

from sqlalchemy import Connection

from astraml_ray.access.administration import check_giving, check_subject
from astraml_ray.access.denials import (
    MalformedError,
    NotThereError,
    PermissionDeniedError,
    ProjectNotFoundError,
    UnauthenticatedError,
)
from astraml_ray.access.permissions import Permission, Role, permissions_of
from astraml_ray.access.tokens import Principal, check_token, digest_of, id_of, make_token, principal_of
from astraml_ray.errors import StorageError
from astraml_ray.store import tokens as rows
from astraml_ray.store.access import load_access
from astraml_ray.store.access_tables import ORGANISATION
from astraml_ray.store.audit import Actor
from astraml_ray.store.engine import Store
from astraml_ray.store.plain import plain_text
from astraml_ray.store.projects import find_project, set_member
from astraml_ray.store.tokens import TokenRecord

__all__ = ["ensure_admin_token", "issue_personal_token", "issue_service_token", "revoke_token", "visible_token"]


def issue_personal_token(
    conn: Connection,
    principal: Principal,
    subject: str,
    *,
    project_id: str | None = None,
    permissions: Collection[Permission] | None = None,
    expires_at: float | None = None,
    note: str | None = None,
    now: float,
) -> tuple[str, TokenRecord]:
    """A token with the roles of a person: anyone makes their own, org_admin also others'.

    Args:
        conn: A transaction that writes.
        principal: Who makes it.
        subject: Whose it is.
        project_id: The only project where it counts; None is everywhere.
        permissions: The only ones it has; None is all of the person's roles.
        expires_at: Its end; None is that of the token it is made with, if that has one.
        note: For people.
        now: Seconds since the epoch.

    Returns:
        The token, which is never seen again, and its row.

    Raises:
        PermissionDeniedError: It would be another's, or could do more than the token it is made with.
        MalformedError: The name or the end is malformed.
        ProjectNotFoundError: There is no such project.
    """
    check_subject(subject)
    if subject != principal.subject:
        principal.require(Permission.TOKEN_MANAGE, None)
        check_giving(principal, frozenset(Permission if permissions is None else permissions), None)
    if principal.bound not in (None, project_id):
        raise PermissionDeniedError(Permission.TOKEN_MANAGE, None, message="this token counts in one project only")
    _check_project(conn, principal, project_id)
    if principal.scopes is not None:
        beyond = frozenset(Permission) if permissions is None else frozenset(permissions)
        for permission in sorted(beyond - principal.scopes):
            raise PermissionDeniedError(permission, project_id, narrowed=True)
    return _add(
        conn,
        principal,
        subject=subject,
        kind="personal",
        scope=project_id,
        role=None,
        permissions=permissions,
        expires_at=_end(principal, expires_at, now),
        note=note,
        now=now,
    )


def issue_service_token(
    conn: Connection,
    principal: Principal,
    name: str,
    role: Role,
    *,
    project_id: str | None,
    permissions: Collection[Permission] | None = None,
    expires_at: float | None = None,
    note: str | None = None,
    now: float,
) -> tuple[str, TokenRecord]:
    """A token with a role of its own, in one project or in the organisation (`project_id` None).

    Its subject is `service:NAME`, which no person can be. Otherwise as `issue_personal_token`.

    Raises:
        PermissionDeniedError: The caller may make none there, or gives more than they have.
        MalformedError: The name, the role or the end is malformed.
        ProjectNotFoundError: There is no such project.
    """
    check_subject(name)
    _check_project(conn, principal, project_id)
    principal.require(Permission.TOKEN_MANAGE, project_id)
    if project_id is not None and role is Role.ORG_ADMIN:
        raise MalformedError("org_admin is a role in the organisation, not in a project", param="/role")
    held = permissions_of(role)
    beyond = sorted(set(permissions or ()) - held)
    if beyond:
        raise MalformedError(f"{role.value} does not have {', '.join(p.value for p in beyond)}", param="/permissions")
    check_giving(principal, held if permissions is None else frozenset(permissions), project_id)
    return _add(
        conn,
        principal,
        subject=f"service:{name}",
        kind="service",
        scope=project_id,
        role=role.value,
        permissions=permissions,
        expires_at=_end(principal, expires_at, now),
        note=note,
        now=now,
    )


def visible_token(conn: Connection, principal: Principal, token_id: str) -> TokenRecord:
    """A token that the caller may see and revoke: their own, or one of a project whose tokens they manage.

    Raises:
        NotThereError: There is none, or it is none of theirs: nothing tells which.
    """
    token = rows.find_token(conn, token_id)
    if token is not None:
        own = token.subject == principal.subject and principal.bound in (None, token.scope)
        if own or principal.may(Permission.TOKEN_MANAGE, token.scope):
            return token
    raise NotThereError("there is no such token", param="/token_id", hint="`astraml token list` shows yours")


def revoke_token(conn: Connection, principal: Principal, token_id: str, *, now: float) -> TokenRecord:
    """Takes a token back; within a second it counts nowhere. Doing so again changes nothing.

    Raises:
        NotThereError: There is none, or it is none of theirs.
    """
    token = visible_token(conn, principal, token_id)
    rows.revoke_token(conn, token_id, actor=principal.actor, now=now)
    return token


def ensure_admin_token(store: Store, path: Path, *, subject: str, now: float) -> str:
    """The local admin's token, kept in a file that only this user can read; a new one if that one no longer counts.

    Raises:
        StorageError: The file cannot be written.
        StoreError: The database failed.
    """
    with store.write() as conn:
        known = _read(path)
        if known is not None and _is_admin(conn, known, now):
            return known
        actor = Actor("local")
        check_subject(subject)
        set_member(conn, ORGANISATION, subject, Role.ORG_ADMIN.value, actor=actor, now=now)
        token = make_token()
        record = TokenRecord(
            id=id_of(token) or "",
            digest=digest_of(token),
            subject=subject,
            kind="personal",
            scope=None,
            role=None,
            permissions=None,
            note="made by `astraml up` for this machine's user",
            created_at=now,
            created_by=actor.subject,
            expires_at=None,
        )
        rows.add_token(conn, record, actor=actor, now=now)
        _write(path, token)
    return token


def _is_admin(conn: Connection, token: str, now: float) -> bool:
    record, memberships = load_access(conn, id_of(token) or "", now=now)
    try:
        return principal_of(check_token(token, record, now=now), memberships).org_role is Role.ORG_ADMIN
    except UnauthenticatedError:
        return False


def _read(path: Path) -> str | None:
    try:
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
    return text if id_of(text) else None


def _write(path: Path, token: str) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{token}\n")
        os.replace(draft, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise StorageError(f"the token file {path} cannot be written: {error}") from error


def _check_project(conn: Connection, principal: Principal, project_id: str | None) -> None:
    if project_id is not None and (not principal.knows(project_id) or find_project(conn, project_id) is None):
        raise ProjectNotFoundError(project_id)


def _end(principal: Principal, expires_at: float | None, now: float) -> float | None:
    """Not later than the end of the token that it is made with, which would else have no end."""
    if expires_at is not None and not now < expires_at < 1e11:
        raise MalformedError("must be in the future", param="/expires_at")
    ends = [end for end in (expires_at, principal.expires_at) if end is not None]
    return min(ends) if ends else None


def _add(
    conn: Connection,
    principal: Principal,
    *,
    subject: str,
    kind: str,
    scope: str | None,
    role: str | None,
    permissions: Collection[Permission] | None,
    expires_at: float | None,
    note: str | None,
    now: float,
) -> tuple[str, TokenRecord]:
    token = make_token()
    record = TokenRecord(
        id=id_of(token) or "",
        digest=digest_of(token),
        subject=subject,
        kind=kind,
        scope=scope,
        role=role,
        permissions=None if permissions is None else tuple(sorted({p.value for p in permissions})),
        note=plain_text(note)[:500] if note else None,
        created_at=now,
        created_by=principal.subject,
        expires_at=expires_at,
    )
    rows.add_token(conn, record, actor=principal.actor, now=now)
    return token, record
