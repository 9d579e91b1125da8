"""The controller over a real store: what it starts, explains, heals, ends; and that reports count once."""

from __future__ import annotations

from typing import Any

import pytest

from astraml_ray.control.admission import Demand
from astraml_ray.control.controller import Reconciler
from astraml_ray.control.losses import MOST
from astraml_ray.errors import StaleLeaseError
from astraml_ray.spec.states import JobStatus
from astraml_ray.store.logs import read_lines
from astraml_ray.store.metrics import query_windows
from astraml_ray.store.windows import window_of
from tests.control.conftest import World


def attempt_started(number: int = 1, step: int = 0) -> dict[str, Any]:
    data = {"attempt": number, "step": step, "divisor": 1}
    return {"type": "attempt_started", "message": "started", "data": data, "at": 1_000_001.0}


def ended(status: str, reason: str, **more: Any) -> dict[str, Any]:
    return {"status": status, "reason": reason, "message": None, "result": None, "error": None, **more}


def run(world: World, **spec: Any) -> str:
    """A job whose runner has begun to train."""
    job_id = world.submit(**spec)
    world.tick()
    assert not world.controller.begin(job_id, "r1")["abandon"]
    world.report(job_id, status="running", events=[attempt_started()])
    assert world.job(job_id).status is JobStatus.RUNNING
    return job_id


def test_a_job_goes_from_the_queue_to_its_end(world: World) -> None:
    job_id = run(world)
    assert world.launcher.started == [job_id]
    assert world.job(job_id).run_path is not None
    result = {"steps": 20, "metrics": {"train/loss": 0.5}}
    world.report(job_id, end=ended("succeeded", "early_stopping", result=result))
    job = world.job(job_id)
    assert (job.status, job.reason, job.result) == (JobStatus.SUCCEEDED, "early_stopping", result)
    assert [(a.number, a.status, a.last_step) for a in world.attempts(job_id)] == [(1, "succeeded", 20)]
    assert world.events(job_id) == ["job_created", "job_starting", "attempt_started", "job_running", "job_succeeded"]
    world.tick()
    assert world.launcher.killed == [job_id]


def test_a_gpu_job_waits_and_says_what_would_start_it(world: World) -> None:
    job_id = world.submit(resources={"gpus": 1})
    world.tick()
    job = world.job(job_id)
    assert job.status is JobStatus.QUEUED
    assert job.wait == {"message": "needs 1 GPU; the cluster has 0", "would_start_with": {"resources.gpus": 0}}


def test_what_was_started_counts_before_ray_sees_it(world: World) -> None:
    """Two jobs of 2 CPUs each fill the 4; the third waits although Ray still calls all CPUs free."""
    for _ in range(3):
        world.submit()
    world.tick()
    world.tick()
    assert len(world.launcher.started) == 2


def test_others_on_the_cluster_are_seen(world: World) -> None:
    world.launcher.cluster = world.launcher.cluster.less(Demand(3.0, 0.0))
    job_id = world.submit()
    world.tick()
    assert world.job(job_id).status is JobStatus.QUEUED
    assert "1 of 4 are free" in (world.job(job_id).wait or {})["message"]


def test_a_lost_runner_is_started_again_and_its_attempt_is_told(world: World) -> None:
    job_id = run(world)
    world.launcher.running.clear()
    world.tick()
    assert world.launcher.started == [job_id, job_id]
    order = world.controller.begin(job_id, "r2")
    assert order["attempts"] == 1
    assert [failure["code"] for failure in order["failures"]] == ["infrastructure"]
    assert [a.status for a in world.attempts(job_id)] == ["failed"]
    # The old one no longer counts, whatever it says.
    assert world.report(job_id, "r1", end=ended("failed", "numeric"))["abandon"]
    resumed = {"type": "run_resumed", "message": "m", "data": {"attempt": 1, "step": 7}, "at": 1.0}
    world.report(job_id, "r2", events=[resumed, attempt_started(2, step=7)])
    assert [(a.number, a.status, (a.error or {}).get("step")) for a in world.attempts(job_id)] == [
        (1, "failed", 7),
        (2, "running", None),
    ]


