"""`only_if_changed: dataset` over both databases: what is compared with what, and when nothing is left out."""

from __future__ import annotations

from typing import Any

import pytest

from astraml_ray.api.scheduling import plan_backfill
from astraml_ray.spec.schedule import DATASET_UNCHANGED
from astraml_ray.spec.states import JobStatus
from astraml_ray.store.jobs import JobRecord, change_status, get_job
from astraml_ray.store.schedules import delete_schedule
from tests.control.test_firing import HOUR, NOON, Site, postgres, site, template

__all__ = ["postgres", "site", "template"]  # fixtures

SAME = {"status": "succeeded", "reason": DATASET_UNCHANGED, "message": "the dataset is the same", "result": None}
NOTHING = {"digest": None, "job_id": None}


def trained(digest: str | None) -> dict[str, Any]:
    return {"status": "succeeded", "reason": "completed", "message": None, "result": {"steps": 1}, "dataset": digest}


def begin(site: Site, job: JobRecord, runner: str = "r") -> dict[str, Any]:
    """Admits a job as the controller does; the order that its runner gets."""
    with site.store.write() as conn:
        if get_job(conn, job.id).status is JobStatus.QUEUED:
            change_status(conn, job.id, JobStatus.STARTING, reason=None, message=None, now=site.now)
    return site.controllers[0].begin(job.id, runner)


def end(site: Site, job: JobRecord, how: dict[str, Any], runner: str = "r") -> dict[str, Any]:
    report = {"seq": 1, "windows": {}, "lines": [], "events": [], "end": how}
    return site.controllers[0].report(job.id, runner, report)


def run(site: Site, how: dict[str, Any]) -> Any:
    """The next hour's job, to its end; what it was given to compare with."""
    site.tick(HOUR)
    job = site.jobs()[-1]
    before = begin(site, job)["trained_before"]
    end(site, job, how)
    site.tick(1)
    return before


def test_what_the_last_job_has_trained_on_is_compared_with_and_skips_change_nothing_of_it(site: Site) -> None:
    made = site.schedule(only_if_changed="dataset", pause_after_failures=3)
    assert run(site, trained("a" * 64)) == NOTHING
    first = {"digest": "a" * 64, "job_id": site.jobs()[0].id}
    for _ in range(2):
        assert run(site, SAME) == first
    failed = {"status": "failed", "reason": "data", "message": "no", "error": {"code": "data"}, "dataset": "f" * 64}
    assert run(site, failed) == first
    assert run(site, {**SAME, "dataset": "c" * 64}) == first, "a job that has not trained changes nothing"
    assert site.record(made).failures == 1, "what is left out ends no row of failures"
    assert run(site, {**trained("d" * 64), "status": "cancelled", "reason": "cancelled"}) == first
    assert run(site, trained("b" * 64)) == first
    assert site.record(made).failures == 0
    assert run(site, SAME) == {"digest": "b" * 64, "job_id": site.jobs()[6].id}
    found = site.occurrences(made)
    assert [one.outcome for one in found] == [
        "succeeded", "skipped", "skipped", "failed", "skipped", "cancelled", "succeeded", "skipped",
    ]  # fmt: skip
    assert {one.reason for one in found if one.outcome == "skipped"} == {DATASET_UNCHANGED}
    assert all(one.job_id for one in found)


def test_nothing_is_left_out_when_in_doubt(site: Site) -> None:
    site.schedule(only_if_changed="dataset")
    run(site, trained("a" * 64))
    assert run(site, trained(None))["digest"] == "a" * 64
    assert run(site, trained("a" * 64)) == NOTHING, "what the last one has trained on is not known"


def test_an_end_that_is_not_noted_yet_is_no_measure_and_nor_is_an_earlier_one(site: Site) -> None:
    made = site.schedule(only_if_changed="dataset", overlap="allow")
    run(site, trained("a" * 64))
    site.tick(HOUR)
    site.tick(HOUR)
    second, third = site.jobs()[-2:]
    begin(site, second, "r2")
    end(site, second, trained("b" * 64), "r2")
    assert begin(site, third, "r3")["trained_before"] == NOTHING
    site.tick(1)
    assert begin(site, third, "r4")["trained_before"] == {"digest": "b" * 64, "job_id": second.id}
    assert site.record(made).dataset_job_id == second.id


def test_only_such_schedules_compare_and_what_is_made_by_hand_trains(site: Site) -> None:
    made = site.schedule(only_if_changed="dataset")
    run(site, trained("a" * 64))
    by_hand = site.controllers[0]._firing.run_now(site.record(made), site.ana, now=site.now)
    job = next(one for one in site.jobs() if one.id == by_hand.job_id)
    assert begin(site, job)["trained_before"] == NOTHING, "it tells what it trains on, and compares nothing"
    end(site, job, trained("e" * 64))
    site.tick(1)
    assert site.record(made).dataset == "e" * 64
    past = {"first": NOON - 2 * HOUR, "last": NOON - 2 * HOUR, "now": site.now}
    assert plan_backfill(site.store, site.record(made), site.ana, **past) == (1, 1)
    site.tick(1)
    assert begin(site, site.jobs()[-1])["trained_before"]["digest"] == "e" * 64
    with site.store.write() as conn:
        delete_schedule(conn, made)
    assert begin(site, site.jobs()[-1], "r2")["trained_before"] is None
    site.schedule()
    assert run(site, trained("a" * 64)) is None


@pytest.mark.parametrize("twice", [False, True])
def test_a_runner_that_is_lost_is_told_the_same_again(site: Site, twice: bool) -> None:
    made = site.schedule(only_if_changed="dataset")
    run(site, trained("a" * 64))
    site.tick(HOUR)
    job = site.jobs()[-1]
    assert begin(site, job, "r1")["trained_before"] == begin(site, job, "r2")["trained_before"]
    assert end(site, job, SAME, "r1")["abandon"], "of the runner that is lost nothing counts"
    for _ in range(1 + twice):
        end(site, job, SAME, "r2")
    site.tick(1)
    site.tick(1)
    assert [one.outcome for one in site.occurrences(made)] == ["succeeded", "skipped"]
