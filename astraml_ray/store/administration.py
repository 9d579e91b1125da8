"""Changes to who may do what, one at a time: each decides from what the one before it left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, func, select

from astraml_ray.store.engine import Store

__all__ = ["administering"]

_LOCK = 0x61646D69  # any number that nothing else locks


@contextmanager
def administering(store: Store) -> Iterator[Connection]:
    """A transaction that writes, and that no other one of these overlaps.

    Two admins cannot each remove the other, and whatever is done twice at once is done once.

    Raises:
        StoreBusyError: Others took too long.
        StoreUnavailableError: The database cannot be reached or takes no writes.
    """
    with store.write() as conn:
        # SQLite takes one writer at a time anyway.
        if conn.dialect.name == "postgresql":
            conn.execute(select(func.pg_advisory_xact_lock(_LOCK)))
        yield conn
