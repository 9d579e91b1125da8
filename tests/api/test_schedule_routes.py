"""Schedules over HTTP: made once, seen by those who may, changed, run and made up for."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from astraml_ray.access.issuing import issue_personal_token
from astraml_ray.access.permissions import Permission, Role
from astraml_ray.access.tokens import Principal
from astraml_ray.spec.loading import parse_document
from astraml_ray.store.audit import Actor
from astraml_ray.store.projects import create_project, set_member
from tests.api.conftest import REFERENCE, Api

NIGHTLY: dict[str, Any] = {**REFERENCE, "schedule": {"cron": "0 2 * * *", "timezone": "Europe/Berlin"}}
README = Path(__file__).parents[2] / "astraml_ray/api/README.md"

Member = Callable[..., dict[str, str]]


@pytest.fixture
def member(api: Api) -> Member:
    """Makes members of p-demo; their headers."""

    def make(
        name: str, role: Role, *, project: str = "p-demo", scopes: list[Permission] | None = None
    ) -> dict[str, str]:
        root, now = Principal("t" * 12, "root", Role.ORG_ADMIN), time.time()
        with api.store.write() as conn:
            create_project(conn, project, actor=Actor("test"), now=now)
            set_member(conn, project, name, role.value, actor=Actor("test"), now=now)
            text, _ = issue_personal_token(conn, root, name, permissions=scopes, now=now)
        return {"Authorization": f"Bearer {text}"}

    return make


def made(api: Api, spec: dict[str, Any] = NIGHTLY, **headers: str) -> dict[str, Any]:
    answer = api.client.post("/v2.1/schedules", json=spec, headers=headers)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def count(api: Api, table: str) -> int:
    with api.store.read() as conn:
        return int(conn.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar() or 0)


def test_a_spec_with_a_schedule_makes_one_by_either_route(either_api: Api) -> None:
    api = either_api
    by_jobs = api.client.post("/v2.1/jobs", json=NIGHTLY)
    assert by_jobs.status_code == 201, by_jobs.text
    schedule = by_jobs.json()
    assert by_jobs.headers["location"] == f"/v2.1/schedules/{schedule['id']}"
    assert schedule["id"].startswith("sch-")
    assert (schedule["status"], schedule["owner"], schedule["spec"]) == ("active", "root", NIGHTLY)
    assert (schedule["schedule"]["overlap"], schedule["schedule"]["catchup_window"]) == ("skip", "1d")
    assert len(schedule["next"]) == 5
    assert all(one["local"][11:16] in ("02:00", "03:00") for one in schedule["next"])
    assert api.client.get(by_jobs.headers["location"]).json() == schedule
    wrapped = api.client.post("/v2.1/schedules", json={"spec": NIGHTLY})
    assert (wrapped.status_code, wrapped.json()["spec"]) == (201, NIGHTLY)
    old = api.client.post(
        "/v1/jobs", json={"project": "p-demo", "dataset": "s3://b/d", "model": "m", "cron": "0 2 * * *"}
    )
    assert old.json()["schedule"]["cron"] == "0 2 * * *"
    assert (count(api, "schedules"), count(api, "jobs")) == (3, 0)
    assert len(api.nudges) == 3


def test_a_key_makes_one_schedule_and_gives_the_same_answer(either_api: Api) -> None:
    api = either_api
    sent = {"Idempotency-Key": "k1"}
    answers = [api.client.post("/v2.1/jobs", json=NIGHTLY, headers=sent) for _ in range(2)]
    assert [one.headers.get("idempotency-replayed") for one in answers] == [None, "true"]
    assert answers[0].json() == answers[1].json()
    assert answers[0].headers["location"] == answers[1].headers["location"]
    assert api.client.delete(answers[0].headers["location"]).status_code == 200
    assert api.client.post("/v2.1/jobs", json=NIGHTLY, headers=sent).json() == answers[0].json()
    other = api.client.post("/v2.1/jobs", json=REFERENCE, headers=sent)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert (count(api, "schedules"), count(api, "jobs")) == (0, 0)
    api.submit(**{"Idempotency-Key": "k2"})
    crossed = api.client.post("/v2.1/jobs", json=NIGHTLY, headers={"Idempotency-Key": "k2"})
    assert crossed.json()["code"] == "idempotency_key_reused"


@pytest.mark.parametrize(
    ("schedule", "param"),
    [
        ({"cron": "0 0 30 2 *"}, "/schedule/cron"),
        ({"cron": "* * * * * *"}, "/schedule/cron"),
        ({"cron": "0 2 * * *", "timezone": "../../etc/passwd"}, "/schedule/timezone"),
        ({"cron": "0 2 * * *", "jitter": "1d"}, "/schedule/jitter"),
        ({"cron": "0 2 * * *", "only_if_changed": "model"}, "/schedule/only_if_changed"),
        (7, "/schedule"),
    ],
)
def test_what_is_wrong_with_it_is_told_by_its_field(api: Api, schedule: Any, param: str) -> None:
    for path in ("/v2.1/jobs", "/v2.1/schedules", "/v2.1/jobs:validate"):
        answer = api.client.post(path, json={**REFERENCE, "schedule": schedule})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_spec"), answer.text
        assert [problem["param"] for problem in answer.json()["problems"]] == [param]
    assert count(api, "schedules") == 0


def test_a_schedule_is_needed_and_a_clone_has_none(api: Api) -> None:
    without = api.client.post("/v2.1/schedules", json=REFERENCE)
    assert (without.status_code, without.json()["problems"][0]["param"]) == (422, "/schedule")
    clone = api.client.post(f"/v2.1/jobs/{api.new_job()}/clone", json={"set": {"schedule.cron": "0 2 * * *"}})
    assert (clone.status_code, clone.json()["problems"][0]["param"]) == (422, "/schedule")


def test_templates_are_for_schedules_and_are_checked_at_once(api: Api) -> None:
    spec = {**NIGHTLY, "name": "n-{{ scheduled_time:%Y-%m-%d }}", "dataset": "s3://b/{{ scheduled_time }}/"}
    assert made(api, spec)["name"] == spec["name"]
    wrong = api.client.post("/v2.1/jobs", json={**NIGHTLY, "name": "n-{{ time }}"})
    assert (wrong.status_code, wrong.json()["problems"][0]["param"]) == (422, "/name")
    unfit = api.client.post("/v2.1/jobs", json={**NIGHTLY, "name": "{{ scheduled_time:%H:%M }}"})
    assert (unfit.status_code, unfit.json()["problems"][0]["param"]) == (422, "/name")


def test_who_may_not_manage_schedules_makes_none(api: Api, member: Member) -> None:
    submitter = member("ben", Role.SUBMITTER)
    narrowed = member("eve", Role.EDITOR, scopes=[Permission.SCHEDULE_MANAGE, Permission.JOB_READ])
    for sent, missing in ((submitter, "schedule.manage"), (narrowed, "job.submit")):
        for path in ("/v2.1/jobs", "/v2.1/schedules"):
            answer = api.client.post(path, json=NIGHTLY, headers=sent)
            assert (answer.status_code, answer.json()["permission"]) == (403, missing), answer.text
    assert count(api, "schedules") == 0


def test_jobs_are_found_by_their_schedule(either_api: Api) -> None:
    api = either_api
    mine, other = made(api), made(api)
    api.submit()
    ids = [api.client.post(f"{mine['links']['self']}/run-now").json()["job_id"] for _ in range(3)]
    api.client.post(f"{other['links']['self']}/run-now")
    first = api.client.get(f"{mine['links']['jobs']}&limit=2").json()
    rest = api.client.get(f"{mine['links']['jobs']}&limit=2&cursor={first['next_cursor']}").json()
    found = [job["id"] for job in first["data"] + rest["data"]]
    assert (found, rest["next_cursor"]) == (sorted(ids, reverse=True), None)
    assert {job["schedule_id"] for job in first["data"]} == {mine["id"]}
    assert api.client.get(f"{mine['links']['jobs']}&status=failed").json()["data"] == []
    api.client.delete(mine["links"]["self"])
    assert api.client.get(mine["links"]["jobs"]).status_code == 404
    assert len(api.client.get("/v2.1/jobs").json()["data"]) == 5


def test_jobs_of_another_project_s_schedule_are_not_there(api: Api, member: Member) -> None:
    viewer, stranger = member("vic", Role.VIEWER), member("zoe", Role.PROJECT_ADMIN, project="p-other")
    mine = made(api)
    api.client.post(f"{mine['links']['self']}/run-now")
    assert len(api.client.get(mine["links"]["jobs"], headers=viewer).json()["data"]) == 1
    for query, headers in ((mine["id"], stranger), ("sch-0", viewer), ("a%00b", viewer)):
        missing = api.client.get(f"/v2.1/jobs?schedule_id={query}", headers=headers)
        assert (missing.status_code, missing.json()["code"]) == (404, "schedule_not_found")
        assert missing.json()["param"] == "schedule_id"


def test_another_project_s_schedules_are_not_there(api: Api, member: Member) -> None:
    mine, other = made(api), made(api, {**NIGHTLY, "project_id": "secret"})
    ana = member("ana", Role.PROJECT_ADMIN)
    for method, path in (
        ("GET", ""), ("GET", "/next"), ("GET", "/occurrences"), ("DELETE", ""),
        ("POST", "/pause"), ("POST", "/resume"), ("POST", "/run-now"), ("POST", "/backfill"),
    ):  # fmt: skip
        for hidden in (other["id"], "sch-nope", "x" * 70):
            answer = api.client.request(method, f"/v2.1/schedules/{hidden}{path}", headers=ana)
            assert (answer.status_code, answer.json()["code"]) == (404, "schedule_not_found")
    assert [one["id"] for one in api.client.get("/v2.1/schedules", headers=ana).json()["data"]] == [mine["id"]]
    assert api.client.get("/v2.1/schedules?project_id=secret", headers=ana).status_code == 404


def test_pages(api: Api) -> None:
    ids = [made(api)["id"] for _ in range(5)]
    seen: list[str] = []
    cursor: str | None = None
    while cursor is not None or not seen:
        page = api.client.get("/v2.1/schedules", params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        seen += [one["id"] for one in page["data"]]
        assert all("spec" not in one for one in page["data"])
        cursor = page["next_cursor"]
    assert sorted(seen) == sorted(ids)


def test_pause_resume_and_delete_leave_their_lines_in_the_audit_trail(api: Api, member: Member) -> None:
    ana = member("ana", Role.EDITOR)
    place = f"/v2.1/schedules/{made(api, NIGHTLY, **ana)['id']}"
    paused = api.client.post(f"{place}/pause", json={"reason": "holidays"}, headers=ana).json()
    assert (paused["status"], paused["paused_by"], paused["pause_reason"]) == ("paused", "ana", "holidays")
    assert paused["next_at"] is None
    assert api.client.post(f"{place}/pause").json() == paused
    resumed = api.client.post(f"{place}/resume", headers=ana).json()
    assert (resumed["status"], resumed["pause_reason"]) == ("active", None)
    assert api.client.post(f"{place}/pause", json={"reason": 7}).status_code == 422
    assert api.client.delete(place, headers=ana).json() == {"id": place.rpartition("/")[2]}
    assert api.client.get(place).status_code == 404
    with api.store.read() as conn:
        found = conn.exec_driver_sql(
            "SELECT action, actor FROM audit WHERE action LIKE 'schedule.%' ORDER BY seq"
        ).all()
    assert found == [(f"schedule.{verb}", "ana") for verb in ("created", "paused", "resumed", "deleted")]


def test_run_now_makes_the_caller_s_job_also_of_a_paused_schedule(api: Api, member: Member) -> None:
    place = f"/v2.1/schedules/{made(api)['id']}"
    api.client.post(f"{place}/pause")
    ran = api.client.post(f"{place}/run-now", headers=member("ana", Role.EDITOR))
    assert (ran.status_code, ran.json()["kind"], ran.json()["outcome"]) == (201, "manual", "started")
    job = api.client.get(f"/v2.1/jobs/{ran.json()['job_id']}").json()
    assert (job["status"], job["submitted_by"], job["spec"]["schedule"]) == ("queued", "ana", None)
    assert api.client.get(f"{place}/occurrences").json()["data"] == [ran.json()]
    clone = api.client.post(f"/v2.1/jobs/{job['id']}/clone")
    assert (clone.status_code, clone.json()["relation"]) == (201, "clone")
    again = api.client.post(f"{place}/run-now").json()
    assert again["job_id"] != ran.json()["job_id"], "each request makes a job, also within one second"
    api.client.post("/v2.1/projects/p-demo/archive")
    refused = api.client.post(f"{place}/run-now")
    assert (refused.status_code, refused.json()["code"]) == (409, "project_archived")
    assert len(api.client.get(f"{place}/occurrences").json()["data"]) == 2


def test_a_backfill_is_bounded_and_lies_in_the_past(api: Api) -> None:
    place = f"/v2.1/schedules/{made(api)['id']}"
    asked = {"from": "2026-03-27T00:00:00+01:00", "to": "2026-03-30T12:00:00Z"}
    planned = api.client.post(f"{place}/backfill", json=asked)
    assert (planned.status_code, planned.json()) == (202, {"instants": 4, "planned": 4})
    assert api.client.post(f"{place}/backfill", json=asked).json() == {"instants": 4, "planned": 0}
    first = api.client.get(f"{place}/occurrences?limit=3").json()
    rest = api.client.get(f"{place}/occurrences", params={"cursor": first["next_cursor"]}).json()
    found = [one["instant"] for one in first["data"] + rest["data"]]
    assert found == [f"2026-03-{day}T0{hour}:00:00.000Z" for day, hour in ((30, 0), (29, 1), (28, 1), (27, 1))]
    tomorrow = (datetime.now(timezone.utc) + timedelta(days=1)).isoformat()
    for body, param in (
        ({**asked, "from": "2020-01-01T00:00:00Z"}, "/to"),
        ({**asked, "to": tomorrow}, "/to"),
        ({**asked, "from": "0001-01-01T00:00:00Z"}, "/from"),
        ({"from": asked["to"], "to": asked["from"]}, "/from"),
        ({"from": "x", "to": asked["to"]}, "/from"),
        ({"from": asked["from"]}, "/to"),
        ({**asked, "more": 1}, "/more"),
    ):
        answer = api.client.post(f"{place}/backfill", json=body)
        assert (answer.status_code, answer.json()["param"]) == (422, param), answer.text


def test_a_key_runs_a_schedule_once(either_api: Api, member: Member) -> None:
    api = either_api
    place, sent = f"/v2.1/schedules/{made(api)['id']}", {"Idempotency-Key": "now"}
    nudges = len(api.nudges)
    answers = [api.client.post(f"{place}/run-now", headers=sent) for _ in range(3)]
    assert [one.status_code for one in answers] == [201] * 3
    assert [one.headers.get("idempotency-replayed") for one in answers] == [None, "true", "true"]
    assert answers[0].json() == answers[1].json() == answers[2].json()
    assert (count(api, "jobs"), len(api.nudges) - nudges) == (1, 1)
    with ThreadPoolExecutor(4) as pool:
        keyed = {"Idempotency-Key": "together"}
        at_once = [pool.submit(api.client.post, f"{place}/run-now", headers=keyed) for _ in range(4)]
    codes = {one.result().status_code for one in at_once}
    assert codes <= {201, 409}, "made, or under way"
    assert count(api, "jobs") == 2
    other = api.client.post(f"/v2.1/schedules/{made(api)['id']}/run-now", headers=sent)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert [one["param"] for one in other.json()["differs"]] == ["/schedule_id"]
    bad = api.client.post(f"{place}/run-now", headers={"Idempotency-Key": ""})
    assert bad.json()["code"] == "idempotency_key_invalid"
    assert count(api, "jobs") == 2


def test_a_key_makes_up_for_a_time_once(either_api: Api) -> None:
    api = either_api
    place, sent = f"/v2.1/schedules/{made(api)['id']}", {"Idempotency-Key": "back"}
    asked = {"from": "2026-03-27T00:00:00+01:00", "to": "2026-03-30T12:00:00Z"}
    first = api.client.post(f"{place}/backfill", json=asked, headers=sent)
    assert (first.status_code, first.json()) == (202, {"instants": 4, "planned": 4})
    again = api.client.post(f"{place}/backfill", json={**asked, "from": "2026-03-26T23:00:00Z"}, headers=sent)
    assert (again.json(), again.headers["idempotency-replayed"]) == (first.json(), "true"), "the same time"
    other = api.client.post(f"{place}/backfill", json={**asked, "to": "2026-03-29T12:00:00Z"}, headers=sent)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    # A key is of one route.
    assert api.client.post(f"{place}/run-now", headers=sent).status_code == 201


def test_a_job_names_its_schedule(api: Api) -> None:
    schedule = made(api)
    place = f"/v2.1/schedules/{schedule['id']}"
    ran = api.client.post(f"{place}/run-now").json()
    plain = api.client.get(f"/v2.1/jobs/{api.new_job()}").json()
    assert (plain["schedule_id"], plain["scheduled_time"]) == (None, None)
    where = f"/v2.1/jobs/{ran['job_id']}"
    listed = next(one for one in api.client.get("/v2.1/jobs").json()["data"] if one["id"] == ran["job_id"])
    for job in (api.client.get(where).json(), listed, api.client.post(f"{where}/cancel").json()):
        assert (job["schedule_id"], job["scheduled_time"]) == (schedule["id"], ran["instant"])
    api.client.delete(place)
    assert api.client.get(where).json()["schedule_id"] is None


def test_next_times_are_in_local_time_with_their_marks(api: Api) -> None:
    spec = {**NIGHTLY, "schedule": {"cron": "30 2 * 3,10 0", "timezone": "Europe/Berlin"}}
    place = f"/v2.1/schedules/{made(api, spec)['id']}"
    found = api.client.get(f"{place}/next?count=12").json()
    assert (found["timezone"], len(found["data"])) == ("Europe/Berlin", 12)
    marks = [one for one in found["data"] if one["mark"]]
    assert {("forward" in one["mark"], one["local"][11:16]) for one in marks} == {(True, "03:00"), (False, "02:30")}
    for bad in ("0", "101", "x"):
        assert api.client.get(f"{place}/next?count={bad}").status_code == 422


def test_the_example_in_the_readme_is_a_schedule(api: Api) -> None:
    section = README.read_text().partition("## Schedules")[2]
    example = parse_document(section.partition("```yaml")[2].partition("```")[0], source="README")
    schedule = made(api, {**example, "project_id": "p-demo"})
    assert schedule["schedule"]["timezone"] == example["schedule"]["timezone"]
    assert set(schedule["schedule"]) == set(example["schedule"]), "it shows every field"
