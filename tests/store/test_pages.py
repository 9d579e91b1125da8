"""Pages of jobs: what is on them, that they stay in place, and that indexes give them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, event, insert, select, text, update

from astraml_ray.spec.states import JobStatus
from astraml_ray.store.engine import Store, open_store
from astraml_ray.store.idempotency import find_key, prune_keys
from astraml_ray.store.jobs import change_status, create_job, list_jobs, list_live, new_job_id
from astraml_ray.store.logs import read_lines
from astraml_ray.store.metrics import expire_windows, list_names, merge_windows, query_windows
from astraml_ray.store.schedule_tables import occurrences, schedules
from astraml_ray.store.tables import job_labels, jobs
from astraml_ray.store.windows import collect
from tests.store.conftest import NOW, new_job
from tests.store.databases import Postgres

RUNNING, FAILED, CANCELLED = JobStatus.RUNNING, JobStatus.FAILED, JobStatus.CANCELLED


def listed(store: Store, **filters: Any) -> list[str]:
    with store.read() as conn:
        return [job.id for job in list_jobs(conn, **{"limit": 100, **filters})]


def pages(store: Store, limit: int, **filters: Any) -> list[str]:
    """All ids, page by page."""
    ids: list[str] = []
    while page := listed(store, limit=limit, before_id=ids[-1] if ids else None, **filters):
        ids += page
        assert len(ids) <= 100, "it goes round in a circle"
    return ids


@pytest.fixture
def many(store: Store) -> dict[str, dict[str, Any]]:
    """40 jobs, a second apart, by id: two projects, three labels, four states."""
    made: dict[str, dict[str, Any]] = {}
    with store.write() as conn:
        for number in range(40):
            at = NOW + number
            labels = {"team": "nlp" if number % 2 else "cv", **({"rare": "yes"} if number % 20 == 7 else {})}
            new = new_job(id=new_job_id(at), project_id=f"p{number % 3 // 2}", labels=labels)
            create_job(conn, new, now=at)
            status = [JobStatus.QUEUED, FAILED, CANCELLED, JobStatus.STARTING][number % 4]
            if status is not JobStatus.QUEUED:
                change_status(conn, new.id, status, reason=None, message=None, now=at)
            made[new.id] = {"project_id": new.project_id, "labels": labels, "status": status, "at": at}
    return made


def expected(many: dict[str, dict[str, Any]], keep: Callable[[dict[str, Any]], bool]) -> list[str]:
    return sorted((job_id for job_id, job in many.items() if keep(job)), reverse=True)


@pytest.mark.parametrize("limit", [4, 100])
def test_filters_and_pages(store: Store, many: dict[str, dict[str, Any]], limit: int) -> None:
    cases: list[tuple[dict[str, Any], Callable[[dict[str, Any]], bool]]] = [
        ({}, lambda job: True),
        ({"project_id": "p1"}, lambda job: job["project_id"] == "p1"),
        ({"status": [FAILED]}, lambda job: job["status"] is FAILED),
        ({"status": {FAILED, JobStatus.STARTING}}, lambda job: job["status"] in (FAILED, JobStatus.STARTING)),
        ({"status": list(JobStatus)}, lambda job: True),
        ({"status": []}, lambda job: False),
        ({"labels": {"team": "cv"}}, lambda job: job["labels"]["team"] == "cv"),
        ({"labels": {"team": "nlp", "rare": "yes"}}, lambda job: "rare" in job["labels"]),
        ({"labels": {"team": "cv", "rare": "yes"}}, lambda job: False),
        ({"labels": {}}, lambda job: True),
        ({"created_after": NOW + 30}, lambda job: job["at"] > NOW + 30),
        ({"created_before": NOW + 9}, lambda job: job["at"] < NOW + 9),
        ({"created_after": NOW + 9, "created_before": NOW + 20}, lambda job: NOW + 9 < job["at"] < NOW + 20),
        ({"created_after": NOW + 10**7}, lambda job: False),
        (
            {"project_id": "p0", "status": [FAILED, CANCELLED], "labels": {"team": "nlp"}, "created_after": NOW + 5},
            lambda job: (
                job["project_id"] == "p0"
                and job["status"] in (FAILED, CANCELLED)
                and job["labels"]["team"] == "nlp"
                and job["at"] > NOW + 5
            ),
        ),
        (
            {"status": [JobStatus.QUEUED, JobStatus.STARTING], "labels": {"team": "cv"}, "created_before": NOW + 31},
            lambda job: not job["status"].terminal and job["labels"]["team"] == "cv" and job["at"] < NOW + 31,
        ),
    ]
    for filters, keep in cases:
        assert pages(store, limit, **filters) == expected(many, keep), filters


def test_jobs_of_a_parent(store: Store, make_job: Callable[..., str]) -> None:
    parent = make_job()
    children = [make_job(parent_id=parent, relation="clone") for _ in range(3)]
    make_job(parent_id="other", relation="clone")
    assert listed(store, parent_id=parent) == children[::-1]


def scheduled(store: Store, schedule_id: str, job_ids: list[str | None]) -> None:
    """A schedule that has made these jobs, in another order than its instants are in."""
    row = {"id": schedule_id, "project_id": "p0", "document": {}, "api_version": "v2.1", "timing": {}, "subject": "ana"}
    row |= {"created_at": NOW, "handled_at": NOW, "failures": 0}
    times = {"kind": "backfill", "outcome": "succeeded", "decided_at": NOW}
    made = [{"schedule_id": schedule_id, "instant": -n, "job_id": one, **times} for n, one in enumerate(job_ids)]
    with store.write() as conn:
        conn.execute(insert(schedules), [row])
        conn.execute(insert(occurrences), made)


@pytest.mark.parametrize("limit", [4, 100])
def test_jobs_of_a_schedule(store: Store, many: dict[str, dict[str, Any]], limit: int) -> None:
    ids = sorted(many)
    mine = set(ids[::7])
    scheduled(store, "sch-1", [*ids[::7], None, None])
    scheduled(store, "sch-0", [*ids[1::7]])
    scheduled(store, "sch-2", [*ids[2::7]])
    cases: list[tuple[dict[str, Any], Callable[[dict[str, Any]], bool]]] = [
        ({}, lambda job: True),
        ({"project_ids": ["p0", "p1"]}, lambda job: True),
        ({"project_id": "p1"}, lambda job: job["project_id"] == "p1"),
        ({"status": [FAILED, CANCELLED]}, lambda job: job["status"] in (FAILED, CANCELLED)),
        ({"status": [JobStatus.QUEUED], "labels": {"team": "cv"}}, lambda job: job["status"] is JobStatus.QUEUED),
        ({"labels": {"team": "cv"}}, lambda job: job["labels"]["team"] == "cv"),
        ({"created_after": NOW + 9, "created_before": NOW + 20}, lambda job: NOW + 9 < job["at"] < NOW + 20),
    ]
    for filters, keep in cases:
        wanted = [job_id for job_id in expected(many, keep) if job_id in mine]
        assert wanted
        assert pages(store, limit, schedule_id="sch-1", **filters) == wanted, filters
    assert listed(store, schedule_id="sch-1", project_ids=[]) == []
    assert listed(store, schedule_id="sch-9") == []


def test_pages_stay_in_place_while_jobs_come(store: Store, make_job: Callable[..., str]) -> None:
    before = [make_job() for _ in range(20)][::-1]
    seen: list[str] = []
    while page := listed(store, limit=3, before_id=seen[-1] if seen else None):
        seen += page
        make_job()
        assert len(seen) <= 20
    assert seen == before


def test_listed_jobs_are_whole(store: Store, make_job: Callable[..., str]) -> None:
    make_job(labels={"a": "1", "b": "2"}, name="x")
    make_job(labels={"a": "3"})
    with store.read() as conn:
        assert [(job.name, job.labels) for job in list_jobs(conn, limit=9)] == [
            (None, {"a": "3"}),
            ("x", {"a": "1", "b": "2"}),
        ]


@contextmanager
def plans(conn: Connection) -> Iterator[list[str]]:
    """SQLite's plans of what is executed."""
    lines: list[str] = []

    def explain(_conn: Any, cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        if not many and statement.startswith(("SELECT", "WITH", "UPDATE", "DELETE")):
            rows = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
            lines.extend(row[3] for row in rows)

    event.listen(conn, "before_cursor_execute", explain)
    yield lines
    event.remove(conn, "before_cursor_execute", explain)


def scans(lines: list[str]) -> list[str]:
    """Steps that go through a whole table, or sort."""
    return [line for line in lines if ("SCAN" in line and "anon" not in line) or "TEMP B-TREE" in line]


def test_no_page_scans_or_sorts(sqlite_store: Store) -> None:
    before = new_job_id(NOW + 5)
    cases: list[dict[str, Any]] = [
        {"before_id": before},
        {"project_id": "p"},
        {"project_id": "p", "before_id": before},
        {"project_id": "p", "status": [FAILED]},
        {"status": [RUNNING]},
        {"labels": {"team": "nlp"}},
        {"labels": {"team": "nlp", "x": "y"}, "before_id": before},
        {"labels": {"team": "nlp", "x": "y"}, "project_id": "p", "status": [FAILED]},
        {"labels": {"team": "nlp"}, "status": [RUNNING]},
        {"parent_id": before},
        {"parent_id": before, "project_id": "p", "before_id": before},
        {"created_after": NOW},
        {"created_after": NOW, "created_before": NOW + 9, "project_id": "p"},
        {"schedule_id": "sch-1"},
        {"schedule_id": "sch-1", "project_id": "p", "labels": {"team": "nlp"}, "before_id": before},
        {"schedule_id": "sch-1", "status": [FAILED], "created_after": NOW},
    ]
    with sqlite_store.read() as conn:
        for filters in cases:
            with plans(conn) as lines:
                list_jobs(conn, limit=50, **filters)
            assert lines
            assert scans(lines) == [], filters
        with plans(conn) as lines:
            list_jobs(conn, limit=50, labels={"team": "nlp"}, created_after=NOW)
        assert any("job_labels" in line and "(key,value,job_id)>(?,?,?)" in line for line in lines)


def test_postgres_reads_a_stretch_of_one_index(postgres: Postgres, postgres_url: str) -> None:
    """Though a project's jobs are all old, and statistics say that they are many."""
    store = open_store(postgres_url)
    fill(store, 0, 3000)
    with store.write() as conn:
        old = select(jobs.c.id).order_by(jobs.c.id).limit(600)
        conn.execute(update(jobs).where(jobs.c.id.in_(old)).values(project_id="old", parent_id="x"))
        ids = list(conn.execute(select(jobs.c.id).order_by(jobs.c.id)).scalars())
    scheduled(store, "sch-old", [*ids[:600]])
    scheduled(store, "sch-new", [*ids[600:]])
    with store.write() as conn:
        conn.execute(text("ANALYZE jobs, job_labels, occurrences"))
    before = new_job_id(NOW - 2800)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"project_id": "old"}, "ix_jobs_project_id_id"),
        ({"project_id": "old", "before_id": before}, "ix_jobs_project_id_id"),
        ({"project_id": "old", "status": [JobStatus.SUCCEEDED]}, "ix_jobs_project_id_status_id"),
        ({"status": [JobStatus.SUCCEEDED], "before_id": before}, "ix_jobs_status_id"),
        ({"parent_id": "x"}, "ix_jobs_parent_id_id"),
        ({"labels": {"team": "a"}, "created_after": NOW - 50}, "pk_job_labels"),
        ({"labels": {"team": "a"}, "status": [RUNNING]}, "ix_jobs_status_id"),
        ({"created_after": NOW - 50}, "pk_jobs"),
        ({"schedule_id": "sch-old"}, "ix_occurrences_schedule_id_job_id"),
        ({"schedule_id": "sch-new", "before_id": before}, "ix_occurrences_schedule_id_job_id"),
    ]
    with store.read() as conn:
        conn.execute(text("SET LOCAL enable_seqscan = off"))  # so few rows could as well be read at once
        for filters, index in cases:
            with postgres_plans(conn) as lines:
                list_jobs(conn, limit=50, **filters)
            plan = "\n".join(lines)
            assert f"using {index} on" in plan, plan
            assert "Seq Scan" not in plan, plan
            # What was read and thrown away.
            assert sum(int(line.split(":")[1]) for line in lines if "Rows Removed" in line) < 100, plan
    store.close()
    postgres.clear(postgres_url)


