"""Idempotency keys: what a request with a key was answered, for as long as it may be repeated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, select, tuple_

from astraml_ray.errors import StoreBusyError
from astraml_ray.spec.states import TERMINAL
from astraml_ray.store.statements import upsert
from astraml_ray.store.tables import idempotency_keys, jobs

__all__ = ["KeyRecord", "KeyTakenError", "find_key", "prune_keys", "store_key"]

_KEEP_S = 24 * 3600.0
_BATCH = 1000


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
        job_id: The job it made.
        created_at: Seconds since the epoch.
    """

    project_id: str
    route: str
    key: str
    fingerprint: str
    request: dict[str, Any]
    status_code: int
    body: dict[str, Any]
    job_id: str
    created_at: float


def find_key(conn: Connection, project_id: str, route: str, key: str) -> KeyRecord | None:
    """What is known of the key in its scope."""
    keys = idempotency_keys.c
    query = select(idempotency_keys).where(keys.project_id == project_id, keys.route == route, keys.key == key)
    row = conn.execute(query).mappings().one_or_none()
    return KeyRecord(**row) if row else None


def store_key(conn: Connection, record: KeyRecord) -> None:
    """Stores the key in the transaction that makes its job; the job's row must be there already.

    Raises:
        KeyTakenError: The key is there already; the transaction must be given up.
    """
    query = upsert(conn, idempotency_keys).values(vars(record)).on_conflict_do_nothing()
    if conn.execute(query.returning(idempotency_keys.c.key)).first() is None:
        raise KeyTakenError("another request with this idempotency key came first", hint="send it again")


def prune_keys(conn: Connection, *, now: float, keep_s: float = _KEEP_S) -> int:
    """Deletes a batch of keys that are older than `keep_s` and whose jobs have ended. Returns how many."""
    keys = idempotency_keys.c
    scope = (keys.project_id, keys.route, keys.key)
    old = (
        select(*scope)
        .join(jobs, jobs.c.id == keys.job_id)
        .where(keys.created_at < now - keep_s, jobs.c.status.in_([status.value for status in TERMINAL]))
        .order_by(keys.created_at)
        .limit(_BATCH)
    )
    return conn.execute(delete(idempotency_keys).where(tuple_(*scope).in_(old))).rowcount
