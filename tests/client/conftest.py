"""The real API on a real database, over real HTTP."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from click.testing import CliRunner, Result

from astraml_ray.access.issuing import ensure_admin_token
from astraml_ray.access.targets import AllowedTargets
from astraml_ray.api.app import ApiLimits, Services, build_app
from astraml_ray.cli.main import main
from astraml_ray.client import Client
from astraml_ray.spec.states import JobStatus
from astraml_ray.store.engine import Store, migrate, open_store
from astraml_ray.store.jobs import change_status, get_job, update_job
from astraml_ray.store.logs import append_lines

SPEC: dict[str, Any] = {"project_id": "p-demo", "dataset": "s3://bucket/dataset", "model": "bert-base"}


class DryRun:
    """The real dry run, imported only where it is wanted: it brings torch."""

    def validate(self, spec: dict[str, Any], *, grant: str | None = None) -> dict[str, Any]:
        from astraml_ray.control.dry_run import dry_run

        return dry_run(spec)

    def inspect(self, spec: dict[str, Any], *, limit: int, grant: str | None = None) -> dict[str, Any]:
        from astraml_ray.control.dry_run import inspect

        return inspect(spec, limit=limit)

    def preview(self, spec: dict[str, Any], *, rows: int, draws: int, grant: str | None = None) -> dict[str, Any]:
        from astraml_ray.control.dry_run import preview

        return preview(spec, rows=rows, draws=draws)


@dataclass
class LiveService:
    """A service that listens. Jobs move as tests move them: there is no controller."""

    store: Store
    keys: Path
    port: int = field(default=0)
    targets: AllowedTargets = field(default_factory=AllowedTargets)
    _server: uvicorn.Server | None = None
    _thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listens, again on the same port."""
        limits = ApiLimits(poll_s=0.02, max_poll_s=0.05, settle_s=0.05)
        given: dict[str, Any] = {"limits": limits, "keys": self.keys, "targets": self.targets}
        services = Services(self.store, DryRun(), nudge=lambda: None, **given)
        app = build_app(services)
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([listener],), daemon=True)
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            time.sleep(0.01)

    def stop(self) -> None:
        """Is gone, with every connection."""
        assert self._server is not None
        assert self._thread is not None
        self._server.should_exit = True
        self._thread.join(10)
        assert not self._thread.is_alive()

    def move(self, job_id: str, *statuses: str, reason: str = "test", **fields: Any) -> None:
        """Takes a job through states; fields are set with the last one."""
        for status in statuses:
            last = fields if status == statuses[-1] else {}
            with self.store.write() as conn:
                change_status(conn, job_id, JobStatus(status), reason=reason, message=None, now=time.time(), **last)

    def set(self, job_id: str, **fields: Any) -> None:
        with self.store.write() as conn:
            update_job(conn, job_id, **fields)

    def log(self, job_id: str, *texts: str, rank: int | None = 0, first: int = 1, level: str = "INFO") -> None:
        """Adds lines of one rank, numbered from `first` on."""
        lines = [
            {"attempt": 1, "rank": rank, "level": level, "at": time.time(), "text": text, "sequence": number}
            for number, text in enumerate(texts, first)
        ]
        with self.store.write() as conn:
            append_lines(conn, job_id, f"1.{rank}", lines)

    def status_of(self, job_id: str) -> str:
        with self.store.read() as conn:
            return get_job(conn, job_id).status.value


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("database") / "astraml.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
def service(database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveService]:
    """A service with no jobs, to which ASTRAML_ADDRESS leads."""
    store = open_store(f"sqlite:///{shutil.copy(database, tmp_path / 'astraml.db')}")
    live = LiveService(store, tmp_path / "master.key")
    live.start()
    monkeypatch.setenv("ASTRAML_ADDRESS", live.address)
    monkeypatch.setenv("ASTRAML_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ASTRAML_TOKEN", ensure_admin_token(store, tmp_path / "token", subject="root", now=time.time()))
    yield live
    live.stop()
    store.close()


@pytest.fixture
def client(service: LiveService) -> Iterator[Client]:
    with Client() as made:
        yield made


@pytest.fixture
def job_id(client: Client) -> str:
    """A queued job."""
    return str(client.submit(SPEC)["id"])


Astraml = Callable[..., Result]


@pytest.fixture
def astraml(service: LiveService, monkeypatch: pytest.MonkeyPatch) -> Astraml:
    """Runs a command line in this process, on a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: str, code: int = 0) -> Result:
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == code, f"{done.exit_code}\n{done.stdout}\n{done.stderr}\n{done.exception!r}"
        return done

    return run
