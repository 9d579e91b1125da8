"""Jobs over HTTP: submitted, found, cancelled, resumed, cloned, tried."""

from __future__ import annotations

import re
from typing import Any

import pytest

from astraml_ray.errors import DataError
from astraml_ray.spec.loading import parse_spec
from astraml_ray.spec.states import JobStatus
from astraml_ray.store.attempts import begin_attempt, end_attempt
from astraml_ray.store.jobs import count_by_status, get_job, update_job
from tests.api.conftest import REFERENCE, Api


def test_the_reference_request_has_its_fixed_defaults(api: Api) -> None:
    answer = api.submit({"project_id": "p-demo", "dataset": "s3://bucket/dataset", "model": "bert-base"})
    hyper = answer.json()["spec"]["hyperparams"]
    assert answer.status_code == 201
    assert (hyper["batch_size"], hyper["lr"], hyper["epochs"]) == (32, 3e-5, 5)
    assert hyper["early_stopping"]["patience"] == 5
    assert (hyper["lr_scheduler"], hyper["gradient_accumulation_steps"]) == ("cosine", 1)
    assert answer.json()["effective_batch_size"] == 32


def test_a_submitted_job_is_stored_and_told_of(api: Api) -> None:
    answer = api.submit()
    job = answer.json()
    assert answer.headers["location"] == f"/v2.1/jobs/{job['id']}" == job["links"]["self"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", job["created_at"])
    assert (job["status"], job["terminal"], job["attempts"]) == ("queued", False, 0)
    with api.store.read() as conn:
        stored = get_job(conn, job["id"])
    assert stored.spec == parse_spec(REFERENCE).canonical()
    assert stored.spec_digest == parse_spec(REFERENCE).digest()
    assert api.client.get(answer.headers["location"]).json() == job
    assert len(api.nudges) == 1


def test_a_spec_may_be_yaml(api: Api) -> None:
    text = "dataset: s3://bucket/dataset\nmodel: bert-base\nhyperparams: {lr: 1e-4}\nlabels: {team: vision}\n"
    answer = api.client.post("/v2.1/jobs", content=text, headers={"Content-Type": "application/yaml; charset=utf-8"})
    assert answer.status_code == 201
    assert answer.json()["spec"]["hyperparams"]["lr"] == 1e-4
    assert answer.json()["labels"] == {"team": "vision"}


def test_an_invalid_spec_says_everything_that_is_wrong(api: Api) -> None:
    answer = api.submit({**REFERENCE, "hyperparams": {"batch_sise": 3, "lr": "high"}})
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["stage"]) == (422, "invalid_spec", "request")
    found = {item["param"]: item for item in problem["problems"]}
    assert set(found) == {"/hyperparams/batch_sise", "/hyperparams/lr"}
    assert "hyperparams.batch_size" in found["/hyperparams/batch_sise"]["hint"]
    with api.store.read() as conn:
        assert sum(count_by_status(conn).values()) == 0


def test_a_failing_nudge_does_not_fail_a_submission(api: Api) -> None:
    def fail() -> None:
        raise RuntimeError("no controller")

    api.services.nudge = fail
    assert api.submit().status_code == 201


def test_pages_go_through_all_jobs_once(api: Api) -> None:
    made = [api.submit().json()["id"] for _ in range(7)]
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = api.client.get("/v2.1/jobs", params={"limit": 3, **({"cursor": cursor} if cursor else {})}).json()
        seen += [job["id"] for job in page["data"]]
        assert all("spec" not in job for job in page["data"])
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert sorted(seen) == sorted(made)
    assert seen == sorted(seen, reverse=True)


def test_jobs_are_filtered(api: Api) -> None:
    plain = api.submit({**REFERENCE, "project_id": "other"}).json()
    labelled = api.submit({**REFERENCE, "labels": {"team": "vision", "a/b.c": "x=y z"}}).json()
    running = api.new_job()
    api.move(running, JobStatus.STARTING)

    def ids(query: str) -> set[str]:
        answer = api.client.get(f"/v2.1/jobs?{query}")
        assert answer.status_code == 200, answer.text
        return {job["id"] for job in answer.json()["data"]}

    assert ids("project_id=other") == {plain["id"]}
    assert ids("label=team%3Dvision&label=a/b.c%3Dx%3Dy%20z") == {labelled["id"]}
    assert ids("label=team%3Dspeech") == set()
    assert ids("status=starting,running") == ids("status=running&status=starting") == {running}
    assert ids("status=queued") == {plain["id"], labelled["id"]}
    assert ids("created_after=2100-01-01T00:00:00Z") == set()
    assert len(ids("created_after=2001-01-01T00:00:00.5%2B02:00&created_before=2100-01-01t00:00:00z")) == 3


