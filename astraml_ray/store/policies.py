"""Policies, by scope and version: versions are only ever added. Every change leaves its audit row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from astraml_ray.store.access_tables import ORGANISATION, policies
from astraml_ray.store.audit import Actor, append_audit
from astraml_ray.store.statements import upsert

__all__ = ["PolicyRecord", "add_policy", "find_policy", "list_policies", "newest_policy", "policies_in_force"]

_NEWEST = 2**31 - 1  # what an INTEGER column can hold


@dataclass(frozen=True)
class PolicyRecord:
    """One version of a scope's policy; the newest is in force."""

    scope: str
    version: int
    document: dict[str, Any]
    note: str | None
    restored_from: int | None
    created_at: float
    created_by: str


def add_policy(
    conn: Connection,
    scope: str,
    document: Mapping[str, Any],
    *,
    expected: int | None = None,
    note: str | None = None,
    restored_from: int | None = None,
    actor: Actor,
    now: float,
) -> PolicyRecord | None:
    """Puts a new version in force.

    Args:
        conn: A transaction that writes.
        scope: A project, or ORGANISATION.
        document: Already checked.
        expected: The version that the change was made from (0: none); None does not ask.
        note: Why.
        restored_from: The version that this one brings back.
        actor: Who.
        now: Seconds since the epoch.

    Returns:
        The new version, or None if another one came first.
    """
    known = newest_policy(conn, scope)
    newest = known.version if known else 0
    if expected is not None and expected != newest:
        return None
    record = PolicyRecord(scope, newest + 1, dict(document), note, restored_from, now, actor.subject)
    query = upsert(conn, policies).values(record.__dict__).on_conflict_do_nothing().returning(policies.c.version)
    if conn.execute(query).one_or_none() is None:
        return None
    append_audit(
        conn,
        "policy.restored" if restored_from else "policy.changed",
        actor=actor,
        scope=scope,
        target=f"{scope} v{record.version}",
        before={"version": known.version, "document": known.document} if known else None,
        after={"version": record.version, "document": record.document, "note": note},
        now=now,
    )
    return record


def newest_policy(conn: Connection, scope: str) -> PolicyRecord | None:
    """The version in force, or None."""
    query = select(policies).where(policies.c.scope == scope).order_by(policies.c.version.desc()).limit(1)
    row = conn.execute(query).mappings().one_or_none()
    return PolicyRecord(**row) if row else None


def policies_in_force(conn: Connection, project_id: str) -> tuple[PolicyRecord | None, PolicyRecord | None]:
    """What holds for a project's jobs: the organisation's policy and its own."""
    return newest_policy(conn, ORGANISATION), newest_policy(conn, project_id)


def find_policy(conn: Connection, scope: str, version: int) -> PolicyRecord | None:
    """One version, or None."""
    if not 0 < version <= _NEWEST:
        return None
    query = select(policies).where(policies.c.scope == scope, policies.c.version == version)
    row = conn.execute(query).mappings().one_or_none()
    return PolicyRecord(**row) if row else None


def list_policies(conn: Connection, scope: str, *, before: int | None = None, limit: int) -> list[PolicyRecord]:
    """The versions, newest first; `before` is for the next page."""
    bound = _NEWEST if before is None else min(max(before, 0), _NEWEST)
    query = select(policies).where(policies.c.scope == scope, policies.c.version < bound)
    rows = conn.execute(query.order_by(policies.c.version.desc()).limit(limit)).mappings()
    return [PolicyRecord(**row) for row in rows]
