"""The real app over a real store, in this process or behind a real server."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from astraml_ray.access.issuing import ensure_admin_token
from astraml_ray.api.app import ApiLimits, Services, build_app
from astraml_ray.spec.loading import parse_spec
from astraml_ray.spec.states import JobStatus
from astraml_ray.store.audit import Actor
from astraml_ray.store.engine import Store, migrate, open_store
from astraml_ray.store.jobs import NewJob, change_status, create_job, new_job_id, update_job
from astraml_ray.store.projects import create_project
from astraml_ray.store.schedules import ScheduleRecord, create_schedule
from tests.store.databases import Postgres, serve_postgres

REFERENCE: dict[str, Any] = {
    "project_id": "p-demo",
    "dataset": "s3://bucket/dataset",
    "model": "bert-base",
    "hyperparams": {"batch_size": 32, "lr": 3e-5, "epochs": 5, "early_stopping": {"patience": 5}},
    "resources": {"gpus": 1},
}
FAST = ApiLimits(poll_s=0.01, max_poll_s=0.05, settle_s=0.0, body_timeout_s=10.0)


class FakeValidator:
    """A dry run that tells what a test wants."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.grants: list[str | None] = []
        self.answer: Callable[[dict[str, Any]], dict[str, Any]] = lambda spec: {
            "spec": spec,
            "dataset": {"splits": {}},
            "steps": {"per_epoch": 1, "total": 5, "evaluations": 5},
            "warnings": [],
        }
        self.inspection: Callable[[dict[str, Any], int], dict[str, Any]] = lambda spec, limit: {
            "rows_are": "texts",
            "columns": [],
            "splits": {},
            "leakage": [],
            "hashing": {"share": 1.0, "most_rows": 1},
            "limit": limit,
            "split_off": None,
            "findings": [],
        }
        self.previewed: Callable[..., dict[str, Any]] = lambda spec, rows, draws: {
            "kind": "texts",
            "epoch": 0,
            "seed": spec["seed"],
            "augmentation": [],
            "rows": [],
            "left_out": 0,
        }

    def validate(self, spec: dict[str, Any], *, grant: str | None = None) -> dict[str, Any]:
        self.seen.append(spec)
        self.grants.append(grant)
        return self.answer(spec)

    def inspect(self, spec: dict[str, Any], *, limit: int, grant: str | None = None) -> dict[str, Any]:
        self.seen.append(spec)
        self.grants.append(grant)
        return self.inspection(spec, limit)

    def preview(self, spec: dict[str, Any], *, rows: int, draws: int, grant: str | None = None) -> dict[str, Any]:
        self.seen.append(spec)
        self.grants.append(grant)
        return self.previewed(spec, rows=rows, draws=draws)


def admin_of(store: Store, folder: Path) -> dict[str, str]:
    """The headers of an org_admin."""
    return {"Authorization": f"Bearer {ensure_admin_token(store, folder / 'token', subject='root', now=time.time())}"}


@dataclass
class Api:
    """An app, a client of it, and what is below."""

    services: Services
    app: FastAPI
    client: TestClient
    validator: FakeValidator
    nudges: list[float] = field(default_factory=list)

    @property
    def store(self) -> Store:
        return self.services.store

    @property
    def auth(self) -> dict[str, str]:
        """The client's headers, for other clients."""
        return {"Authorization": self.client.headers["authorization"]}

    def submit(self, spec: dict[str, Any] | None = None, **headers: str) -> httpx.Response:
        return self.client.post("/v2.1/jobs", json=spec or REFERENCE, headers=headers)

    def new_job(self, **changes: Any) -> str:
        """A queued job, made below the API."""
        spec = parse_spec({**REFERENCE, **changes})
        now = time.time()
        with self.store.write() as conn:
            create_project(conn, spec.project_id, actor=Actor("test"), now=now)
            new = NewJob(
                new_job_id(now), spec.canonical(), spec.digest(), "v2.1", spec.project_id, spec.name, spec.priority
            )
            return create_job(conn, new, now=now).id

    def new_schedule(self, schedule_id: str, **changes: Any) -> str:
        """A schedule of root's, made below the API."""
        document = {**REFERENCE, "schedule": {"cron": "0 2 * * *"}, **changes}
        spec, now = parse_spec(document), time.time()
        timing = spec.canonical()["schedule"]
        record = ScheduleRecord(
            schedule_id, spec.project_id, None, document, None, "v2.1", None, timing, "root", None, now, now, now + 60
        )
        with self.store.write() as conn:
            create_project(conn, spec.project_id, actor=Actor("test"), now=now)
            create_schedule(conn, record)
        return schedule_id

    def move(self, job_id: str, *statuses: JobStatus, **fields: Any) -> None:
        """Takes a job through states."""
        with self.store.write() as conn:
            for status in statuses:
                reason = "early_stopping" if status is JobStatus.SUCCEEDED else None
                change_status(conn, job_id, status, reason=reason, message=None, now=time.time())
            if fields:
                update_job(conn, job_id, **fields)

    def ended_job(self, **fields: Any) -> str:
        """A job that failed after it had run."""
        job_id = self.new_job()
        self.move(job_id, JobStatus.STARTING, JobStatus.RUNNING, JobStatus.FAILED, **fields)
        return job_id


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "astraml.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    return f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'astraml.db')}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[tuple[Postgres, str]]:
    """A server, and the URL of a migrated database of it."""
    with serve_postgres() as server:
        url = server.empty()
        migrate(url)
        yield server, url


@pytest.fixture
def make_api(sqlite_url: str, tmp_path: Path) -> Iterator[Callable[..., Api]]:
    """Builds an app over the test's database, and an org_admin's client of it; several are several processes' worth."""
    with ExitStack() as stack:

        def make(url: str | None = None, limits: ApiLimits = FAST, **given: Any) -> Api:
            store = open_store(url or sqlite_url)
            stack.callback(store.close)
            validator = FakeValidator()
            nudges: list[float] = []
            fields = {"validator": validator, "nudge": lambda: nudges.append(1.0), "limits": limits}
            fields |= {"keys": tmp_path / "master.key", **given}
            services = Services(store=store, **fields)
            app = build_app(services)
            client = stack.enter_context(TestClient(app, raise_server_exceptions=False))
            client.headers.update(admin_of(store, tmp_path))
            return Api(services, app, client, validator, nudges)

        yield make


@pytest.fixture
def api(make_api: Callable[..., Api]) -> Api:
    return make_api()


@pytest.fixture(params=["sqlite", "postgresql"])
def either_url(request: pytest.FixtureRequest) -> str:
    """An empty, migrated database of each kind."""
    if request.param == "sqlite":
        return str(request.getfixturevalue("sqlite_url"))
    server, url = request.getfixturevalue("postgres")
    server.clear(url)
    return str(url)


@pytest.fixture
def either_api(either_url: str, make_api: Callable[..., Api]) -> Api:
    """The app over each of the databases."""
    return make_api(either_url)


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """A real server in a thread, with the parser that the service's proxy uses; gives its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, http="h11", log_level="critical", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def wait_until(condition: Callable[[], bool]) -> None:
    """Gives a thread or a server the time it needs."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)
