"""A migrated database is what the tables say, from any start and by any number of processes."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, inspect, text

import astraml_ray.store
import astraml_ray.store.migrations
from astraml_ray.errors import StoreUnavailableError
from astraml_ray.store.engine import database_url, migrate, open_store
from astraml_ray.store.jobs import create_job, find_job
from astraml_ray.store.tables import metadata
from tests.store.conftest import NOW, new_job
from tests.store.databases import Postgres


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """URL of a database that has no tables; of SQLite not even the folder is there."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'a % folder' / 'astraml.db'}"
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    url = postgres.empty()
    yield url
    postgres.drop(url)


def engine_of(url: str) -> Engine:
    return create_engine(database_url(url))


def differences(url: str) -> list[Any]:
    for module in pkgutil.iter_modules(astraml_ray.store.__path__):
        importlib.import_module(f"astraml_ray.store.{module.name}")  # some have tables of their own
    engine = engine_of(url)
    with engine.connect() as conn:
        options = {"compare_type": True, "compare_server_default": True}
        found = compare_metadata(MigrationContext.configure(conn, opts=options), metadata)
    engine.dispose()
    return list(found)


def test_a_migrated_database_is_what_the_tables_say(empty: str) -> None:
    migrate(empty)
    assert differences(empty) == []


def test_a_difference_would_be_seen(empty: str) -> None:
    migrate(empty)
    engine = engine_of(empty)
    with engine.begin() as conn:
        conn.execute(text("ALTER TABLE jobs ADD COLUMN extra INTEGER"))
        conn.execute(text("DROP INDEX ix_jobs_live"))
    engine.dispose()
    assert len(differences(empty)) == 2


def test_what_the_comparison_does_not_see_is_as_in_the_tables(empty: str) -> None:
    """Keys, conditions of indexes, and tables without row ids."""
    migrate(empty)
    migrated = engine_of(empty)
    made = create_engine("sqlite://")
    metadata.create_all(made)
    for name in metadata.tables:
        key = inspect(migrated).get_pk_constraint(name)
        assert key["constrained_columns"] == [column.name for column in metadata.tables[name].primary_key.columns]
        assert key["name"] == f"pk_{name}"
    if migrated.dialect.name == "sqlite":
        query = text("SELECT name, sql FROM sqlite_master WHERE type IN ('table', 'index') AND sql IS NOT NULL")

        def texts(engine: Engine) -> dict[str, str]:
            with engine.connect() as conn:
                return {row.name: shape(row.sql) for row in conn.execute(query) if row.name != "alembic_version"}

        assert texts(migrated) == texts(made)
    else:
        with migrated.connect() as conn:
            live = conn.execute(text("SELECT indexdef FROM pg_indexes WHERE indexname = 'ix_jobs_live'")).scalar()
            assert "WHERE" in str(live)
    migrated.dispose()


def shape(sql: str) -> str:
    """A statement without its layout, its columns and constraints in any order."""
    head, _, rest = " ".join(sql.split()).partition("(")
    return head + "|".join(sorted(part.strip() for part in rest.split(", ")))


def test_migrating_again_changes_nothing(empty: str) -> None:
    migrate(empty)
    store = open_store(empty)
    with store.write() as conn:
        create_job(conn, new := new_job(), now=NOW)
    migrate(empty)
    with store.read() as conn:
        assert find_job(conn, new.id) is not None
    store.close()


def test_processes_that_migrate_at_once_all_succeed(empty: str) -> None:
    code = (
        "import sys\n"
        "import astraml_ray.store.migrations.upgrade\n"
        "from astraml_ray.store.engine import migrate\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "migrate(sys.argv[1])\n"
    )
    root = Path(__file__).parents[2]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [subprocess.Popen([sys.executable, "-c", code, empty], text=True, cwd=root, **pipes) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert differences(empty) == []


def test_a_failing_migration_leaves_nothing_behind(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(Path(astraml_ray.store.migrations.__file__).parent)
    first = ScriptDirectory(folder).get_revision("0001").module
    real = command.upgrade

    def broken(config: Config, revision: str) -> None:
        real(config, revision)
        raise OSError("no power")

    monkeypatch.setattr(command, "upgrade", broken)
    with pytest.raises(StoreUnavailableError, match="no power"):
        migrate(empty)
    monkeypatch.undo()
    engine = engine_of(empty)
    assert inspect(engine).get_table_names() == []
    engine.dispose()
    migrate(empty)
    assert first.down_revision is None


def test_a_database_of_a_newer_version_is_left_alone(empty: str) -> None:
    migrate(empty)
    engine = engine_of(empty)
    with engine.begin() as conn:
        conn.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(StoreUnavailableError, match="9999") as caught:
        migrate(empty)
    assert "newer version" in str(caught.value.hint)


def test_the_history_is_one_line_down_to_nothing(empty: str) -> None:
    migrate(empty)
    folder = str(Path(astraml_ray.store.migrations.__file__).parent).replace("%", "%%")
    config = Config()
    config.set_main_option("script_location", folder)
    assert len(ScriptDirectory.from_config(config).get_heads()) == 1
    engine = engine_of(empty)
    with engine.begin() as conn:
        config.attributes["connection"] = conn
        command.downgrade(config, "base")
    assert inspect(engine).get_table_names() == ["alembic_version"]
    engine.dispose()
    migrate(empty)
    assert differences(empty) == []


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailableError):
        migrate(f"sqlite:///{tmp_path / 'file' / 'astraml.db'}")
