"""Encrypted secrets by project, name and version, and which job used which. Every change leaves its audit row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, insert, select, union, update

from astraml_ray.store.access_tables import secret_uses, secrets
from astraml_ray.store.audit import Actor, append_audit
from astraml_ray.store.statements import MAX_INTEGER, upsert
from astraml_ray.store.webhook_tables import webhook_secrets

__all__ = [
    "SecretRecord",
    "SecretUse",
    "add_secret",
    "delete_secret",
    "find_secret",
    "keys_in_use",
    "last_uses",
    "list_secrets",
    "list_uses",
    "next_version",
    "record_use",
    "replace_value",
    "secrets_of_other_keys",
]


@dataclass(frozen=True)
class SecretRecord:
    """One version of a secret; `value` is encrypted and left out of every listing."""

    project_id: str
    name: str
    version: int
    size: int
    key_id: str | None
    created_at: float
    created_by: str
    deleted_at: float | None
    value: bytes | None = None

    def __repr__(self) -> str:
        return f"SecretRecord({self.project_id}/{self.name} v{self.version})"


@dataclass(frozen=True)
class SecretUse:
    """One job that was given one version of a secret."""

    id: int
    project_id: str
    name: str
    version: int
    job_id: str
    attempt: int
    subject: str
    at: float


_LISTED = [column for column in secrets.columns if column.name != "value"]


def next_version(conn: Connection, project_id: str, name: str) -> int:
    """The number that a new version gets; numbers go on after a deletion, and are never given twice."""
    query = select(func.max(secrets.c.version)).where(secrets.c.project_id == project_id, secrets.c.name == name)
    return (conn.execute(query).scalar_one_or_none() or 0) + 1


def add_secret(
    conn: Connection,
    project_id: str,
    name: str,
    version: int,
    *,
    value: bytes,
    key_id: str,
    size: int,
    actor: Actor,
    now: float,
) -> SecretRecord | None:
    """Writes an encrypted version; None if another one has that number by now."""
    known = find_secret(conn, project_id, name)
    row = {
        "project_id": project_id,
        "name": name,
        "version": version,
        "value": value,
        "key_id": key_id,
        "size": size,
        "created_at": now,
        "created_by": actor.subject,
    }
    query = upsert(conn, secrets).values(row).on_conflict_do_nothing().returning(secrets.c.version)
    if conn.execute(query).one_or_none() is None:
        return None
    append_audit(
        conn,
        "secret.replaced" if known else "secret.created",
        actor=actor,
        scope=project_id,
        target=name,
        before={"version": known.version} if known else None,
        after={"version": version},
        now=now,
    )
    return find_secret(conn, project_id, name, version)


def find_secret(conn: Connection, project_id: str, name: str, version: int | None = None) -> SecretRecord | None:
    """The newest version, or a given one, with its value; None if it is not there or was deleted."""
    query = select(secrets).where(
        secrets.c.project_id == project_id, secrets.c.name == name, secrets.c.deleted_at.is_(None)
    )
    if version is not None:
        query = query.where(secrets.c.version == version)
    row = conn.execute(query.order_by(secrets.c.version.desc()).limit(1)).mappings().one_or_none()
    return SecretRecord(**row) if row else None


def list_secrets(conn: Connection, project_id: str) -> list[SecretRecord]:
    """The newest version of each secret, by name, without values."""
    query = (
        select(*_LISTED)
        .where(secrets.c.project_id == project_id, secrets.c.deleted_at.is_(None))
        .order_by(secrets.c.name, secrets.c.version)
    )
    newest = {row["name"]: SecretRecord(**row) for row in conn.execute(query).mappings()}
    return list(newest.values())


def delete_secret(conn: Connection, project_id: str, name: str, *, actor: Actor, now: float) -> bool:
    """Destroys the values of all versions; False if there is no such secret."""
    query = update(secrets).where(
        secrets.c.project_id == project_id, secrets.c.name == name, secrets.c.deleted_at.is_(None)
    )
    versions = conn.execute(query.values(value=None, key_id=None, deleted_at=now)).rowcount
    if versions:
        append_audit(
            conn,
            "secret.deleted",
            actor=actor,
            scope=project_id,
            target=name,
            before={"versions": versions},
            now=now,
        )
    return versions > 0


def keys_in_use(conn: Connection) -> set[str]:
    """The ids of the master keys that something is encrypted with."""
    query = select(secrets.c.key_id).where(secrets.c.key_id.is_not(None)).distinct()
    return set(conn.execute(union(query, select(webhook_secrets.c.key_id).distinct())).scalars())


def secrets_of_other_keys(conn: Connection, key_id: str, *, limit: int) -> list[SecretRecord]:
    """Versions that another master key encrypted, with their values."""
    query = select(secrets).where(secrets.c.key_id != key_id)
    order = (secrets.c.project_id, secrets.c.name, secrets.c.version)
    return [SecretRecord(**row) for row in conn.execute(query.order_by(*order).limit(limit)).mappings()]


def replace_value(conn: Connection, secret: SecretRecord, *, value: bytes, key_id: str) -> bool:
    """Puts the same secret under another master key; False if it was deleted meanwhile."""
    query = update(secrets).where(
        secrets.c.project_id == secret.project_id,
        secrets.c.name == secret.name,
        secrets.c.version == secret.version,
        secrets.c.key_id == secret.key_id,
    )
    return conn.execute(query.values(value=value, key_id=key_id)).rowcount > 0


def record_use(conn: Connection, secret: SecretRecord, *, job_id: str, attempt: int, subject: str, now: float) -> None:
    """Notes that a job was given a secret."""
    row = {"project_id": secret.project_id, "name": secret.name, "version": secret.version}
    conn.execute(insert(secret_uses).values(**row, job_id=job_id, attempt=attempt, subject=subject, at=now))


def last_uses(conn: Connection, project_id: str) -> dict[str, float]:
    """When a job was last given each secret, in seconds since the epoch."""
    query = select(secret_uses.c.name, func.max(secret_uses.c.at)).where(secret_uses.c.project_id == project_id)
    return {row[0]: row[1] for row in conn.execute(query.group_by(secret_uses.c.name))}


def list_uses(
    conn: Connection,
    *,
    project_id: str,
    name: str | None = None,
    job_id: str | None = None,
    before: int | None = None,
    limit: int,
) -> list[SecretUse]:
    """Who used which secret, when, in which job; newest first, `before` is for the next page."""
    wanted: Mapping[Any, Any] = {secret_uses.c.name: name, secret_uses.c.job_id: job_id}
    query = select(secret_uses).where(
        secret_uses.c.project_id == project_id,
        *(column == value for column, value in wanted.items() if value is not None),
    )
    if before is not None:
        query = query.where(secret_uses.c.id < min(max(before, 0), MAX_INTEGER))
    rows = conn.execute(query.order_by(secret_uses.c.id.desc()).limit(limit)).mappings()
    return [SecretUse(**row) for row in rows]
