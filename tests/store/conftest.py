"""`store`: a migrated database of either kind, empty for each test."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from astraml_ray.store.engine import Store, migrate, open_store
from astraml_ray.store.jobs import NewJob, create_job, new_job_id
from tests.store.databases import Postgres, serve_postgres

NOW = 1_800_000_000.0

_counter = itertools.count()

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def new_job(**given: Any) -> NewJob:
    """A job to be made; ids grow."""
    values: dict[str, Any] = {
        "id": new_job_id(NOW + next(_counter) / 1000),
        "spec": {"model": "bert-base"},
        "spec_digest": "0" * 64,
        "api_version": "2.1",
        "project_id": "p-demo",
        "name": None,
        "priority": 0,
    }
    return NewJob(**{**values, **given})


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with serve_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url(postgres: Postgres) -> str:
    """A migrated database; a new one for each test would take most of the time."""
    url = postgres.empty()
    migrate(url)
    return url


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "astraml.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of a migrated database."""
    if request.param == "sqlite":
        template = request.getfixturevalue("sqlite_template")
        yield f"sqlite:///{shutil.copy(template, tmp_path / 'astraml.db')}"
        return
    server: Postgres = request.getfixturevalue("postgres")
    shared: str = request.getfixturevalue("postgres_url")
    yield shared
    server.clear(shared)


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = open_store(url)
    yield opened
    opened.close()


@pytest.fixture
def sqlite_store(sqlite_template: Path, tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'astraml.db')}")
    yield opened
    opened.close()


@pytest.fixture
def job_id(store: Store) -> str:
    """A queued job."""
    with store.write() as conn:
        return create_job(conn, new_job(), now=NOW).id


@pytest.fixture
def make_job(store: Store) -> Callable[..., str]:
    """Makes a queued job of what is given."""

    def make(now: float = NOW, **given: Any) -> str:
        with store.write() as conn:
            return create_job(conn, new_job(**given), now=now).id

    return make