@pytest.mark.parametrize(
    ("query", "param", "hint"),
    [
        ("limt=3", "limt", "limit"),
        ("status=runing", "status", "running"),
        ("status=queued,", "status", "known here"),
        ("label=team", "label", "key=value"),
        ("label=a=1&label=a=2", "label", "once"),
        ("project_id=a%00b", "project_id", "letters"),
        ("cursor=!!!", "cursor", "next_cursor"),
        ("cursor=AAAA", "cursor", "next_cursor"),
        ("created_after=yesterday", "created_after", "2026-"),
        ("created_after=2026-11-25T20:50:09", "created_after", "Z"),
        ("created_after=2026-02-30T00:00:00Z", "created_after", "Z"),
        ("limit=0", "limit", None),
        ("limit=99999999999999999999999", "limit", None),
        ("limit=1&limit=2", "limit", "once"),
    ],
)
def test_invalid_parameters_are_named(api: Api, query: str, param: str, hint: str | None) -> None:
    answer = api.client.get(f"/v2.1/jobs?{query}")
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["param"]) == (422, "invalid_parameter", param)
    assert hint is None or hint in problem["hint"]


@pytest.mark.parametrize("job_id", ["job-1", "nul%00", "%F0%9F%98%80", "x" * 300, "..", "a b"])
def test_unknown_jobs_are_404(api: Api, job_id: str) -> None:
    answer = api.client.get(f"/v2.1/jobs/{job_id}/attempts")
    assert answer.status_code == 404
    assert answer.json()["code"] in ("job_not_found", "route_not_found")


def test_cancelling(api: Api) -> None:
    queued, running = api.new_job(), api.new_job()
    api.move(running, JobStatus.STARTING, JobStatus.RUNNING)
    at_once = api.client.post(f"/v2.1/jobs/{queued}/cancel")
    assert (at_once.status_code, at_once.json()["status"]) == (200, "cancelled")
    again = api.client.post(f"/v2.1/jobs/{queued}/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "job_terminal")
    assert "links" in at_once.json()
    assert "cancel" not in at_once.json()["links"]

    asked = api.client.post(f"/v2.1/jobs/{running}/cancel", json={"mode": "keep_best"})
    assert (asked.status_code, asked.json()["status"]) == (202, "running")
    assert asked.json()["cancel_requested"] == "keep_best"
    assert api.client.post(f"/v2.1/jobs/{running}/cancel", json={}).json()["cancel_requested"] == "now"
    assert api.client.post(f"/v2.1/jobs/{running}/cancel", json={"mode": "keep_best"}).status_code == 202
    for wrong in ({"mode": "later"}, {"made": "now"}, [], {"mode": None}):
        assert api.client.post(f"/v2.1/jobs/{running}/cancel", json=wrong).status_code == 422
    assert len(api.nudges) == 4


def test_only_what_failed_after_it_began_can_be_resumed(api: Api) -> None:
    queued, early, late = api.new_job(), api.ended_job(), api.ended_job(run_path="/tmp/run")
    for job_id in (queued, early):
        answer = api.client.post(f"/v2.1/jobs/{job_id}/resume")
        assert (answer.status_code, answer.json()["code"]) == (409, "job_not_resumable")
        assert "resume" not in api.client.get(f"/v2.1/jobs/{job_id}").json()["links"]
    made = api.client.post(f"/v2.1/jobs/{late}/resume")
    assert made.status_code == 201
    assert (made.json()["parent_id"], made.json()["relation"]) == (late, "resume")
    assert made.json()["spec"] == api.client.get(f"/v2.1/jobs/{late}").json()["spec"]
    assert made.headers["location"] == f"/v2.1/jobs/{made.json()['id']}"
    assert api.client.post(f"/v2.1/jobs/{late}/resume", json={"set": {}}).status_code == 422


def test_a_clone_has_the_changes(api: Api) -> None:
    job_id = api.new_job()
    changes = {"hyperparams.lr": 1e-4, "resources.gpus": 0, "dataset": "s3://other/data", "labels.team": "vision"}
    made = api.client.post(f"/v2.1/jobs/{job_id}/clone", json={"set": changes}).json()
    assert (made["parent_id"], made["relation"], made["labels"]) == (job_id, "clone", {"team": "vision"})
    assert (made["spec"]["hyperparams"]["lr"], made["spec"]["resources"]["gpus"]) == (1e-4, 0)
    assert made["spec"]["dataset"]["path"] == "s3://other/data"
    wrong = api.client.post(f"/v2.1/jobs/{job_id}/clone", json={"set": {"hyperparams.lr": -1}})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid_spec")
    for bad in ({"set": []}, {"sett": {}}, {"set": {"": 1}}, {"set": {"a..b": 1}}):
        assert api.client.post(f"/v2.1/jobs/{job_id}/clone", json=bad).status_code == 422
    assert api.client.post(f"/v2.1/jobs/{job_id}/clone").status_code == 201


def test_a_dry_run_stores_nothing(api: Api) -> None:
    answer = api.client.post("/v2.1/jobs:validate", json=REFERENCE)
    assert answer.status_code == 200
    assert api.validator.seen == [parse_spec(REFERENCE).canonical()] == [answer.json()["spec"]]
    with api.store.read() as conn:
        assert sum(count_by_status(conn).values()) == 0


def test_what_a_dry_run_finds_is_the_clients_to_correct(api: Api) -> None:
    def fail(spec: dict[str, Any]) -> dict[str, Any]:
        raise DataError("the bucket does not exist", param="s3://bucket/dataset", hint="check the name")

    api.validator.answer = fail
    answer = api.client.post("/v2.1/jobs:validate", json=REFERENCE)
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["class"]) == (422, "data", "data")
    assert (problem["param"], problem["hint"]) == ("s3://bucket/dataset", "check the name")


