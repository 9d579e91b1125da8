"""What the controller takes: memory, and the time of a tick, without jobs and with many."""

from __future__ import annotations

import time
from typing import Any

from effort import Effort
from http_load import percentiles
from installed import Service
from store_pages import SPEC, fill_sqlite

__all__ = ["measure_memory", "measure_ticks"]


def measure_memory(service: Service, effort: Effort) -> dict[str, Any]:
    """A controller that has just begun, without jobs and with many that have ended."""
    found = {"0": _memory_of_controller(service, effort.tick_s)}
    fill_sqlite(service.database, effort.finished, project="p-memory")
    found[str(effort.finished)] = _memory_of_controller(service, effort.tick_s)
    _forget(service, "p-memory")
    few, many = found["0"], found[str(effort.finished)]
    ratios = {f"ratio_of_{name}": round(many[name] / few[name], 3) for name in ("rss_mb", "uss_mb")}
    return {**ratios, "finished_jobs": found}


def _memory_of_controller(service: Service, seconds: float) -> dict[str, float]:
    import httpx

    (old,) = service.processes()["controller"]
    old.kill()
    while not (new := [p for p in service.processes()["controller"] if p.pid != old.pid]):
        time.sleep(0.1)
    while httpx.get(f"{service.address}/readyz", timeout=30.0).status_code != 200:
        time.sleep(0.1)
    cores: dict[str, float] = {}
    with service.cores(cores):
        time.sleep(seconds)
    memory = new[0].memory_full_info()
    megabytes = {"rss_mb": round(memory.rss / 1e6, 1), "uss_mb": round(memory.uss / 1e6, 1)}
    return {**megabytes, "cores": cores["controller"], "seconds": seconds}


def _forget(service: Service, project: str) -> None:
    """The installation is as it was."""
    from sqlalchemy import delete, select

    from astraml_ray.store.engine import open_store
    from astraml_ray.store.tables import job_labels, jobs

    store = open_store(service.installation.database_url)
    with store.write() as conn:
        ids = select(jobs.c.id).where(jobs.c.project_id == project)
        conn.execute(delete(job_labels).where(job_labels.c.job_id.in_(ids)))
        conn.execute(delete(jobs).where(jobs.c.project_id == project))
    store.close()


def measure_ticks(service: Service, effort: Effort) -> dict[str, Any]:
    """Ticks as the controller makes them, on stores of their own, in turn."""
    from astraml_ray.control.controller import Reconciler
    from astraml_ray.control.launcher import RayLauncher
    from astraml_ray.store.engine import migrate, open_store

    queued = effort.finished // 10
    names = ("0 jobs", f"{effort.finished} finished", f"{queued} queued")
    stores = {}
    for number, name in enumerate(names):
        path = service.folder / f"ticks-{number}.db"
        migrate(f"sqlite:///{path}")
        stores[name] = open_store(f"sqlite:///{path}")
    fill_sqlite(service.folder / "ticks-1.db", effort.finished, project="p-ticks")
    _queue(stores[names[2]], queued)
    times: dict[str, list[float]] = {name: [] for name in names}
    with service.driver():
        launcher = RayLauncher("bench", local_cores=service.installation.local_cores)
        controllers = {name: Reconciler(store, launcher, holder="b", storage="/x") for name, store in stores.items()}
        for turn in range(effort.ticks + 2):  # the first ones take the lease and explain the queue
            for name, controller in controllers.items():
                started = time.perf_counter()
                controller.tick()
                if turn > 1:
                    times[name].append(time.perf_counter() - started)
    for store in stores.values():
        store.close()
    found = {name: percentiles(of) for name, of in times.items()}
    base = found[names[0]]["p50_ms"] or 1.0
    return {"ratios_of_p50": {name: round((of["p50_ms"] or 0.0) / base, 2) for name, of in found.items()}, **found}


def _queue(store: Any, count: int) -> None:
    from astraml_ray.spec.loading import parse_spec
    from astraml_ray.store.jobs import NewJob, create_job, new_job_id

    spec = parse_spec(SPEC)
    with store.write() as conn:
        for number in range(count):
            now = time.time() + number / 1000
            new = NewJob(new_job_id(now), spec.canonical(), spec.digest(), spec.api_version, "p-ticks", None, 0)
            create_job(conn, new, now=now)
