"""Schedules at work, over both databases: what is due becomes a job once, whatever happens to the controller."""

from __future__ import annotations

import math
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from astraml_ray.access.administration import create_project, grant_role
from astraml_ray.access.effective import apply_policies
from astraml_ray.access.issuing import issue_personal_token
from astraml_ray.access.permissions import Role
from astraml_ray.access.policy_versions import write_policy
from astraml_ray.access.targets import AllowedTargets
from astraml_ray.access.tokens import Principal
from astraml_ray.api.scheduling import insert_schedule, pause, plan_backfill, resume
from astraml_ray.control.admission import Capacity
from astraml_ray.control.controller import Reconciler
from astraml_ray.control.firing import Firing
from astraml_ray.control.making import Request
from astraml_ray.errors import StaleLeaseError
from astraml_ray.spec.states import JobStatus
from astraml_ray.spec.templates import fill_templates
from astraml_ray.store.access import find_origin
from astraml_ray.store.engine import Store, migrate, open_store
from astraml_ray.store.jobs import JobRecord, change_status, list_jobs
from astraml_ray.store.leases import acquire_lease
from astraml_ray.store.occurrences import OccurrenceRecord, list_occurrences
from astraml_ray.store.projects import archive_project, remove_member
from astraml_ray.store.schedules import ScheduleRecord, get_schedule, update_schedule
from tests.control.fake_launcher import FakeLauncher
from tests.store.databases import Postgres, serve_postgres

NOON = 1_777_636_800.0  # 2026-05-01 12:00 UTC
HOUR = 3600.0
ROOT = Principal("t" * 12, "root", Role.ORG_ADMIN)
SPEC = {"project_id": "p-demo", "dataset": "s3://b/d", "model": "tiny-bert", "resources": {"gpus": 0}}


class Site:
    """A database, controllers of it, and a clock."""

    def __init__(self, url: str) -> None:
        self.url, self.now = url, NOON - 60
        self.store = open_store(url)
        self.controllers = [self.controller("first")]
        with self.store.write() as conn:
            create_project(conn, ROOT, "p-demo", now=self.now)
            grant_role(conn, ROOT, "p-demo", "ana", Role.EDITOR, now=self.now)
            _, token = issue_personal_token(conn, ROOT, "ana", now=self.now)
        self.ana = Principal(token.id, "ana", None, {"p-demo": Role.EDITOR})

    def controller(self, holder: str, store: Store | None = None) -> Reconciler:
        # Too small for any job: they stay in the queue.
        launcher = FakeLauncher(Capacity(cpus=0.5, gpus=0, free_cpus=0, free_gpus=0))
        made = Reconciler(store or self.store, launcher, holder=holder, storage="/runs", clock=lambda: self.now)
        made._firing._pass_s = math.inf  # real seconds, on a clock that stands still between ticks
        return made

    def schedule(self, spec: dict[str, Any] | None = None, cron: str = "0 * * * *", **fields: Any) -> str:
        document = {**SPEC, **(spec or {}), "schedule": {"cron": cron, **fields}}
        outcome = apply_policies(fill_templates(document, self.now))
        with self.store.write() as conn:
            request = Request(self.ana, document, "v2.1")
            return insert_schedule(conn, request, document, outcome, now=self.now).id

    def tick(self, seconds: float = 0.0) -> None:
        self.now += seconds
        for controller in self.controllers:
            controller.tick()

    def record(self, schedule_id: str) -> ScheduleRecord:
        with self.store.read() as conn:
            return get_schedule(conn, schedule_id)

    def occurrences(self, schedule_id: str) -> list[OccurrenceRecord]:
        """The earliest first."""
        with self.store.read() as conn:
            return list_occurrences(conn, schedule_id, limit=1000)[::-1]

    def outcomes(self, schedule_id: str) -> list[str]:
        return [one.outcome for one in self.occurrences(schedule_id)]

    def jobs(self) -> list[JobRecord]:
        """The oldest first."""
        with self.store.read() as conn:
            return list_jobs(conn, limit=1000)[::-1]

    def end(self, job: JobRecord, *statuses: JobStatus) -> None:
        with self.store.write() as conn:
            for status in (JobStatus.STARTING, JobStatus.RUNNING, *statuses):
                change_status(conn, job.id, status, reason="test", message=None, now=self.now)