@contextmanager
def postgres_plans(conn: Connection) -> Iterator[list[str]]:
    """PostgreSQL's plan of the page's ids, with what it did."""
    lines: list[str] = []

    def explain(_conn: Any, cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        if statement.startswith("SELECT jobs."):
            query = f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, BUFFERS OFF, SUMMARY OFF) {statement}"
            lines.extend(row[0] for row in cursor.connection.cursor().execute(query, parameters).fetchall())

    event.listen(conn, "before_cursor_execute", explain)
    yield lines
    event.remove(conn, "before_cursor_execute", explain)


def test_several_states_are_sorted_page_by_page_only(sqlite_store: Store) -> None:
    with sqlite_store.read() as conn:
        with plans(conn) as lines:
            list_jobs(conn, limit=50, project_id="p", status=[FAILED, CANCELLED])
        searches = [line for line in lines if line.startswith("SEARCH jobs USING COVERING INDEX")]
        assert len(searches) == 2
        assert all("(project_id,status,id)>(?,?,?)" in line for line in searches)
        assert not [line for line in lines if line.startswith("SCAN jobs")]


def test_live_jobs_have_an_index_of_their_own(sqlite_store: Store) -> None:
    with sqlite_store.read() as conn, plans(conn) as lines:
        list_live(conn)
    assert any("ix_jobs_live" in line for line in lines)


