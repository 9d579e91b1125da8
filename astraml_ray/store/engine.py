"""The way to the database: transactions that read, transactions that write, and one kind of error."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from weakref import WeakValueDictionary

from sqlalchemy import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from astraml_ray.errors import StoreBusyError, StoreUnavailableError
from astraml_ray.store.failures import store_error
from astraml_ray.store.leases import Lease, check_lease
from astraml_ray.store.postgres import postgres_engine
from astraml_ray.store.sqlite import sqlite_reader, sqlite_writer
from astraml_ray.store.turns import Turns

__all__ = ["Store", "database_url", "migrate", "open_store"]

_WAIT_S = 5.0

_turns: WeakValueDictionary[str, Turns] = WeakValueDictionary()
_turns_lock = threading.Lock()


class Store:
    """A database. Any thread may use it; a transaction belongs to one thread."""

    def __init__(self, where: str, reader: Engine, writer: Engine, turns: Turns | None) -> None:
        self._where = where
        self._reader = reader
        self._writer = writer
        self._turns = turns

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads.

        Raises:
            StoreBusyError: No connection became free in time.
            StoreUnavailableError: The database cannot be reached.
        """
        with self._errors(), self._reader.connect() as connection:
            yield connection

    @contextmanager
    def write(self, lease: Lease | None = None) -> Iterator[Connection]:
        """A transaction that writes: committed at the end of the block, rolled back by an exception.

        Args:
            lease: Must still be held, and stays held until the transaction ends.

        Raises:
            StaleLeaseError: Another holds the lease; nothing is written.
            StoreBusyError: Other writers took too long.
            StoreUnavailableError: The database cannot be reached or takes no writes.
        """
        with self._turn(), self._errors(), self._writer.begin() as connection:
            if lease is not None:
                check_lease(connection, lease)
            yield connection

    def close(self) -> None:
        """Closes the connections that are not in use."""
        self._reader.dispose()
        self._writer.dispose()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        # SQLite takes one writer at a time and lets the others poll; in one process they queue instead.
        if self._turns is None:
            yield
            return
        if not self._turns.acquire(_WAIT_S):
            raise StoreBusyError("the database is busy: other writers took too long", param=self._where)
        try:
            yield
        finally:
            self._turns.release()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            known = store_error(error, self._where)
            if known is None:
                raise
            raise known from error


def open_store(url: str) -> Store:
    """Opens a database that exists and is migrated; connects on first use.

    Args:
        url: `sqlite:///path` or `postgresql://user:password@host/name`.

    Raises:
        StoreUnavailableError: The URL is of no database that is supported, or its driver is not installed.
    """
    parsed = database_url(url)
    where = parsed.render_as_string(hide_password=True)
    if parsed.get_backend_name() == "postgresql":
        engine = postgres_engine(parsed, wait_s=_WAIT_S)
        return Store(where, engine.execution_options(postgresql_readonly=True), engine, None)
    path = Path(parsed.database or "").absolute()
    turns = _turns_of(str(path.resolve()))
    return Store(where, sqlite_reader(path, wait_s=_WAIT_S), sqlite_writer(path, wait_s=_WAIT_S), turns)


def migrate(url: str) -> None:
    """Brings the database to the newest schema, making it if need be. Several processes may do so at once.

    Raises:
        StoreUnavailableError: It cannot be reached, or is of a newer version than this program.
    """
    # Alembic takes a while to import, and only those who migrate need it.
    from astraml_ray.store.migrations.upgrade import upgrade_database

    upgrade_database(database_url(url))


def database_url(url: str) -> URL:
    """The URL with the driver that is used.

    Raises:
        StoreUnavailableError: It is of no database that is supported.
    """
    hint = "sqlite:///path/to/file or postgresql://user:password@host/name"
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise StoreUnavailableError("this is not a database URL", param="ASTRAML_DATABASE_URL", hint=hint) from None
    where = parsed.render_as_string(hide_password=True)
    if parsed.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername != "sqlite":
        raise StoreUnavailableError(f"{parsed.drivername} is not supported", param=where, hint=hint)
    if parsed.database in (None, "", ":memory:"):
        raise StoreUnavailableError("the database must be a file", param=where, hint=hint)
    return parsed


def _turns_of(path: str) -> Turns:
    with _turns_lock:
        return _turns.setdefault(path, Turns())