def test_attempts_are_listed(api: Api) -> None:
    job_id = api.new_job()
    api.move(job_id, JobStatus.STARTING, JobStatus.RUNNING)
    with api.store.write() as conn:
        begin_attempt(conn, job_id, now=100.0, first_step=0)
        end_attempt(conn, job_id, 1, "failed", now=200.0, last_step=7, error={"code": "out_of_memory", "message": "m"})
        begin_attempt(conn, job_id, now=300.0, first_step=7, micro_batch_divisor=2)
    first, second = api.client.get(f"/v2.1/jobs/{job_id}/attempts").json()["data"]
    assert (first["status"], first["last_step"], first["started_at"]) == ("failed", 7, "1970-01-01T00:01:40.000Z")
    assert (first["error"]["class"], first["error"]["retryable"]) == ("memory", False)
    assert (second["status"], second["micro_batch_divisor"], second["error"]) == ("running", 2, None)
    assert api.client.get(f"/v2.1/jobs/{job_id}").json()["attempts"] == 2


def test_a_job_object_is_json_whatever_is_in_it(api: Api) -> None:
    """NaN and infinity have no place in JSON."""
    job_id = api.new_job()
    progress = {"step": 3, "fraction": float("nan"), "metrics": {"train/loss": float("inf")}}
    api.move(job_id, progress=progress, wait={"message": "needs 1 GPU; the cluster has 0"})
    job = api.client.get(f"/v2.1/jobs/{job_id}").json()
    assert (job["progress"]["fraction"], job["progress"]["metrics"]) == (None, {"train/loss": None})
    assert job["progress"]["eta_s"] is None
    assert job["wait"] == {"message": "needs 1 GPU; the cluster has 0", "would_start_with": None}


def test_only_a_queued_job_waits(api: Api) -> None:
    job_id = api.submit().json()["id"]
    with api.store.write() as conn:
        update_job(conn, job_id, wait={"message": "needs 1 GPU", "would_start_with": None})
    assert api.client.get(f"/v2.1/jobs/{job_id}").json()["wait"]["message"] == "needs 1 GPU"
    api.client.post(f"/v2.1/jobs/{job_id}/cancel")
    with api.store.write() as conn:
        update_job(conn, job_id, wait={"message": "needs 1 GPU", "would_start_with": None})
    assert api.client.get(f"/v2.1/jobs/{job_id}").json()["wait"] is None
