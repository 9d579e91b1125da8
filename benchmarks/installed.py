"""An installation of the service for benchmarks: its processes by group, and nothing of it afterwards."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

__all__ = ["Service", "say", "serve"]

GROUPS = {
    "ray::ServeReplica:astraml": "api",
    "ray::ServeReplica:bare": "bare",
    "ray::ProxyActor": "proxy",
    "ray::Controller": "controller",
}


class Service:
    """An installation that runs."""

    def __init__(self, folder: Path) -> None:
        from astraml_ray.cli.up import start_service
        from astraml_ray.client.endpoint import find_endpoint
        from astraml_ray.control.head import free_port
        from astraml_ray.installation import load_installation
        from astraml_ray.settings import load_settings

        self.folder = folder
        self.settings = load_settings()
        write_dataset(folder / "s3" / "bucket" / "dataset")
        start_service(self.settings, port=free_port(), s3_folder=str(folder / "s3"))
        installation = load_installation(self.settings.home)
        assert installation is not None
        assert installation.head is not None
        _leave_on_sigterm()
        self.installation, self.head = installation, installation.head
        endpoint = find_endpoint(self.settings)
        self.address = endpoint.address
        self.headers = {"Authorization": f"Bearer {endpoint.token}"} if endpoint.token else {}
        self.database = self.settings.home / "astraml.db"

    def processes(self) -> dict[str, list[psutil.Process]]:
        """The cluster's processes by group; what is no group is `rest`."""
        found: dict[str, list[psutil.Process]] = {name: [] for name in (*GROUPS.values(), "rest")}
        for process in psutil.Process(self.head["pid"]).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                title = " ".join(process.cmdline())
                found[next((name for start, name in GROUPS.items() if title.startswith(start)), "rest")].append(process)
        return found

    @contextlib.contextmanager
    def cores(self, into: dict[str, float]) -> Iterator[None]:
        """CPU time of each group by the time that the block takes."""
        groups, started = self.processes(), time.perf_counter()
        before = {name: _cpu(of) for name, of in groups.items()}
        yield
        took = time.perf_counter() - started
        into |= {name: round((_cpu(of) - before[name]) / took, 3) for name, of in groups.items()}

    def settle(self) -> None:
        """Ends what is queued, so that every round begins with an empty queue, and waits for the controller to idle."""
        from sqlalchemy import update

        from astraml_ray.store.engine import open_store
        from astraml_ray.store.tables import jobs

        store = open_store(self.installation.database_url)
        ended = {"status": "cancelled", "reason": "cancelled", "finished_at": time.time()}
        with store.write() as conn:
            conn.execute(update(jobs).where(jobs.c.status == "queued").values(ended))
        store.close()
        for _ in range(40):
            cores: dict[str, float] = {}
            with self.cores(cores):
                time.sleep(0.5)
            if cores["controller"] < 0.1:
                return

    def count(self, where: str, value: str) -> int:
        """Rows of `jobs` whose column has a value."""
        with contextlib.closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
            return int(connection.execute(f"SELECT count(*) FROM jobs WHERE {where} = ?", (value,)).fetchone()[0])

    @contextlib.contextmanager
    def driver(self) -> Iterator[None]:
        """This process as a driver of the cluster."""
        import ray

        from astraml_ray.control.head import token_environment

        os.environ.update(token_environment(self.installation.ray_token_path))
        address = self.installation.ray_address
        ray.init(address=address, namespace="bench", log_to_driver=False, logging_level="error")
        try:
            yield
        finally:
            ray.shutdown()
            _leave_on_sigterm()


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[Service]:
    """An installation, and nothing of it afterwards."""
    from astraml_ray.cli.up import stop_service
    from astraml_ray.settings import load_settings

    for name in [name for name in os.environ if name.startswith(("AWS_", "RAY_", "ASTRAML_"))]:
        del os.environ[name]
    _leave_on_sigterm()
    os.environ |= {"ASTRAML_HOME": str(folder / "home"), "ASTRAML_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    try:
        yield Service(folder)
    finally:
        stop_service(load_settings())


def _leave_on_sigterm() -> None:
    # Such that what was started is ended. Ray takes the handler away.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def write_dataset(folder: Path) -> None:
    """405 short texts of three classes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    words = {
        "fruit": ["apple", "pear", "plum"],
        "metal": ["iron", "zinc", "tin"],
        "bird": ["owl", "crow", "jay"],
    }
    chance = random.Random(0)
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in (("train", 405), ("validation", 60), ("test", 50)):
        labels = [chance.choice(sorted(words)) for _ in range(rows)]
        texts = [" ".join(chance.choices([*words[label], "the", "of"], k=8)) for label in labels]
        pq.write_table(pa.table({"text": texts, "label": labels}), folder / f"{split}.parquet")


def say(text: str) -> None:
    """Progress, on standard error."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _cpu(processes: list[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
    return total
