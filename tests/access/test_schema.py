"""The migration: it only adds, agrees with the tables in code, and gives jobs that are there their projects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

import astraml_ray.store.migrations as migrations
from astraml_ray.store.access import (
    GpuTime,
    OriginRecord,
    begin_gpu_time,
    end_gpu_time,
    find_origin,
    gpu_time_since,
    record_origin,
    submitters_of,
)
from astraml_ray.store.access_tables import audit
from astraml_ray.store.engine import Store, migrate, open_store
from astraml_ray.store.projects import find_project, list_projects
from astraml_ray.store.tables import metadata
from tests.access.conftest import NOW
from tests.store.databases import Postgres

_JOB = {
    "id": "job-1",
    "status": "queued",
    "spec": "{}",
    "spec_digest": "0",
    "api_version": "v2.1",
    "priority": 0,
    "created_at": NOW,
    "queued_at": NOW,
}


def alembic(connection: sa.Connection, target: str, *, down: bool = False) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.attributes["connection"] = connection
    (command.downgrade if down else command.upgrade)(config, target)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_engine(request: pytest.FixtureRequest, tmp_path: Path) -> sa.Engine:
    if request.param == "sqlite":
        return sa.create_engine(f"sqlite:///{tmp_path / 'empty.db'}")
    server: Postgres = request.getfixturevalue("postgres")
    return sa.create_engine(server.empty().replace("postgresql://", "postgresql+psycopg://"))


def test_the_tables_in_code_are_those_of_the_migrations(store: Store) -> None:
    assert audit.metadata is metadata
    with store.read() as conn:
        context = MigrationContext.configure(conn, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []


def test_it_adds_to_the_release_before_and_that_release_goes_on_writing(empty_engine: sa.Engine) -> None:
    with empty_engine.begin() as conn:
        alembic(conn, "0001")
        before = {table: _columns(conn, table) for table in sa.inspect(conn).get_table_names()}
        for number, project in enumerate(["p-old", "p-old", "default", "p-other"]):
            _insert(conn, {**_JOB, "id": f"job-{number}", "project_id": project})
    with empty_engine.begin() as conn:
        alembic(conn, "0002")
        assert {table: _columns(conn, table) for table in before} == before
        rows = conn.execute(sa.text("SELECT id, created_by FROM projects ORDER BY id")).all()
        assert [tuple(row) for row in rows] == [
            ("default", "migration"),
            ("p-old", "migration"),
            ("p-other", "migration"),
        ]
        _insert(conn, {**_JOB, "id": "job-9", "project_id": "p-new"})
    with empty_engine.begin() as conn:
        alembic(conn, "0001", down=True)
        assert {table: _columns(conn, table) for table in sa.inspect(conn).get_table_names()} == before
        assert conn.execute(sa.text("SELECT count(*) FROM jobs")).scalar() == 5
    empty_engine.dispose()


def test_a_new_database_has_the_default_project(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new.db'}"
    migrate(url)
    store = open_store(url)
    with store.read() as conn:
        assert [project.id for project in list_projects(conn, limit=10)] == ["default"]
        assert find_project(conn, "\0") is None
    store.close()


def test_where_a_job_comes_from(store: Store, make_job: Callable[[], str]) -> None:
    job_id, other = make_job(), make_job()
    origin = OriginRecord(
        job_id, "ana", "t1", "v1", {"batch_size": 32}, [{"kind": "moved"}], {"seed": {"source": "built-in"}}, NOW
    )
    with store.write() as conn:
        record_origin(conn, origin)
    with store.read() as conn:
        assert find_origin(conn, job_id) == origin
        assert find_origin(conn, other) is None
        assert submitters_of(conn, [job_id, other]) == {job_id: "ana"}


def test_gpu_time(store: Store, make_job: Callable[[], str]) -> None:
    one, two = make_job(), make_job()
    with store.write() as conn:
        for job_id, gpus in ((one, 2.0), (two, 1.0), (one, 4.0)):  # saying so again changes nothing
            begin_gpu_time(conn, GpuTime(job_id, 1, "p1", gpus, NOW, None))
        end_gpu_time(conn, one, now=NOW + 10)
        end_gpu_time(conn, one, now=NOW + 99)
        begin_gpu_time(conn, GpuTime(one, 2, "p1", 2.0, NOW + 20, None))
    with store.read() as conn:

        def since(at: float, **named: Any) -> list[tuple[str, int, float, float | None]]:
            found = gpu_time_since(conn, at, **named)
            return sorted((t.job_id, t.attempt, t.gpus, t.finished_at) for t in found)

        assert since(NOW) == [(one, 1, 2.0, NOW + 10), (one, 2, 2.0, None), (two, 1, 1.0, None)]
        assert since(NOW + 10, project_id="p1") == [(one, 2, 2.0, None), (two, 1, 1.0, None)]
        assert since(NOW, project_id="p2") == []


def _columns(conn: sa.Connection, table: str) -> list[tuple[str, str, bool]]:
    return [(c["name"], str(c["type"]), bool(c["nullable"])) for c in sa.inspect(conn).get_columns(table)]


def _insert(conn: sa.Connection, row: dict[str, Any]) -> None:
    names = ", ".join(row)
    conn.execute(sa.text(f"INSERT INTO jobs ({names}) VALUES ({', '.join(f':{name}' for name in row)})"), row)
