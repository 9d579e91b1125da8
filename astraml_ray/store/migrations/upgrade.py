"""Brings a database to the newest schema, one process at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, Connection
from sqlalchemy.exc import SQLAlchemyError

from astraml_ray.errors import StoreUnavailableError
from astraml_ray.store.failures import store_error
from astraml_ray.store.postgres import postgres_engine
from astraml_ray.store.sqlite import sqlite_writer

__all__ = ["upgrade_database"]

_WAIT_S = 60.0
_LOCK = 0x41737472614D4C  # of PostgreSQL's advisory locks; any number that no other program takes


def upgrade_database(url: URL) -> None:
    """Runs what is missing of the migrations; whoever comes second waits and finds nothing to do.

    Raises:
        StoreUnavailableError: The database cannot be reached, or is of a newer version than this program.
    """
    where = url.render_as_string(hide_password=True)
    transaction = _postgres(url) if url.get_backend_name() == "postgresql" else _sqlite(url)
    try:
        with transaction as connection:
            config = Config()
            config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except CommandError as error:
        raise StoreUnavailableError(
            f"the database cannot be migrated: {error}", param=where, hint="is it of a newer version than this program?"
        ) from error
    except (SQLAlchemyError, OSError) as error:
        known = store_error(error, where) if isinstance(error, SQLAlchemyError) else None
        raise known or StoreUnavailableError(f"the database cannot be migrated: {error}", param=where) from error


@contextmanager
def _postgres(url: URL) -> Iterator[Connection]:
    engine = postgres_engine(url, wait_s=_WAIT_S)
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
            yield connection
    finally:
        engine.dispose()


@contextmanager
def _sqlite(url: URL) -> Iterator[Connection]:
    path = Path(url.database or "").absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    engine = sqlite_writer(path, wait_s=_WAIT_S, create=True)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()