def test_nothing_else_scans(sqlite_store: Store) -> None:
    with sqlite_store.write() as conn:
        job_id = create_job(conn, new_job(labels={"a": "b"}), now=NOW).id
        with plans(conn) as lines:
            merge_windows(conn, job_id, {"loss": collect([(NOW, 1, 1.0)], 30).values()})
            query_windows(conn, job_id, start=NOW - 5, end=NOW + 5)
            query_windows(conn, job_id, step_from=1, step_to=5)
            list_names(conn, job_id)
            expire_windows(conn, now=NOW)
            read_lines(conn, job_id, after=5, limit=5)
            read_lines(conn, job_id, after=5, limit=5, tail=3)
            find_key(conn, "p", "r", "k")
            prune_keys(conn, now=NOW)
            change_status(conn, job_id, FAILED, reason=None, message=None, now=NOW)
    assert len(lines) > 30
    # Names come from a recursive query of one row per name; the rest of a page is found by key.
    assert [line for line in scans(lines) if line not in ("SCAN names", "SCAN few", "SCAN CONSTANT ROW")] == []


def test_a_page_of_many_jobs_reads_as_little_as_one_of_few(sqlite_store: Store) -> None:
    """Counted in steps of SQLite's machine, not in seconds."""
    filters: list[dict[str, Any]] = [
        {},
        {"project_id": "p1"},
        {"status": [JobStatus.SUCCEEDED]},
        {"labels": {"team": "a"}},
        {"labels": {"team": "a"}, "status": [RUNNING]},
        {"created_after": NOW + 10},
    ]
    few, many = [], []
    for counts, first, last in ((few, 0, 300), (many, 300, 6000)):
        fill(sqlite_store, first, last)
        counts += [steps(sqlite_store, one) for one in filters]
    assert all(b <= a * 1.5 + 50 for a, b in zip(few, many, strict=True)), (few, many)


def fill(store: Store, first: int, last: int) -> None:
    rows = [
        {
            "id": new_job_id(NOW - number),
            "project_id": f"p{number % 2}",
            "status": "succeeded",
            "spec": {},
            "spec_digest": "",
            "api_version": "2.1",
            "priority": 0,
            "created_at": NOW - number,
            "queued_at": NOW - number,
        }
        for number in range(first, last)
    ]
    with store.write() as conn:
        conn.execute(insert(jobs), rows)
        conn.execute(insert(job_labels), [{"key": "team", "value": "a", "job_id": row["id"]} for row in rows])


def steps(store: Store, filters: dict[str, Any]) -> int:
    count = 0

    def tick() -> int:
        nonlocal count
        count += 1
        return 0

    with store.read() as conn:
        raw = conn.connection.driver_connection
        assert raw is not None
        raw.set_progress_handler(tick, 10)
        list_jobs(conn, limit=50, **filters)
        raw.set_progress_handler(None, 0)
    return count