@pytest.fixture(scope="module")
def postgres() -> Iterator[tuple[Postgres, str]]:
    with serve_postgres() as server:
        url = server.empty()
        migrate(url)
        yield server, url


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "astraml.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    if request.param == "sqlite":
        made = Site(f"sqlite:///{shutil.copy(request.getfixturevalue('template'), tmp_path / 'astraml.db')}")
    else:
        server, url = request.getfixturevalue("postgres")
        server.clear(url)
        made = Site(url)
    yield made
    made.store.close()


def test_each_instant_gets_one_job_that_knows_its_schedule(site: Site) -> None:
    made = site.schedule(
        {
            "name": "n-{{ scheduled_time:%H%M }}",
            "dataset": "s3://b/{{ scheduled_time:%Y-%m-%d }}/",
            "labels": {"a": "b"},
        },
        timezone="Europe/Berlin",
        overlap="allow",
    )
    site.tick()
    assert site.jobs() == []
    site.tick(60)
    for _ in range(3):
        site.tick(1)
    (job,) = site.jobs()
    assert (job.name, job.spec["dataset"]["path"], job.labels) == ("n-1400", "s3://b/2026-05-01/", {"a": "b"})
    assert job.spec["schedule"] is None
    (one,) = site.occurrences(made)
    assert (one.instant, one.kind, one.outcome, one.job_id) == (NOON, "scheduled", "started", job.id)
    with site.store.read() as conn:
        origin = find_origin(conn, job.id)
    assert origin is not None
    assert (origin.subject, origin.request["name"]) == ("ana", "n-{{ scheduled_time:%H%M }}")
    site.tick(HOUR)
    assert [job.name for job in site.jobs()] == ["n-1400", "n-1500"]
    assert site.record(made).next_at == NOON + 2 * HOUR


