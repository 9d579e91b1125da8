"""Projects, who is in them with which role, and their quotas. Every change leaves its audit row."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, or_, select, update

from astraml_ray.store.access_tables import members, projects, quotas
from astraml_ray.store.audit import Actor, append_audit
from astraml_ray.store.statements import upsert

__all__ = [
    "MemberRecord",
    "ProjectRecord",
    "QuotaRecord",
    "archive_project",
    "create_project",
    "find_member",
    "find_project",
    "find_quota",
    "list_members",
    "list_projects",
    "memberships_of",
    "remove_member",
    "set_member",
    "set_quota",
]


@dataclass(frozen=True)
class ProjectRecord:
    """A project's row."""

    id: str
    title: str | None
    created_at: float
    created_by: str
    archived_at: float | None


@dataclass(frozen=True)
class MemberRecord:
    """One subject's role in one scope, and the permissions given besides; `expires_at` ends both."""

    scope: str
    subject: str
    role: str
    permissions: tuple[str, ...]
    expires_at: float | None
    updated_at: float
    updated_by: str


@dataclass(frozen=True)
class QuotaRecord:
    """The most that a scope may have; None is no bound."""

    scope: str
    gpus_at_once: int | None
    jobs_at_once: int | None
    gpu_hours_per_week: float | None
    updated_at: float
    updated_by: str


def create_project(
    conn: Connection, project_id: str, *, title: str | None = None, actor: Actor, now: float
) -> ProjectRecord | None:
    """A new project, or None if the id is taken."""
    row = {"id": project_id, "title": title, "created_at": now, "created_by": actor.subject}
    query = upsert(conn, projects).values(row).on_conflict_do_nothing().returning(projects.c.id)
    if conn.execute(query).one_or_none() is None:
        return None
    append_audit(
        conn, "project.created", actor=actor, scope=project_id, target=project_id, after={"title": title}, now=now
    )
    return find_project(conn, project_id)


def archive_project(conn: Connection, project_id: str, *, archived: bool = True, actor: Actor, now: float) -> bool:
    """Closes a project for new jobs, or opens it again; False if there is no such project."""
    known = find_project(conn, project_id)
    if known is None:
        return False
    if (known.archived_at is not None) != archived:
        query = update(projects).where(projects.c.id == project_id).values(archived_at=now if archived else None)
        conn.execute(query)
        action = "project.archived" if archived else "project.reopened"
        append_audit(conn, action, actor=actor, scope=project_id, target=project_id, now=now)
    return True


def find_project(conn: Connection, project_id: str) -> ProjectRecord | None:
    """The project, or None."""
    row = conn.execute(select(projects).where(projects.c.id == project_id)).mappings().one_or_none()
    return ProjectRecord(**row) if row else None


def list_projects(
    conn: Connection, *, ids: Collection[str] | None = None, after_id: str | None = None, limit: int
) -> list[ProjectRecord]:
    """Projects by id; `ids` keeps to some, None is all of them."""
    query = select(projects)
    if ids is not None:
        query = query.where(projects.c.id.in_(list(ids)))
    if after_id is not None:
        query = query.where(projects.c.id > after_id)
    rows = conn.execute(query.order_by(projects.c.id).limit(limit)).mappings()
    return [ProjectRecord(**row) for row in rows]


def set_member(
    conn: Connection,
    scope: str,
    subject: str,
    role: str,
    *,
    permissions: Collection[str] = (),
    expires_at: float | None = None,
    actor: Actor,
    now: float,
) -> MemberRecord:
    """Gives a subject a role, in place of the one it has; what it has already changes nothing."""
    known = find_member(conn, scope, subject)
    record = MemberRecord(scope, subject, role, tuple(sorted(set(permissions))), expires_at, now, actor.subject)
    if known is not None and _terms(known) == _terms(record):
        return known
    values = {
        "role": role,
        "permissions": sorted(set(permissions)),
        "expires_at": expires_at,
        "updated_at": now,
        "updated_by": actor.subject,
    }
    query = upsert(conn, members).values(scope=scope, subject=subject, **values)
    conn.execute(query.on_conflict_do_update(index_elements=["scope", "subject"], set_=values))
    append_audit(
        conn,
        "member.granted",
        actor=actor,
        scope=scope,
        target=subject,
        before=_terms(known),
        after=_terms(record),
        now=now,
    )
    return record


def remove_member(conn: Connection, scope: str, subject: str, *, actor: Actor, now: float) -> bool:
    """Takes a subject's role; False if it had none."""
    known = find_member(conn, scope, subject)
    if known is None:
        return False
    conn.execute(delete(members).where(members.c.scope == scope, members.c.subject == subject))
    append_audit(conn, "member.revoked", actor=actor, scope=scope, target=subject, before=_terms(known), now=now)
    return True


def find_member(conn: Connection, scope: str, subject: str) -> MemberRecord | None:
    """The subject's role in exactly this scope, expired or not."""
    query = select(members).where(members.c.scope == scope, members.c.subject == subject)
    row = conn.execute(query).mappings().one_or_none()
    return _member(row) if row else None


def list_members(conn: Connection, scope: str) -> list[MemberRecord]:
    """Everyone with a role in exactly this scope, by name."""
    query = select(members).where(members.c.scope == scope).order_by(members.c.subject)
    return [_member(row) for row in conn.execute(query).mappings()]


def memberships_of(conn: Connection, subject: str, *, now: float) -> list[MemberRecord]:
    """The roles of a subject that have not expired, in all scopes."""
    alive = or_(members.c.expires_at.is_(None), members.c.expires_at > now)
    query = select(members).where(members.c.subject == subject, alive).order_by(members.c.scope)
    return [_member(row) for row in conn.execute(query).mappings()]


def set_quota(
    conn: Connection,
    scope: str,
    *,
    gpus_at_once: int | None,
    jobs_at_once: int | None,
    gpu_hours_per_week: float | None,
    actor: Actor,
    now: float,
) -> QuotaRecord:
    """Sets all three bounds of a scope; None takes a bound away. What they are already changes nothing."""
    known = find_quota(conn, scope)
    bounds: dict[str, Any] = {
        "gpus_at_once": gpus_at_once,
        "jobs_at_once": jobs_at_once,
        "gpu_hours_per_week": gpu_hours_per_week,
    }
    before = {name: getattr(known, name) for name in bounds} if known else None
    if known is not None and before == bounds:
        return known
    row = {"scope": scope, **bounds, "updated_at": now, "updated_by": actor.subject}
    query = upsert(conn, quotas).values(row)
    conn.execute(query.on_conflict_do_update(index_elements=["scope"], set_=row))
    append_audit(conn, "quota.changed", actor=actor, scope=scope, target=scope, before=before, after=bounds, now=now)
    return QuotaRecord(**row)


def find_quota(conn: Connection, scope: str) -> QuotaRecord | None:
    """The bounds of exactly this scope, or None."""
    row = conn.execute(select(quotas).where(quotas.c.scope == scope)).mappings().one_or_none()
    return QuotaRecord(**row) if row else None


def _member(row: Mapping[Any, Any]) -> MemberRecord:
    return MemberRecord(**{**row, "permissions": tuple(row["permissions"])})


def _terms(member: MemberRecord | None) -> dict[str, Any] | None:
    if member is None:
        return None
    return {"role": member.role, "permissions": list(member.permissions), "expires_at": member.expires_at}