def test_runners_that_all_die_at_one_place_are_not_started_for_ever(world: World) -> None:
    job_id = run(world)
    number = 1

    def lose(attempt: int | None, step: int = 0) -> dict[str, Any]:
        """The next runner begins; `attempt` is what it started before it dies, at a step."""
        nonlocal number
        number += 1
        order = world.controller.begin(job_id, f"r{number}")
        if attempt and not order["abandon"]:
            world.report(job_id, f"r{number}", events=[attempt_started(attempt, step=step)])
        return order

    for attempt in range(2, MOST):  # one was started by run()
        assert not lose(attempt)["abandon"]
    assert not lose(MOST, step=7)["abandon"]  # it has come further: its losses are counted anew
    for _ in range(MOST - 1):
        assert not lose(None)["abandon"]
    assert world.job(job_id).status is JobStatus.RUNNING
    assert lose(None)["abandon"]
    job = world.job(job_id)
    assert (job.status, job.reason, job.placement) == (JobStatus.FAILED, "infrastructure", None)
    assert "died 10 times in a row, and the job came no further than step 7" in str(job.message)
    assert "memory" in (job.error or {})["hint"]
    assert world.report(job_id, f"r{number - 1}")["abandon"]
    world.launcher.running.clear()
    started = len(world.launcher.started)
    world.tick()
    assert len(world.launcher.started) == started


def test_a_controller_that_died_before_it_started_the_runner_starts_it_later(world: World) -> None:
    job_id = world.submit()
    start = world.launcher.start
    world.launcher.start = lambda job: (_ for _ in ()).throw(RuntimeError("killed here"))  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        world.tick()
    assert world.job(job_id).status is JobStatus.STARTING
    world.launcher.start = start  # type: ignore[method-assign]
    world.tick()
    assert world.launcher.started == [job_id]


def test_a_report_that_comes_twice_counts_once(world: World) -> None:
    job_id = run(world)
    window = {
        "start": 999_990, "count": 2, "sum": 3.0, "sum_sq": 5.0, "min": 1.0, "max": 2.0, "first": 1.0,
        "first_at": 999_991.0, "last": 2.0, "last_at": 999_992.0, "nan_count": 1, "inf_count": 0, "step_first": 1,
        "step_last": 2, "revision": 0,
    }  # fmt: skip
    line = {"rank": 0, "sequence": 1, "level": "INFO", "at": 1.0, "text": "hello", "attempt": 1}
    for _ in range(2):
        world.report(job_id, seq=5, windows={"train/loss": [window]}, lines=[("s", line)])
    with world.store.read() as conn:
        (series,) = query_windows(conn, job_id, names=["train/loss"], resolution=30)
        lines, _ = read_lines(conn, job_id, limit=10)
    assert series.windows[0].count == 2
    assert [found.text for found in lines] == ["hello"]


def test_cancel_reaches_the_runner_and_a_deaf_one_is_killed(world: World) -> None:
    job_id = run(world)
    world.cancel(job_id, "keep_best")
    assert world.report(job_id)["stop"] == "keep_best"
    world.cancel(job_id, "now")
    assert world.report(job_id)["stop"] == "now"
    world.tick(8.0)
    assert world.job(job_id).status is JobStatus.RUNNING
    world.tick(2.0)
    job = world.job(job_id)
    assert (job.status, job.reason) == (JobStatus.CANCELLED, "cancelled")
    assert world.launcher.killed == [job_id]
    assert world.report(job_id)["abandon"]


def test_a_cancelled_run_that_saved_itself_is_cancelled(world: World) -> None:
    job_id = run(world)
    world.cancel(job_id)
    world.report(job_id, end=ended("cancelled", "cancelled", message="stopped and saved at step 5"))
    assert world.job(job_id).status is JobStatus.CANCELLED
    assert [a.status for a in world.attempts(job_id)] == ["cancelled"]


