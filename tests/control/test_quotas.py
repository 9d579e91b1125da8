"""Quotas in the queue: who waits for one, who does not, and what a project is charged with."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from astraml_ray.access.quotas import WEEK_S, Quota
from astraml_ray.control.admission import Capacity, Demand, Hold, Start, Waiting, admit
from astraml_ray.control.allowances import Allowances, Holder
from astraml_ray.spec.job import Resources
from astraml_ray.spec.states import JobStatus
from astraml_ray.store.access import GpuTime, gpu_time_since
from astraml_ray.store.access_tables import ORGANISATION
from astraml_ray.store.audit import Actor
from astraml_ray.store.jobs import get_job, update_job
from astraml_ray.store.projects import set_quota
from tests.control.conftest import World
from tests.control.test_controller import attempt_started, ended, run

NOW = 1_000_000.0
CLUSTER = Capacity(cpus=64, gpus=16, free_cpus=64, free_gpus=16)


def job(name: str, project: str, gpus: int, *, queued_at: float = NOW) -> Waiting:
    return Waiting(name, Resources(gpus=gpus), 0, queued_at, project_id=project)


def allowances(*quotas: Quota, holders: tuple[Holder, ...] = (), **times: list[GpuTime]) -> Allowances:
    return Allowances.of({quota.scope: quota for quota in quotas}, holders, times, now=NOW)


def decided(queue: list[Waiting], allowed: Allowances, *, now: float = NOW) -> dict[str, str | None]:
    """Job -> why it waits; None for those that start."""
    decisions = admit(queue, CLUSTER, now=now, allowances=allowed)
    return {one.job_id: one.message if isinstance(one, Hold) else None for one in decisions}


def test_a_project_at_its_quota_waits_and_others_behind_it_do_not() -> None:
    queue = [job("a", "p", 2), job("b", "q", 8, queued_at=NOW + 1), job("c", "p", 1, queued_at=NOW + 2)]
    found = decided(queue, allowances(Quota("p", gpus_at_once=4), holders=(Holder("p", 3), Holder("q", 1))))
    assert found == {"a": "project p has 3 of its 4 GPUs at once; the job wants 2", "b": None, "c": None}


def test_what_starts_in_one_pass_counts_for_those_after_it() -> None:
    queue = [job(name, "p", 1, queued_at=NOW + place) for place, name in enumerate("abcd")]
    found = decided(queue, allowances(Quota("p", gpus_at_once=9, jobs_at_once=3), holders=(Holder("p", 0),)))
    assert [name for name, why in found.items() if why is None] == ["a", "b"]
    assert found["c"] == "project p runs 3 of its 3 jobs at once"


def test_the_organisation_s_quota_is_over_all_projects() -> None:
    quotas = allowances(Quota(ORGANISATION, gpus_at_once=4), Quota("q", gpus_at_once=8), holders=(Holder("r", 2),))
    found = decided([job("a", "p", 1), job("b", "q", 2), job("c", "q", 0)], quotas)
    assert found == {"a": None, "b": "the organisation has 3 of its 4 GPUs at once; the job wants 2", "c": None}


def test_a_sweeps_trials_count_as_gpus_and_as_one_job() -> None:
    sweep = replace(job("s", "p", 2), trials=100)
    allowed = allowances(Quota("p", gpus_at_once=7, jobs_at_once=2), holders=(Holder("p", 0),))
    (start,) = admit([sweep], CLUSTER, now=NOW, allowances=allowed)
    assert isinstance(start, Start)
    assert start.trials == 3
    both = admit([sweep, job("b", "p", 1, queued_at=NOW + 1)], CLUSTER, now=NOW, allowances=allowed)
    assert [type(one) for one in both] == [Start, Hold]


def test_a_sweep_is_charged_with_all_of_its_trials(world: World) -> None:
    world.launcher.cluster = Capacity(cpus=16, gpus=4, free_cpus=16, free_gpus=4)
    job_id = world.submit(resources={"gpus": 1})
    sweep = {"parameters": {"hyperparams.lr": {"uniform": [1e-4, 1e-2]}}, "max_concurrent": 3, "trials": 9}
    with world.store.write() as conn:
        update_job(conn, job_id, spec={**get_job(conn, job_id).spec, "sweep": sweep})
    world.tick()
    assert (world.job(job_id).placement or {})["trials"] == 3
    assert world.controller.begin(job_id, "r1")["trials_at_once"] == 3
    with world.store.read() as conn:
        (time,) = gpu_time_since(conn, 0.0)
    assert time.gpus == 3
    other = world.submit(resources={"gpus": 2})
    world.tick()
    assert "1 of 4 are free" in (world.job(other).wait or {})["message"]


def test_a_quota_that_was_lowered_below_a_job_leaves_it_waiting() -> None:
    found = decided([job("a", "p", 4), job("b", "p", 1)], allowances(Quota("p", gpus_at_once=2)))
    assert found == {"a": "project p may have 2 GPUs at once; the job wants 4", "b": None}


def test_a_used_up_week_tells_when_there_is_room_again() -> None:
    spent = [GpuTime("j", 1, "p", 10, NOW - WEEK_S + 7200, NOW - WEEK_S + 10_800)]
    found = decided([job("a", "p", 1), job("b", "p", 0)], allowances(Quota("p", gpu_hours_per_week=10), p=spent))
    # 2 hours from now, told to ten minutes: 1970-01-12 13:46:40 and 2 hours.
    assert found["a"] == (
        "project p has used 10.0 of its 10 GPU-hours of seven days; there is room again at 1970-01-12 15:50 UTC"
    )
    assert found["b"] is None


def test_of_two_used_up_weeks_the_later_one_counts() -> None:
    spent = [GpuTime("j", 1, "p", 10, NOW - at, NOW - at + 3600) for at in (WEEK_S - 7200, WEEK_S - 86_400)]
    both = {"p": spent[:1], ORGANISATION: spent}
    quotas = allowances(Quota("p", gpu_hours_per_week=10), Quota(ORGANISATION, gpu_hours_per_week=10), **both)
    told = str(decided([job("a", "p", 1)], quotas)["a"])
    assert told.startswith("the organisation has used 20.0 of its 10 GPU-hours")
    # What waits for others to end is told so, and not a time.
    quotas = allowances(Quota("p", gpus_at_once=1, gpu_hours_per_week=10), holders=(Holder("p", 1),), p=spent)
    assert decided([job("a", "p", 1)], quotas)["a"] == "project p has 1 of its 1 GPUs at once; the job wants 1"


def test_fewer_gpus_are_offered_where_the_quota_leaves_some() -> None:
    quotas = allowances(Quota("p", gpus_at_once=4), holders=(Holder("p", 3),))
    (hold,) = admit([job("a", "p", 2)], CLUSTER, now=NOW, allowances=quotas)
    assert isinstance(hold, Hold)
    assert hold.would_start_with == {"resources.gpus": 1}
    # And none that the quota would hold up again.
    (hold,) = admit([job("a", "p", 4)], CLUSTER.less(Demand(0, 10)), now=NOW, allowances=quotas)
    assert isinstance(hold, Hold)
    assert hold.would_start_with == {"resources.gpus": 1}


def test_small_jobs_of_a_project_do_not_starve_its_big_one() -> None:
    queue = [
        job("big", "p", 4),
        job("small", "p", 1, queued_at=NOW + 1),
        job("cpu", "p", 0, queued_at=NOW + 2),
        job("other", "q", 1, queued_at=NOW + 3),
    ]
    quotas = allowances(Quota("p", gpus_at_once=4), holders=(Holder("p", 1),))
    assert decided(queue, quotas, now=NOW + 60)["small"] is None
    late = decided(queue, quotas, now=NOW + 700)
    assert late["small"] == "its project's GPUs are held for big, which has waited longer"
    assert (late["cpu"], late["other"]) == (None, None)
    # What waits for hours to pass holds up nobody: they pass whoever runs meanwhile.
    spent = [GpuTime("j", 1, "p", 10, NOW - 7200, NOW - 3600)]
    week = allowances(Quota("p", gpu_hours_per_week=10), p=spent)
    assert "GPU-hours" in str(decided(queue, week, now=NOW + 700)["small"])


@pytest.mark.parametrize("seed", range(20))
def test_what_starts_is_within_every_quota(seed: int) -> None:
    rng = random.Random(seed)
    projects = ["p", "q", "r"]
    quotas = [Quota(s, rng.choice([None, 2, 5]), rng.choice([None, 1, 3])) for s in (*projects, ORGANISATION)]
    queue = [job(f"j{i}", rng.choice(projects), rng.choice([0, 1, 2, 4]), queued_at=NOW - i) for i in range(30)]
    by_id = {waiting.job_id: waiting for waiting in queue}
    decisions = admit(queue, CLUSTER, now=NOW + rng.choice([0, 700]), allowances=allowances(*quotas))
    started = [(by_id[one.job_id].project_id, one.placement) for one in decisions if isinstance(one, Start)]
    assert started
    for quota in quotas:
        taken = [place.workers * place.gpus_per_worker for p, place in started if quota.scope in (p, ORGANISATION)]
        assert quota.gpus_at_once is None or sum(taken) <= quota.gpus_at_once
        assert quota.jobs_at_once is None or len(taken) <= quota.jobs_at_once


def bound(world: World, scope: str = "default", **bounds: Any) -> None:
    with world.store.write() as conn:
        given = {"gpus_at_once": None, "jobs_at_once": None, "gpu_hours_per_week": None, **bounds}
        set_quota(conn, scope, **given, actor=Actor("test"), now=world.now)


def times_of(world: World, job_id: str) -> list[GpuTime]:
    with world.store.read() as conn:
        return sorted(
            (time for time in gpu_time_since(conn, 0.0) if time.job_id == job_id), key=lambda one: one.started_at
        )


def why(world: World, job_id: str) -> str:
    return str((world.job(job_id).wait or {})["message"])


@pytest.fixture
def gpus(world: World) -> World:
    world.launcher.cluster = CLUSTER
    return world


def test_the_controller_holds_jobs_back_until_others_end(gpus: World) -> None:
    bound(gpus, jobs_at_once=1)
    first = run(gpus)
    second, other = gpus.submit(), gpus.submit(project_id="other")
    gpus.tick()
    assert why(gpus, second) == "project default runs 1 of its 1 jobs at once"
    assert gpus.job(other).status is JobStatus.STARTING
    gpus.report(first, end=ended("succeeded", "completed"))
    gpus.tick()
    assert gpus.job(second).status is JobStatus.STARTING


def test_a_quota_that_is_raised_lets_waiting_jobs_go(gpus: World) -> None:
    bound(gpus, ORGANISATION, gpus_at_once=1)
    job_id = gpus.submit(resources={"gpus": 2})
    gpus.tick()
    assert why(gpus, job_id) == "the organisation may have 1 GPUs at once; the job wants 2"
    bound(gpus, ORGANISATION, gpus_at_once=2)
    gpus.tick()
    assert gpus.job(job_id).status is JobStatus.STARTING


def test_gpu_time_runs_from_admission_to_the_end(gpus: World) -> None:
    job_id = run(gpus, resources={"gpus": 2})
    admitted = gpus.now
    gpus.tick(100.0)
    gpus.report(job_id, "stale", seq=9, end=ended("failed", "numeric"))
    assert [(time.gpus, time.started_at, time.finished_at) for time in times_of(gpus, job_id)] == [(2, admitted, None)]
    gpus.report(job_id, end=ended("succeeded", "completed"))
    assert [time.finished_at for time in times_of(gpus, job_id)] == [gpus.now]
    on_cpus = run(gpus)
    assert [time.gpus for time in times_of(gpus, on_cpus)] == [0]
    gpus.cancel(on_cpus)
    gpus.tick(20.0)
    assert gpus.job(on_cpus).status is JobStatus.CANCELLED
    assert [time.finished_at for time in times_of(gpus, on_cpus)] == [gpus.now]


def test_each_stay_on_the_cluster_is_charged(gpus: World) -> None:
    """Also of a job that went back to the queue before its first attempt."""
    bound(gpus, gpu_hours_per_week=1)
    job_id = gpus.submit(resources={"gpus": 4})
    gpus.tick()
    gpus.controller.begin(job_id, "r1")
    gpus.now += 900.0
    gpus.report(job_id, end=ended("queued", "resources", message="too small"))
    gpus.tick()
    gpus.tick(6.0)
    assert "has used 1.0 of its 1 GPU-hours" in why(gpus, job_id)
    bound(gpus, gpu_hours_per_week=2)
    gpus.tick()
    gpus.controller.begin(job_id, "r2")
    gpus.report(job_id, "r2", status="running", events=[attempt_started()])
    gpus.now += 900.0
    gpus.report(job_id, "r2", end=ended("succeeded", "completed"))
    assert [time.finished_at - time.started_at for time in times_of(gpus, job_id) if time.finished_at] == [900.0] * 2


def test_gpu_time_that_a_crash_left_running_is_ended(gpus: World, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = run(gpus, resources={"gpus": 2})

    def crash(*_: Any, **__: Any) -> None:
        raise RuntimeError("killed here")

    with monkeypatch.context() as patch:
        patch.setattr("astraml_ray.control.controller.end_gpu_time", crash)
        with pytest.raises(RuntimeError):
            gpus.report(job_id, end=ended("succeeded", "completed"))
    ended_at = gpus.now
    live = run(gpus, resources={"gpus": 1})
    assert [time.finished_at for time in times_of(gpus, job_id)] == [None]
    gpus.tick(61.0)
    assert [time.finished_at for time in times_of(gpus, job_id)] == [ended_at]
    assert [time.finished_at for time in times_of(gpus, live)] == [None]
