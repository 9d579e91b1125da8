"""SQLite: connections for many processes, writes that survive a power cut, and writers that wait their turn."""

from __future__ import annotations

import random
import sqlite3
import time
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event

from astraml_ray.store.plain import to_json

__all__ = ["sqlite_reader", "sqlite_writer"]

_READERS = 16
_MORE_READERS = 48
_POLL_S = (0.0005, 0.003)


def sqlite_reader(path: Path, *, wait_s: float) -> Engine:
    """An engine of transactions that read a state of the database and cannot write."""
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        creator=lambda: _connection(path, wait_s, create=False, read_only=True),
        json_serializer=to_json,
        poolclass=QueuePool,
        pool_size=_READERS,
        max_overflow=_MORE_READERS,
        pool_timeout=wait_s,
    )

    # The driver itself begins transactions only before some statements.
    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


def sqlite_writer(path: Path, *, wait_s: float, create: bool = False) -> Engine:
    """An engine of one connection, whose transactions hold the database's write lock from their first moment.

    Args:
        path: The file.
        wait_s: How long to wait for the writers of other processes.
        create: Make the file if it is missing.
    """
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        creator=lambda: _connection(path, wait_s, create=create, read_only=False),
        json_serializer=to_json,
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=0,
        pool_timeout=wait_s,
    )

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        _begin_write(connection, wait_s)

    return engine


def _begin_write(connection: Connection, wait_s: float) -> None:
    # SQLite's own wait sleeps longer and longer, up to 100 ms, and starves behind a process that always writes.
    cursor = connection.connection.cursor()
    deadline = time.monotonic() + wait_s
    while True:
        try:
            cursor.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as error:
            if "is locked" not in str(error) or time.monotonic() > deadline:
                break
        time.sleep(random.uniform(*_POLL_S))
    # Once more, so that the error is one of SQLAlchemy's.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _connection(path: Path, wait_s: float, *, create: bool, read_only: bool) -> sqlite3.Connection:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            return _connect(path, wait_s, create=create, read_only=read_only)
        except sqlite3.OperationalError as error:
            # Turning a new file to WAL does not wait for others that do the same.
            if "is locked" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(random.uniform(*_POLL_S))


def _connect(path: Path, wait_s: float, *, create: bool, read_only: bool) -> sqlite3.Connection:
    uri = f"{path.as_uri()}?mode={'rwc' if create else 'rw'}"
    connection = sqlite3.connect(
        uri, uri=True, timeout=wait_s, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    try:
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA query_only = ON" if read_only else "PRAGMA busy_timeout = 0")
    except BaseException:
        connection.close()
        raise
    return connection