def test_max_duration_stops_the_run_and_is_told(world: World) -> None:
    job_id = run(world, limits={"max_duration": "60s"})
    world.tick(30.0)
    assert world.report(job_id)["stop"] is None
    world.tick(31.0)
    assert world.report(job_id)["stop"] == "now"
    world.report(job_id, end=ended("cancelled", "cancelled"))
    job = world.job(job_id)
    assert (job.status, job.reason) == (JobStatus.FAILED, "deadline_exceeded")


def test_a_run_that_does_not_hear_its_deadline_is_ended(world: World) -> None:
    job_id = run(world, limits={"max_duration": "60s"})
    world.tick(100.0)
    job = world.job(job_id)
    assert (job.status, job.reason) == (JobStatus.FAILED, "deadline_exceeded")
    assert world.launcher.killed == [job_id]


def test_queue_timeout_says_why_it_waited(world: World) -> None:
    job_id = world.submit(resources={"gpus": 1}, limits={"queue_timeout": "1m"})
    world.tick()
    world.tick(60.0)
    job = world.job(job_id)
    assert (job.status, job.reason) == (JobStatus.FAILED, "queue_timeout")
    assert "the cluster has 0" in (job.message or "")


def test_a_cluster_that_shrank_sends_the_job_back_to_the_queue(world: World) -> None:
    job_id = world.submit()
    world.tick()
    world.controller.begin(job_id, "r1")
    world.report(job_id, end=ended("queued", "resources", message="the run needs more"))
    assert world.job(job_id).status is JobStatus.QUEUED
    world.tick()
    assert world.launcher.killed == [job_id]
    world.tick(6.0)
    assert world.job(job_id).status is JobStatus.STARTING
    assert world.launcher.started == [job_id, job_id]


def test_a_second_controller_waits_and_a_stale_one_writes_nothing(world: World) -> None:
    job_id = run(world)
    other = Reconciler(world.store, world.launcher, holder="other", storage="x", clock=lambda: world.now)
    other.tick()
    with pytest.raises(StaleLeaseError):
        _ = other.lease
    world.now += 11.0  # the first is paused for longer than its lease
    other.tick()
    assert other.lease.token > world.controller.lease.token
    with pytest.raises(StaleLeaseError):
        world.report(job_id, progress={"step": 9})
    assert world.job(job_id).progress is None


def test_a_restarted_controller_of_the_same_installation_takes_over_at_once(world: World) -> None:
    world.tick()
    before = world.controller.lease.token
    again = Reconciler(world.store, world.launcher, holder="test", storage="x", clock=lambda: world.now)
    again.tick()
    assert again.lease.token == before + 1


def test_a_runner_without_a_job_is_killed(world: World) -> None:
    world.launcher.running.add("job-unknown")
    world.tick()
    assert world.launcher.killed == ["job-unknown"]
    assert world.controller.begin("job-unknown", "r1")["abandon"]


def test_upkeep_deletes_old_windows_in_batches_and_keeps_the_rest(world: World) -> None:
    job_id = run(world)
    day = 86_400
    starts = [900_000 // 30 * 30 + 30 * i for i in range(3)]
    windows = {"train/loss": [vars(window_of([(start + 1.0, i, 0.5)], start)) for i, start in enumerate(starts)]}
    world.report(job_id, windows=windows)
    world.tick(10 * day)
    with world.store.read() as conn:
        assert query_windows(conn, job_id, names=["train/loss"], resolution=30)[0].points == 3
    world.tick(10 * day)
    with world.store.read() as conn:
        assert query_windows(conn, job_id, names=["train/loss"], resolution=30)[0].points == 0
        assert query_windows(conn, job_id, names=["train/loss"], resolution=3600)[0].points == 3
