"""Attempts are numbered, and end once."""

from __future__ import annotations

import pytest

from astraml_ray.errors import JobNotFoundError
from astraml_ray.store.attempts import AttemptRecord, amend_attempt, begin_attempt, end_attempt, list_attempts
from astraml_ray.store.engine import Store
from astraml_ray.store.jobs import get_job
from tests.store.conftest import NOW


def test_attempts_begin_and_end(store: Store, job_id: str) -> None:
    error = {"code": "infrastructure", "message": "a worker died"}
    with store.write() as conn:
        assert begin_attempt(conn, job_id, now=NOW) == 1
        assert end_attempt(conn, job_id, 1, "failed", now=NOW + 5, last_step=70, error=error)
        assert begin_attempt(conn, job_id, now=NOW + 9, first_step=60, micro_batch_divisor=2) == 2
    with store.read() as conn:
        assert get_job(conn, job_id).attempt == 2
        assert list_attempts(conn, job_id) == [
            AttemptRecord(job_id, 1, "failed", NOW, NOW + 5, None, 70, 1, error),
            AttemptRecord(job_id, 2, "running", NOW + 9, None, 60, None, 2, None),
        ]
        assert list_attempts(conn, "none") == []


def test_an_attempt_ends_once(store: Store, job_id: str) -> None:
    with store.write() as conn:
        begin_attempt(conn, job_id, now=NOW)
        assert end_attempt(conn, job_id, 1, "succeeded", now=NOW + 1)
        assert not end_attempt(conn, job_id, 1, "failed", now=NOW + 2)
        assert not end_attempt(conn, job_id, 2, "failed", now=NOW + 2)
        assert [(a.status, a.finished_at) for a in list_attempts(conn, job_id)] == [("succeeded", NOW + 1)]


def test_what_is_found_out_later_completes_an_attempt(store: Store, job_id: str) -> None:
    with store.write() as conn:
        for number in (1, 2):
            begin_attempt(conn, job_id, now=NOW)
            end_attempt(conn, job_id, number, "failed", now=NOW + 1, error={"code": "infrastructure"})
        amend_attempt(conn, job_id, 1, {"code": "infrastructure", "step": 30})
        first, second = list_attempts(conn, job_id)
    assert (first.status, first.finished_at, first.error) == ("failed", NOW + 1, {"code": "infrastructure", "step": 30})
    assert second.error == {"code": "infrastructure"}


def test_no_attempt_at_an_unknown_job(store: Store) -> None:
    with pytest.raises(JobNotFoundError), store.write() as conn:
        begin_attempt(conn, "none", now=NOW)
