"""`store`: a migrated database of either kind, empty for each test; and those who act on it."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from astraml_ray.access.permissions import Permission, Role
from astraml_ray.access.tokens import Principal
from astraml_ray.store.engine import Store, migrate, open_store
from astraml_ray.store.jobs import NewJob, create_job, new_job_id
from astraml_ray.store.projects import create_project
from tests.store.databases import Postgres, serve_postgres

# How long an example takes is the machine's affair.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

NOW = 1_800_000_000.0

_counter = itertools.count()


def principal(
    role: Role | None = None,
    *,
    project: str = "p1",
    org: Role | None = None,
    subject: str = "ana",
    scopes: set[Permission] | None = None,
    bound: str | None = None,
    expires_at: float | None = None,
) -> Principal:
    """Someone with a role in a project, or in the organisation."""
    return Principal(
        token_id="t" * 12,
        subject=subject,
        org_role=org,
        roles={project: role} if role else {},
        scopes=None if scopes is None else frozenset(scopes),
        expires_at=expires_at,
        bound=bound,
    )


ROOT = principal(org=Role.ORG_ADMIN, subject="root")


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "astraml.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with serve_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url(postgres: Postgres) -> str:
    url = postgres.empty()
    migrate(url)
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        template = request.getfixturevalue("sqlite_template")
        return f"sqlite:///{shutil.copy(template, tmp_path / 'astraml.db')}"
    server: Postgres = request.getfixturevalue("postgres")
    shared: str = request.getfixturevalue("postgres_url")
    server.clear(shared)
    return shared


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """With the projects p1 and p2."""
    opened = open_store(url)
    with opened.write() as conn:
        for project_id in ("p1", "p2"):
            create_project(conn, project_id, actor=ROOT.actor, now=NOW)
    yield opened
    opened.close()


@pytest.fixture
def make_job(store: Store) -> Callable[[], str]:
    """Makes a queued job in p1."""

    def make() -> str:
        new = NewJob(
            id=new_job_id(NOW + next(_counter) / 1000),
            spec={"model": "m"},
            spec_digest="0" * 64,
            api_version="v2.1",
            project_id="p1",
            name=None,
            priority=0,
        )
        with store.write() as conn:
            return create_job(conn, new, now=NOW).id

    return make
