"""Idempotency keys: what a request with a key was answered, for as long as it may be repeated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, null, select, tuple_, union_all

from astraml_ray.errors import StoreBusyError
from astraml_ray.spec.states import TERMINAL
from astraml_ray.store.schedule_tables import schedule_keys
from astraml_ray.store.statements import upsert
from astraml_ray.store.tables import idempotency_keys, jobs

__all__ = ["KeyRecord", "KeyTakenError", "find_key", "prune_keys", "store_key"]

_KEEP_S = 24 * 3600.0
_BATCH = 1000
_COMMON = [column.name for column in idempotency_keys.c if column.name != "job_id"]


class KeyTakenError(StoreBusyError):
    """Another request with the same key came first; tried again, its answer is found."""


@dataclass(frozen=True)
class KeyRecord:
    """A key, what was asked with it and what was answered.

    Attributes:
        project_id: Scope of the key, together with `route`.
        route: Such as "POST /v2.1/jobs".
        key: As the client sent it.
        fingerprint: Digest of the canonical request.
        request: The canonical request, to say what differs.
        status_code: Of the answer.
        body: Of the answer.
        job_id: The job it made, if it made one.
        created_at: Seconds since the epoch.
        schedule_id: The schedule it made, if it made one.
    """

    project_id: str
    route: str
    key: str
    fingerprint: str
    request: dict[str, Any]
    status_code: int
    body: dict[str, Any]
    job_id: str | None
    created_at: float
    schedule_id: str | None = None


def find_key(conn: Connection, project_id: str, route: str, key: str) -> KeyRecord | None:
    """What is known of the key in its scope."""
    parts = []
    for table, made in ((idempotency_keys, "job_id"), (schedule_keys, "schedule_id")):
        ids = (table.c[name] if name == made else null().label(name) for name in ("job_id", "schedule_id"))
        scope = (table.c.project_id == project_id, table.c.route == route, table.c.key == key)
        parts.append(select(*(table.c[name] for name in _COMMON), *ids).where(*scope))
    row = conn.execute(union_all(*parts)).mappings().first()
    return KeyRecord(**row) if row else None


def store_key(conn: Connection, record: KeyRecord) -> None:
    """Stores the key in the transaction that makes its job or schedule, whose row must be there already.

    Raises:
        KeyTakenError: The key is there already; the transaction must be given up.
    """
    table = idempotency_keys if record.job_id is not None else schedule_keys
    values = {name: value for name, value in vars(record).items() if name in table.c}
    query = upsert(conn, table).values(values).on_conflict_do_nothing()
    if conn.execute(query.returning(table.c.key)).first() is None:
        raise KeyTakenError("another request with this idempotency key came first", hint="send it again")


def prune_keys(conn: Connection, *, now: float, keep_s: float = _KEEP_S) -> int:
    """Deletes a batch of keys that are older than `keep_s` and whose jobs have ended. Returns how many.

    A schedule does not end, and so is not waited for.
    """
    keys = idempotency_keys.c
    scope = (keys.project_id, keys.route, keys.key)
    old = (
        select(*scope)
        .join(jobs, jobs.c.id == keys.job_id)
        .where(keys.created_at < now - keep_s, jobs.c.status.in_([status.value for status in TERMINAL]))
        .order_by(keys.created_at)
        .limit(_BATCH)
    )
    deleted = conn.execute(delete(idempotency_keys).where(tuple_(*scope).in_(old))).rowcount
    keys = schedule_keys.c
    scope = (keys.project_id, keys.route, keys.key)
    old = select(*scope).where(keys.created_at < now - keep_s).order_by(keys.created_at).limit(_BATCH)
    return deleted + conn.execute(delete(schedule_keys).where(tuple_(*scope).in_(old))).rowcount
