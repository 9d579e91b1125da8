"""One key makes one job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from astraml_ray.errors import StoreBusyError
from astraml_ray.spec.states import JobStatus
from astraml_ray.store.engine import Store
from astraml_ray.store.idempotency import KeyRecord, KeyTakenError, find_key, prune_keys, store_key
from astraml_ray.store.jobs import change_status, create_job, list_jobs
from tests.store.conftest import NOW, new_job
from tests.store.test_engine import together

ROUTE = "POST /v2.1/jobs"


def record(job_id: str, key: str = "k", at: float = NOW) -> KeyRecord:
    return KeyRecord("p-demo", ROUTE, key, "f" * 64, {"model": "m", "a": [1, 2.0]}, 201, {"z": 1, "a": 2}, job_id, at)


def test_a_key_is_found_in_its_scope_only(store: Store, job_id: str) -> None:
    with store.write() as conn:
        store_key(conn, record(job_id))
    with store.read() as conn:
        found = find_key(conn, "p-demo", ROUTE, "k")
        assert found == record(job_id)
        assert list(found.body) == ["z", "a"]  # a replay is the same to the letter
        assert find_key(conn, "p-other", ROUTE, "k") is None
        assert find_key(conn, "p-demo", "POST /v2.1/jobs/x/clone", "k") is None
        assert find_key(conn, "p-demo", ROUTE, "K") is None


def test_a_key_is_stored_once(store: Store, make_job: Callable[..., str]) -> None:
    first, second = make_job(), make_job()
    with store.write() as conn:
        store_key(conn, record(first))
    with pytest.raises(KeyTakenError), store.write() as conn:
        store_key(conn, record(second))
    with store.write() as conn:
        store_key(conn, replace(record(second), route="other"))
        found = find_key(conn, "p-demo", ROUTE, "k")
    assert found is not None
    assert found.job_id == first


def test_fifty_concurrent_requests_with_one_key_make_one_job(store: Store) -> None:
    answers: list[str] = []

    def submit(number: int) -> None:
        for _ in range(50):
            try:
                with store.write() as conn:
                    known = find_key(conn, "p-demo", ROUTE, "k")
                    if known is None:
                        made = create_job(conn, new_job(), now=NOW)
                        store_key(conn, known := record(made.id))
                answers.append(known.job_id)
                return
            except StoreBusyError:  # and the key that was taken meanwhile
                continue
        raise AssertionError("never answered")

    assert together(50, submit) == []
    with store.read() as conn:
        (job,) = list_jobs(conn, limit=10)
    assert answers == [job.id] * 50


def test_keys_are_kept_for_a_day_and_while_their_job_lives(store: Store, make_job: Callable[..., str]) -> None:
    live, ended = make_job(), make_job()
    day = 86_400
    with store.write() as conn:
        change_status(conn, ended, JobStatus.FAILED, reason="x", message=None, now=NOW)
        store_key(conn, record(ended, "old", NOW - day - 1))
        store_key(conn, record(ended, "young", NOW - day + 1))
        store_key(conn, record(live, "old of a live job", NOW - 30 * day))
        assert prune_keys(conn, now=NOW) == 1
        assert prune_keys(conn, now=NOW) == 0
        left = [key for key in ("old", "young", "old of a live job") if find_key(conn, "p-demo", ROUTE, key)]
        assert left == ["young", "old of a live job"]


def test_pruning_goes_by_bounded_batches(store: Store, job_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("astraml_ray.store.idempotency._BATCH", 3)
    with store.write() as conn:
        change_status(conn, job_id, JobStatus.FAILED, reason="x", message=None, now=NOW)
        for number in range(7):
            store_key(conn, record(job_id, f"k{number}", NOW - 10**6))
        assert [prune_keys(conn, now=NOW) for _ in range(4)] == [3, 3, 1, 0]
