"""A reconciler over a real store, with a pretended cluster and clock."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from astraml_ray.control.admission import Capacity
from astraml_ray.control.controller import Reconciler
from astraml_ray.spec.loading import parse_spec
from astraml_ray.store.attempts import AttemptRecord, list_attempts
from astraml_ray.store.audit import Actor
from astraml_ray.store.engine import Store, migrate, open_store
from astraml_ray.store.events import list_events
from astraml_ray.store.jobs import create_job, get_job, request_cancel
from astraml_ray.store.projects import create_project
from astraml_ray.store.records import JobRecord, NewJob, new_job_id
from tests.control.fake_launcher import FakeLauncher
from tests.control.webhook_site import NOW, P, Site
from tests.receiver import Receiver, serve


@dataclass
class World:
    """The service without processes: what the API would write, what runners would report."""

    store: Store
    launcher: FakeLauncher
    controller: Reconciler
    now: float = 1_000_000.0
    seq: dict[str, int] = field(default_factory=dict)

    def submit(self, **fields: Any) -> str:
        spec = parse_spec({"dataset": "s3://b/d", "model": "tiny-bert", "resources": {"gpus": 0}, **fields})
        job_id = new_job_id(self.now)
        self.now += 0.001
        new = NewJob(
            id=job_id,
            project_id=spec.project_id,
            name=spec.name,
            spec=spec.canonical(),
            spec_digest=spec.digest(),
            api_version=spec.api_version,
            priority=spec.priority,
            labels=spec.labels,
        )
        with self.store.write() as conn:
            create_job(conn, new, now=self.now)
        return job_id

    def tick(self, seconds: float = 1.0) -> None:
        self.now += seconds
        self.controller.tick()

    def job(self, job_id: str) -> JobRecord:
        with self.store.read() as conn:
            return get_job(conn, job_id)

    def events(self, job_id: str) -> list[str]:
        with self.store.read() as conn:
            return [event.type for event in list_events(conn, job_id, limit=1000)]

    def attempts(self, job_id: str) -> list[AttemptRecord]:
        with self.store.read() as conn:
            return list_attempts(conn, job_id)

    def cancel(self, job_id: str, mode: str = "now") -> None:
        with self.store.write() as conn:
            request_cancel(conn, job_id, mode, now=self.now)

    def report(self, job_id: str, runner: str = "r1", *, seq: int | None = None, **fields: Any) -> dict[str, Any]:
        self.seq[runner] = self.seq.get(runner, 0) + 1 if seq is None else seq
        report = {"seq": self.seq[runner], "windows": {}, "lines": [], "events": [], **fields}
        return self.controller.report(job_id, runner, report)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    url = f"sqlite:///{tmp_path / 'control.db'}"
    migrate(url)
    store = open_store(url)
    launcher = FakeLauncher(Capacity(cpus=4, gpus=0, free_cpus=4, free_gpus=0))
    made = World(store, launcher, None)  # type: ignore[arg-type]
    made.controller = Reconciler(store, launcher, holder="test", storage=str(tmp_path / "runs"), clock=lambda: made.now)
    yield made
    store.close()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "control.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
def site(template: Path, tmp_path: Path) -> Iterator[Site]:
    store = open_store(f"sqlite:///{shutil.copy(template, tmp_path / 'control.db')}")
    with store.write() as conn:
        create_project(conn, P, actor=Actor("root"), now=NOW)
    yield Site(store, tmp_path)
    store.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with serve() as made:
        yield made
