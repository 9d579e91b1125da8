"""Jobs: their states, and what is written with them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import pytest

from astraml_ray.errors import JobNotFoundError, JobTerminalError, TransitionError
from astraml_ray.spec.states import TERMINAL, JobStatus, may_follow
from astraml_ray.store.engine import Store
from astraml_ray.store.events import list_events
from astraml_ray.store.jobs import (
    JobRecord,
    change_status,
    count_by_status,
    create_job,
    find_job,
    get_job,
    list_live,
    new_job_id,
    request_cancel,
    update_job,
)
from astraml_ray.store.tables import jobs
from tests.store.conftest import NOW, new_job
from tests.store.test_engine import together

QUEUED, STARTING, RUNNING = JobStatus.QUEUED, JobStatus.STARTING, JobStatus.RUNNING
SUCCEEDED, FAILED, CANCELLED = JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED
_WAYS = {
    QUEUED: (),
    STARTING: (STARTING,),
    RUNNING: (STARTING, RUNNING),
    SUCCEEDED: (STARTING, SUCCEEDED),
    FAILED: (FAILED,),
    CANCELLED: (CANCELLED,),
}


def move(store: Store, job_id: str, *statuses: JobStatus, now: float = NOW) -> None:
    for status in statuses:
        with store.write() as conn:
            change_status(conn, job_id, status, reason="r", message="m", now=now)


def test_a_record_has_the_columns_in_order() -> None:
    assert [field.name for field in dataclasses.fields(JobRecord)] == [*(c.name for c in jobs.columns), "labels"]


def test_a_job_is_made_whole(store: Store) -> None:
    new = new_job(
        spec={"hyperparams": {"lr": 3e-05, "batch_size": 32}, "big": 7.205759403792254e16, "a": [None, True, "é"]},
        name="nightly",
        priority=-3,
        labels={"team": "nlp", "": "empty key"},
        parent_id="job-parent",
        relation="clone",
    )
    with store.write() as conn:
        made = create_job(conn, new, now=NOW)
    with store.read() as conn:
        job = get_job(conn, new.id)
        assert job == made == find_job(conn, new.id)
        (event,) = list_events(conn, new.id, limit=9)
    for field in dataclasses.fields(new):
        assert getattr(job, field.name) == getattr(new, field.name)
    assert list(job.spec) == ["hyperparams", "big", "a"]
    assert (job.status, job.created_at, job.queued_at) == (QUEUED, NOW, NOW)
    assert (job.attempt, job.runner_seq, job.log_seq, job.event_seq) == (0, 0, 0, 1)
    assert job.started_at is job.finished_at is job.progress is job.error is None
    assert (event.seq, event.type, event.at) == (1, "job_created", NOW)
    assert event.data == {"parent_id": "job-parent", "relation": "clone"}


def test_no_such_job(store: Store) -> None:
    with store.read() as conn:
        assert find_job(conn, "none") is None
        with pytest.raises(JobNotFoundError, match="none"):
            get_job(conn, "none")
    for act in (
        lambda conn: update_job(conn, "none", message="x"),
        lambda conn: change_status(conn, "none", RUNNING, reason=None, message=None, now=NOW),
        lambda conn: request_cancel(conn, "none", "now", now=NOW),
    ):
        with pytest.raises(JobNotFoundError), store.write() as conn:
            act(conn)


@pytest.mark.parametrize(("before", "after"), itertools.product(JobStatus, JobStatus), ids=lambda s: s.value)
def test_every_transition(store: Store, job_id: str, before: JobStatus, after: JobStatus) -> None:
    move(store, job_id, *_WAYS[before])
    with store.read() as conn:
        job, events = get_job(conn, job_id), list_events(conn, job_id, limit=99)
    assert job.status is before
    if may_follow(before, after):
        move(store, job_id, after)
        with store.read() as conn:
            changed, new = get_job(conn, job_id), list_events(conn, job_id, limit=99)[len(events) :]
        assert (changed.status, changed.reason, changed.message) == (after, "r", "m")
        assert [(event.seq, event.type, event.message) for event in new] == [
            (len(events) + 1, f"job_{after.value}", "m")
        ]
        assert new[0].data == {"before": before.value, "reason": "r"}
        return
    with pytest.raises(TransitionError, match=f"{before.value} cannot become {after.value}"):
        move(store, job_id, after)
    with store.read() as conn:
        assert get_job(conn, job_id) == job
        assert list_events(conn, job_id, limit=99) == events


def test_the_ways_cover_what_the_table_allows() -> None:
    for status, way in _WAYS.items():
        states = [QUEUED, *way]
        assert states[-1] is status
        assert all(may_follow(a, b) for a, b in itertools.pairwise(states))


def test_times_go_with_the_states(store: Store, job_id: str) -> None:
    seen = []
    way = (STARTING, RUNNING, QUEUED, STARTING, RUNNING, SUCCEEDED)
    for number, status in enumerate(way, 1):
        move(store, job_id, status, now=NOW + number)
        with store.read() as conn:
            job = get_job(conn, job_id)
        times = (job.queued_at, job.started_at, job.finished_at)
        seen.append(tuple(None if time is None else time - NOW for time in times))
    assert seen == [(0, 1, None), (0, 1, None), (3, 1, None), (3, 1, None), (3, 1, None), (3, 1, 6)]


def test_why_it_waits_goes_when_it_leaves_the_queue(store: Store, job_id: str) -> None:
    wait = {"message": "needs 1 GPU; the cluster has 0", "would_start_with": {"resources.gpus": 0}}
    with store.write() as conn:
        update_job(conn, job_id, wait=wait)
        assert get_job(conn, job_id).wait == wait
        assert change_status(conn, job_id, STARTING, reason=None, message=None, now=NOW).wait is None
        change_status(conn, job_id, QUEUED, reason="retry", message=None, now=NOW, wait=wait, not_before=NOW + 5)
        job = get_job(conn, job_id)
        assert (job.wait, job.not_before) == (wait, NOW + 5)


def test_other_columns_and_event_data_go_with_a_state(store: Store, make_job: Callable[..., str]) -> None:
    job_id = make_job(labels={"a": "b"})
    error = {"code": "out_of_memory", "rank": 1}
    with store.write() as conn:
        returned = change_status(
            conn, job_id, FAILED, reason="out_of_memory", message="m", now=NOW, event_data={"rank": 1}, error=error
        )
    with store.read() as conn:
        assert get_job(conn, job_id) == returned
        (event,) = list_events(conn, job_id, after=1, limit=9)
    assert (returned.error, returned.labels) == (error, {"a": "b"})
    assert event.data == {"before": "queued", "reason": "out_of_memory", "rank": 1}


@pytest.mark.parametrize("field", ["status", "id", "event_seq", "log_seq", "created_at", "nonsense"])
def test_columns_that_are_not_for_callers(store: Store, job_id: str, field: str) -> None:
    with store.write() as conn:
        with pytest.raises(TypeError, match=field):
            update_job(conn, job_id, **{field: 1})
        if field != "status":
            with pytest.raises(TypeError, match=field):
                change_status(conn, job_id, STARTING, reason=None, message=None, now=NOW, **{field: 1})


def test_updates_change_what_is_named_alone(store: Store, job_id: str) -> None:
    with store.write() as conn:
        before = get_job(conn, job_id)
        update_job(conn, job_id, progress={"step": 3}, runner="r1", runner_seq=2**40, heartbeat_at=NOW)
        after = get_job(conn, job_id)
    assert after == dataclasses.replace(before, progress={"step": 3}, runner="r1", runner_seq=2**40, heartbeat_at=NOW)
    with store.write() as conn:
        update_job(conn, job_id, progress=None)
        assert get_job(conn, job_id).progress is None


def test_of_concurrent_transitions_one_wins(store: Store, job_id: str) -> None:
    move(store, job_id, STARTING)
    errors = together(10, lambda number: move(store, job_id, SUCCEEDED if number % 2 else FAILED))
    assert [type(error) for error in errors] == [TransitionError] * 9
    with store.read() as conn:
        events = [event.type for event in list_events(conn, job_id, limit=99)]
        assert events == ["job_created", "job_starting", f"job_{get_job(conn, job_id).status.value}"]


def test_a_queued_job_is_cancelled_at_once(store: Store, job_id: str) -> None:
    with store.write() as conn:
        job = request_cancel(conn, job_id, "keep_best", now=NOW + 1)
    with store.read() as conn:
        assert get_job(conn, job_id) == job
        assert [event.type for event in list_events(conn, job_id, limit=9)] == ["job_created", "job_cancelled"]
    assert (job.status, job.reason, job.finished_at) == (CANCELLED, "cancelled", NOW + 1)
    assert (job.cancel_mode, job.cancel_requested_at) == ("keep_best", NOW + 1)


@pytest.mark.parametrize("active", [STARTING, RUNNING])
def test_an_active_job_is_asked_to_stop(store: Store, job_id: str, active: JobStatus) -> None:
    move(store, job_id, *_WAYS[active])
    modes = []
    for number, mode in enumerate(("keep_best", "keep_best", "now", "now", "keep_best")):
        with store.write() as conn:
            job = request_cancel(conn, job_id, mode, now=NOW + number)
        with store.read() as conn:
            assert get_job(conn, job_id) == job
        modes.append((job.cancel_mode, job.cancel_requested_at))
        assert job.status is active
    assert modes == [("keep_best", NOW)] * 2 + [("now", NOW + 2)] * 3
    with store.read() as conn:
        asked = [event.data for event in list_events(conn, job_id, limit=9) if event.type == "cancel_requested"]
    assert asked == [{"mode": "keep_best"}, {"mode": "now"}]


@pytest.mark.parametrize("status", sorted(TERMINAL), ids=lambda s: s.value)
def test_what_has_ended_cannot_be_cancelled(store: Store, job_id: str, status: JobStatus) -> None:
    move(store, job_id, *_WAYS[status])
    with pytest.raises(JobTerminalError), store.write() as conn:
        request_cancel(conn, job_id, "now", now=NOW)
    with store.read() as conn:
        assert get_job(conn, job_id).cancel_mode is None


def test_live_jobs_and_counts(store: Store, make_job: Callable[..., str]) -> None:
    made = {status: make_job(labels={"s": status.value}) for status in JobStatus}
    for status, job_id in made.items():
        move(store, job_id, *_WAYS[status])
    queued_too = make_job(priority=9)
    with store.read() as conn:
        live = list_live(conn)
        assert [job.id for job in live] == [made[QUEUED], made[STARTING], made[RUNNING], queued_too]
        assert live[1] == get_job(conn, made[STARTING])
        assert live[1].labels == {"s": "starting"}
        assert count_by_status(conn) == {**dict.fromkeys(JobStatus, 1), QUEUED: 2}


def test_counts_of_an_empty_store(store: Store) -> None:
    with store.read() as conn:
        assert count_by_status(conn) == dict.fromkeys(JobStatus, 0)
        assert list_live(conn) == []


def test_ids_sort_by_time_and_do_not_repeat() -> None:
    times = [0.0, 1.0, 1.001, NOW, NOW + 0.001, NOW + 10**9]
    ids = [new_job_id(time) for time in times]
    assert ids == sorted(ids)
    assert all(len(one) == 24 and one.startswith("job-") for one in ids)
    assert set("".join(ids)) <= set("job-0123456789abcdefghjkmnpqrstvwxyz")
    assert len({new_job_id(NOW) for _ in range(10_000)}) == 10_000
    assert len({new_job_id(NOW)[:14] for _ in range(100)}) == 1
