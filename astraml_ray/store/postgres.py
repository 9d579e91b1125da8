"""PostgreSQL: connections whose statements do not wait for longer than a request may."""

from __future__ import annotations

from typing import Any

from sqlalchemy import URL, Engine, create_engine, event

from astraml_ray.errors import StoreUnavailableError
from astraml_ray.store.plain import to_json

__all__ = ["postgres_engine"]

_CONNECTIONS = 5
_MORE = 15
_IDLE_S = 60
"""After which a transaction whose process has stalled gives up its locks."""


def postgres_engine(url: URL, *, wait_s: float) -> Engine:
    """An engine; a connection that broke while it was idle is replaced unnoticed.

    Args:
        url: With the driver psycopg.
        wait_s: Limit of every wait: for a connection, and for a lock.

    Raises:
        StoreUnavailableError: The driver is not installed.
    """
    try:
        engine = create_engine(
            url,
            json_serializer=to_json,
            isolation_level="READ COMMITTED",
            pool_size=_CONNECTIONS,
            max_overflow=_MORE,
            pool_timeout=wait_s,
            pool_pre_ping=True,
            connect_args={"connect_timeout": max(2, int(wait_s))},
        )
    except ModuleNotFoundError as error:
        raise StoreUnavailableError(
            f"PostgreSQL needs a driver: {error}", hint="pip install 'astraml-ray[postgres]'"
        ) from None

    @event.listens_for(engine, "connect")
    def _limit(connection: Any, record: Any) -> None:
        connection.execute(f"SET lock_timeout = {int(wait_s * 1000)}")
        connection.execute(f"SET idle_in_transaction_session_timeout = {_IDLE_S * 1000}")
        connection.commit()

    return engine
