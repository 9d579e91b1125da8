"""Who changed which rule, role, token or secret: rows that are only ever added, each sealed by the one before it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, insert, select

from astraml_ray.store.access_tables import audit
from astraml_ray.store.plain import plain_text, to_json
from astraml_ray.store.statements import MAX_INTEGER

__all__ = ["Actor", "AuditRecord", "append_audit", "broken_audit", "list_audit"]

_LOCK = 0x61756469  # any number that nothing else locks
_PAGE = 500


@dataclass(frozen=True)
class Actor:
    """Who does something, and with which token."""

    subject: str
    token_id: str | None = None


@dataclass(frozen=True)
class AuditRecord:
    """One change; `at` is in seconds since the epoch, `before` and `after` never hold a secret."""

    seq: int
    at: float
    actor: str
    token_id: str | None
    scope: str
    action: str
    target: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    digest: str


def append_audit(
    conn: Connection,
    action: str,
    *,
    actor: Actor,
    scope: str,
    target: str,
    now: float,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> int:
    """Adds a change, in the transaction that makes it, and returns its number."""
    if conn.dialect.name == "postgresql":
        # One at a time, so that numbers have no gaps and pages miss nothing.
        conn.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    query = select(audit.c.seq, audit.c.digest).order_by(audit.c.seq.desc()).limit(1)
    newest = conn.execute(query).one_or_none()
    row: dict[str, Any] = {
        "seq": newest.seq + 1 if newest else 1,
        "at": now,
        "actor": plain_text(actor.subject),
        "token_id": actor.token_id,
        "scope": plain_text(scope),
        "action": action,
        "target": plain_text(target)[:300],
        "before": None if before is None else to_json(before),
        "after": None if after is None else to_json(after),
    }
    conn.execute(insert(audit).values(**row, digest=_seal(newest.digest if newest else "", row)))
    return int(row["seq"])


def list_audit(
    conn: Connection,
    *,
    scopes: Collection[str] | None = None,
    actor: str | None = None,
    action: str | None = None,
    target: str | None = None,
    before: int | None = None,
    after: int | None = None,
    limit: int,
) -> list[AuditRecord]:
    """A page of changes: the newest first, or, if `after` is given, those with greater numbers, oldest first.

    Args:
        conn: A transaction.
        scopes: Projects, ORGANISATION, or None for all.
        actor: Whose changes.
        action: Such as "policy.changed", or "policy" for everything about policies.
        target: What was changed.
        before: Only smaller numbers, for the next page.
        after: Only greater numbers, for an export.
        limit: Rows at most.
    """
    query = select(audit)
    if scopes is not None:
        query = query.where(audit.c.scope.in_(list(scopes)))
    if actor is not None:
        query = query.where(audit.c.actor == actor)
    if action is not None:
        within = audit.c.action.startswith(f"{action}.", autoescape=True)
        query = query.where((audit.c.action == action) | within)
    if target is not None:
        query = query.where(audit.c.target == target)
    if before is not None:
        query = query.where(audit.c.seq < _bounded(before))
    if after is not None:
        query = query.where(audit.c.seq > _bounded(after))
    query = query.order_by(audit.c.seq.desc() if after is None else audit.c.seq).limit(limit)
    return [_record(row) for row in conn.execute(query).mappings()]


def broken_audit(conn: Connection) -> int | None:
    """The number of the first row that was changed, or that follows a removed one; None if all are whole."""
    seq, digest = 0, ""
    while True:
        query = select(audit).where(audit.c.seq > seq).order_by(audit.c.seq).limit(_PAGE)
        rows = conn.execute(query).mappings().all()
        for row in rows:
            if row["seq"] != seq + 1 or row["digest"] != _seal(digest, row):
                return int(row["seq"])
            seq, digest = row["seq"], row["digest"]
        if len(rows) < _PAGE:
            return None


def _bounded(number: int) -> int:
    return min(max(number, 0), MAX_INTEGER)


def _seal(previous: str, row: Mapping[Any, Any]) -> str:
    fields = [row[column.name] for column in audit.columns if column.name != "digest"]
    return hashlib.sha256(json.dumps([previous, *fields]).encode()).hexdigest()


def _record(row: Mapping[Any, Any]) -> AuditRecord:
    values = dict(row)
    for key in ("before", "after"):
        values[key] = None if values[key] is None else json.loads(values[key])
    return AuditRecord(**values)
