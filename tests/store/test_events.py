"""Events are numbered without gaps."""

from __future__ import annotations

import pytest

from astraml_ray.errors import JobNotFoundError
from astraml_ray.store.engine import Store
from astraml_ray.store.events import EventRecord, append_event, list_events
from astraml_ray.store.jobs import get_job
from tests.store.conftest import NOW
from tests.store.test_engine import together


def test_events_are_read_in_order_from_any_number(store: Store, job_id: str) -> None:
    with store.write() as conn:
        numbers = [append_event(conn, job_id, "step", now=NOW + n, message=f"m{n}", data={"n": n}) for n in range(5)]
    assert numbers == [2, 3, 4, 5, 6]
    with store.read() as conn:
        assert [event.seq for event in list_events(conn, job_id, limit=100)] == [1, 2, 3, 4, 5, 6]
        assert [event.seq for event in list_events(conn, job_id, after=2, limit=2)] == [3, 4]
        assert list_events(conn, job_id, after=6, limit=9) == list_events(conn, job_id, after=10**30, limit=9) == []
        assert list_events(conn, job_id, after=5, limit=9) == [EventRecord(job_id, 6, NOW + 4, "step", "m4", {"n": 4})]
        assert get_job(conn, job_id).event_seq == 6
        assert list_events(conn, "none", limit=9) == []


def test_concurrent_writers_leave_no_gap_even_if_some_fail(store: Store, job_id: str) -> None:
    def work(number: int) -> None:
        for turn in range(6):
            try:
                with store.write() as conn:
                    append_event(conn, job_id, f"of-{number}", now=NOW, data={"turn": turn})
                    if turn % 3 == 2:
                        raise LookupError
            except LookupError:
                pass

    assert together(8, work) == []
    with store.read() as conn:
        events = list_events(conn, job_id, limit=1000)
    assert [event.seq for event in events] == list(range(1, 8 * 4 + 2))
    for number in range(8):
        mine = [event.data["turn"] for event in events if event.type == f"of-{number}" and event.data]
        assert mine == [0, 1, 3, 4]


def test_no_event_of_an_unknown_job(store: Store) -> None:
    with pytest.raises(JobNotFoundError), store.write() as conn:
        append_event(conn, "none", "x", now=NOW)