def test_two_controllers_and_a_restart_make_nothing_twice_and_lose_nothing(site: Site) -> None:
    made = site.schedule(overlap="allow", catchup="all")
    others = [open_store(site.url) for _ in range(2)]
    for hour in range(4):
        site.now = NOON + hour * HOUR + 1
        controllers = [site.controller(f"c{hour}-{n}", store) for n, store in enumerate(others)]
        with site.store.write() as conn:
            conn.exec_driver_sql("UPDATE leases SET expires_at = 0")
        threads = [threading.Thread(target=_tick, args=(one,)) for one in controllers for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        site.now += 30
        for one in controllers:
            _tick(one)
    for store in others:
        store.close()
    found = site.occurrences(made)
    assert [one.instant for one in found] == [NOON + hour * HOUR for hour in range(4)]
    assert sorted(str(one.job_id) for one in found) == sorted(job.id for job in site.jobs())


def _tick(controller: Reconciler) -> None:
    try:
        controller.tick()
    except StaleLeaseError:
        controller._lease = None  # as run_forever does


def test_a_controller_without_its_lease_fires_nothing(site: Site) -> None:
    made = site.schedule()
    site.tick()
    with site.store.write() as conn:
        conn.exec_driver_sql("UPDATE leases SET expires_at = 0")
    assert acquire_lease(site.store, "controller", "another", ttl_s=1e9, now=NOON)
    site.now += 61
    site.controllers[0]._renewed = site.now  # it does not know yet
    with pytest.raises(StaleLeaseError):
        site.controllers[0].tick()
    assert (site.jobs(), site.occurrences(made)) == ([], [])
    assert site.record(made).handled_at < NOON


def test_a_clock_that_is_set_back_or_forward_repeats_nothing_and_does_not_stop_it(site: Site) -> None:
    made = site.schedule(overlap="allow")
    site.tick(60)
    site.tick(HOUR)
    assert len(site.jobs()) == 2
    site.now = NOON - 600
    site.controllers = [site.controller("again")]
    with site.store.write() as conn:
        conn.exec_driver_sql("UPDATE leases SET expires_at = 0")
    for _ in range(30):
        site.tick(300)
    assert [one.instant for one in site.occurrences(made)] == [NOON, NOON + HOUR, NOON + 2 * HOUR]
    assert len(site.jobs()) == 3
    ahead = site.now + 400 * 86400
    site.now, now = ahead, site.now
    site.tick()
    site.now = now
    site.controllers = [site.controller("once more")]
    with site.store.write() as conn:
        conn.exec_driver_sql("UPDATE leases SET expires_at = 0")
    site.tick(1)
    site.tick(HOUR)
    assert NOON + 3 * HOUR in [one.instant for one in site.occurrences(made)]


def test_what_passed_while_the_service_was_away(site: Site) -> None:
    latest, everything, none = (site.schedule(overlap="allow", catchup=how) for how in ("latest", "all", "none"))
    site.tick(60 + 10 * HOUR + 600)
    assert site.outcomes(latest) == ["missed"] * 10 + ["started"]
    assert site.outcomes(everything) == ["started"] * 11
    assert site.outcomes(none) == ["missed"] * 11
    assert "catchup: none" in str(site.occurrences(none)[0].reason)


def test_over_a_hundred_missed_ones_stop_nothing(site: Site) -> None:
    made = site.schedule(cron="* * * * *", catchup="all", overlap="allow")
    site.tick(60 * 131)
    for _ in range(8):
        site.tick()
    assert site.outcomes(made) == ["started"] * 131
    latest = site.schedule(cron="* * * * *")
    site.tick(60 * 500)
    assert site.outcomes(latest) == ["missed"] * 100 + ["started"]


def test_a_pass_that_takes_long_leaves_the_rest_to_the_next_and_nothing_is_lost(site: Site) -> None:
    made = [site.schedule(catchup="all", overlap="allow") for _ in range(2)]
    firing = Firing(site.store, AllowedTargets(), pass_s=0.0)
    later = site.now + 3 * 3600 + 1
    for number in range(1, 7):
        firing.look(later)
        assert len(site.jobs()) == number, "one at a time, and never the same one again"
    firing.look(later)
    assert len(site.jobs()) == 6
    assert [len(site.occurrences(one)) for one in made] == [3, 3]


def test_overlap(site: Site) -> None:
    skip, queued, cancel = (site.schedule(overlap=how) for how in ("skip", "queue_one", "cancel_running"))
    site.tick(60)
    for _ in range(3):
        site.tick(HOUR)
    assert site.outcomes(skip) == ["started", "skipped", "skipped", "skipped"]
    assert site.outcomes(queued) == ["started", "waiting", "skipped", "skipped"]
    site.tick(1)
    assert site.outcomes(cancel) == ["cancelled", "cancelled", "cancelled", "started"]
    first = site.occurrences(queued)[0]
    assert str(first.job_id) in str(site.occurrences(queued)[2].reason)
    site.end(next(job for job in site.jobs() if job.id == first.job_id), JobStatus.SUCCEEDED)
    site.tick(1)
    assert site.outcomes(queued)[:2] == ["succeeded", "started"]
    assert len({one.job_id for one in site.occurrences(queued) if one.job_id}) == 2


def test_policies_count_that_are_in_force_when_it_fires_and_others_go_on(site: Site) -> None:
    bad, good = site.schedule(overlap="allow"), site.schedule({"resources": {"gpus": 1}}, overlap="allow")
    with site.store.write() as conn:
        rules = {"resources.gpus": {"min": 1}, "priority": {"force": 7}}
        write_policy(conn, ROOT, "p-demo", {"rules": rules}, expected=None, note=None, now=site.now)
    site.tick(60)
    (failed,) = site.occurrences(bad)
    assert (failed.outcome, failed.job_id, failed.error and failed.error["code"]) == (
        "failed",
        None,
        "policy_violation",
    )
    assert "gpus" in str(failed.reason)
    (job,) = site.jobs()
    assert (site.outcomes(good), job.priority) == (["started"], 7)


def test_a_project_that_is_archived_and_a_secret_that_is_missing_are_failed_occurrences(site: Site) -> None:
    made = site.schedule(pause_after_failures=2)
    with site.store.write() as conn:
        archive_project(conn, "p-demo", actor=ROOT.actor, now=site.now)
    site.tick(60)
    with site.store.write() as conn:
        archive_project(conn, "p-demo", archived=False, actor=ROOT.actor, now=site.now)
        values = {"document": {**site.record(made).document, "env": {"KEY": {"secret": "gone"}}}}
        update_schedule(conn, made, **values)
    site.tick(HOUR)
    errors = [one.error and one.error["code"] for one in site.occurrences(made)]
    assert errors[0] == "project_archived"
    assert errors[1] in ("secret_not_found", "permission_denied")
    paused = site.record(made)
    assert (paused.paused_at, paused.pause_reason) == (site.now, "2 failures in a row")
    site.tick(HOUR)
    assert len(site.occurrences(made)) == 2


def test_an_owner_who_may_not_submit_any_more_pauses_the_schedule(site: Site) -> None:
    made = site.schedule()
    with site.store.write() as conn:
        remove_member(conn, "p-demo", "ana", actor=ROOT.actor, now=site.now)
    site.tick(60)
    (failed,) = site.occurrences(made)
    assert (failed.outcome, "ana may not submit" in str(failed.reason)) == ("failed", True)
    paused = site.record(made)
    assert "ana may not submit" in str(paused.pause_reason)
    assert paused.paused_by is None


def test_failures_in_a_row_pause_it_and_a_success_begins_anew(site: Site) -> None:
    made = site.schedule(pause_after_failures=2)
    for outcome in (JobStatus.FAILED, JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.FAILED):
        assert site.record(made).paused_at is None
        site.tick(HOUR)
        site.end(site.jobs()[-1], outcome)
        site.tick(1)
    assert site.outcomes(made) == ["failed", "succeeded", "failed", "failed"]
    assert site.record(made).pause_reason == "2 failures in a row"
    site.tick(3 * HOUR)
    assert len(site.jobs()) == 4
    resume(site.store, made, site.ana, now=site.now)
    site.tick(HOUR)
    assert len(site.jobs()) == 5, "what passed while it was paused is not made up for"
    assert site.record(made).failures == 0


def test_a_backfill_runs_one_after_the_other_and_gives_no_instant_a_second_job(site: Site) -> None:
    made = site.schedule(catchup="none")
    site.tick(60)
    site.tick(3 * HOUR + 600)
    assert site.outcomes(made) == ["started", "missed", "missed", "missed"]
    pause(site.store, made, site.ana, None, now=site.now)
    asked = {"first": NOON - HOUR, "last": NOON + 3 * HOUR, "now": site.now}
    assert plan_backfill(site.store, site.record(made), site.ana, **asked) == (5, 4)
    assert plan_backfill(site.store, site.record(made), site.ana, **asked) == (5, 0)
    site.tick(1)
    assert len(site.jobs()) == 1, "it is paused"
    resume(site.store, made, site.ana, now=site.now)
    for done in range(4):
        site.tick(1)
        site.tick(1)
        assert len(site.jobs()) == 2 + done
        site.end(site.jobs()[-1], JobStatus.SUCCEEDED)
    site.tick(1)
    assert site.outcomes(made) == ["succeeded", "started", "succeeded", "succeeded", "succeeded"]
    assert len({one.job_id for one in site.occurrences(made)}) == 5


def test_a_long_backfill_holds_up_no_occurrence_of_the_schedule_itself(site: Site) -> None:
    made = site.schedule(overlap="queue_one")
    site.tick(60)
    past = {"first": NOON - 60 * HOUR, "last": NOON - HOUR, "now": site.now}
    assert plan_backfill(site.store, site.record(made), site.ana, **past) == (60, 60)
    site.tick(HOUR)
    site.tick(HOUR)
    assert site.outcomes(made)[60:] == ["started", "waiting", "skipped"]
    first = site.occurrences(made)[60]
    site.end(next(job for job in site.jobs() if job.id == first.job_id), JobStatus.SUCCEEDED)
    site.tick(1)
    assert site.outcomes(made)[60:] == ["succeeded", "started", "skipped"]
    assert site.outcomes(made)[:60].count("started") == 1


def test_a_row_that_cannot_be_read_stops_no_other(site: Site) -> None:
    newer, good = site.schedule(), site.schedule()
    with site.store.write() as conn:
        update_schedule(conn, newer, timing={**site.record(newer).timing, "lunar": True})
    site.tick(60)
    assert (site.outcomes(newer), site.outcomes(good)) == ([], ["started"])
