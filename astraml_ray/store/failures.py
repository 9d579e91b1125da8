"""What a database's error means: wait, or it cannot be had. Pure."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from astraml_ray.errors import StoreBusyError, StoreError, StoreUnavailableError

__all__ = ["store_error"]

_BUSY_STATES = ("55P03", "57014", "40001", "40P01", "53300")
# Connections, resources, an operator's hand, I/O; a read-only server; wrong password or database.
_LOST_STATES = ("08", "53", "57P", "58", "25006", "25P03", "28", "3D000", "XX")
_LOST_TEXTS = (
    "unable to open database file",
    "disk i/o error",
    "database or disk is full",
    "readonly database",
    "not a database",
    "malformed",
    "authorization denied",
)


def store_error(error: SQLAlchemyError, where: str) -> StoreError | None:
    """The StoreError of a database's error, or None if the fault is in the statement.

    Args:
        error: What SQLAlchemy raised.
        where: The database, without a password.
    """
    if isinstance(error, PoolTimeoutError):
        return StoreBusyError("every connection to the database is in use", param=where)
    if not isinstance(error, DBAPIError):
        return None
    text = str(error.orig).strip()
    state = getattr(error.orig, "sqlstate", None)
    if state in _BUSY_STATES or "is locked" in text.lower():
        return StoreBusyError(f"the database is busy: {text}", param=where)
    if state == "42P01" or "no such table" in text:
        return StoreUnavailableError(f"the database lacks tables: {text}", param=where, hint="migrate it: `astraml up`")
    if _is_lost(error, state, text.lower()):
        return StoreUnavailableError(f"the database cannot be used: {text}", param=where)
    return None


def _is_lost(error: DBAPIError, state: str | None, text: str) -> bool:
    if error.connection_invalidated or (state and state.startswith(_LOST_STATES)):
        return True
    if type(error.orig).__module__.startswith("psycopg"):
        return state is None and type(error.orig).__name__ in (
            "OperationalError",
            "ConnectionTimeout",
            "InterfaceError",
        )
    return any(known in text for known in _LOST_TEXTS)
