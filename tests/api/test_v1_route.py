"""Requests of v1.x: the job that their v2.1 twin makes, once for both, and the headers that say it will end."""

from __future__ import annotations

from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest

from astraml_ray.spec.migration import migrate
from tests.api.conftest import REFERENCE, Api

OLD: dict[str, Any] = {
    "api_version": "v1.2",
    "project": "p-demo",
    "dataset": "s3://bucket/dataset",
    "model": "bert-base",
    "learning_rate": 3e-5,
    "num_epochs": 5,
    "batch_size": 32,
    "patience": 5,
    "num_gpus": 1,
}


def post(api: Api, path: str, spec: dict[str, Any], key: str | None = None) -> httpx.Response:
    return api.client.post(path, json=spec, headers={"Idempotency-Key": key} if key else {})


def test_an_old_request_makes_a_job_of_the_current_version(api: Api) -> None:
    answer = post(api, "/v1/jobs", OLD)
    assert answer.status_code == 201, answer.text
    job = answer.json()
    assert api.client.get(answer.headers["location"]).json() == job
    assert job["spec"] == post(api, "/v2.1/jobs", migrate(OLD).document).json()["spec"]
    assert (job["api_version"], job["project_id"], job["spec"]["hyperparams"]["lr"]) == ("v2.1", "p-demo", 3e-5)
    found = api.client.get(f"/v2.1/jobs/{job['id']}/provenance").json()
    assert (found["api_version"], found["request"]) == ("v1.2", OLD)
    moved = {move["to_path"]: (move["from_path"], move["kind"]) for move in found["migration"]}
    assert moved["hyperparams.lr"] == ("learning_rate", "moved")
    assert moved["hyperparams.lr_scheduler"] == (None, "default")
    nameless = post(api, "/v1/jobs", {key: value for key, value in OLD.items() if key != "api_version"}).json()
    assert api.client.get(f"/v2.1/jobs/{nameless['id']}/provenance").json()["api_version"] == "v1.x"


def test_the_headers_say_what_comes_in_its_place_and_when_it_ends(api: Api) -> None:
    headers = post(api, "/v1/jobs", OLD).headers
    assert headers["deprecation"].startswith("@")
    deprecated = datetime.fromtimestamp(int(headers["deprecation"][1:]), tz=timezone.utc)
    assert parsedate_to_datetime(headers["sunset"]) > deprecated
    links = {part.split(";")[1].strip(): part.split(">")[0].strip(" <") for part in headers["link"].split(",")}
    assert links['rel="successor-version"'] == "/v2.1/jobs"
    # How to migrate is told at the other one, which must lead somewhere.
    path, _, pointer = links['rel="deprecation"'].partition("#")
    place = api.client.get(path).json()
    for name in pointer.split("/")[1:]:
        place = place[name.replace("~1", "/")]
    assert place["deprecated"] is True
    assert "astraml migrate" in place["description"]
    assert "deprecation" not in post(api, "/v2.1/jobs", REFERENCE).headers


@pytest.mark.parametrize("first", ["/v1/jobs", "/v2.1/jobs"])
def test_an_old_request_and_its_twin_share_a_key(api: Api, first: str) -> None:
    bodies = {"/v1/jobs": OLD, "/v2.1/jobs": REFERENCE}
    other = next(path for path in bodies if path != first)
    made = post(api, first, bodies[first], "k")
    again = post(api, other, bodies[other], "k")
    assert (made.status_code, again.status_code) == (201, 201), again.text
    assert "idempotency-replayed" not in made.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json() == made.json()
    assert ("sunset" in again.headers) is (other == "/v1/jobs")
    changed = post(api, "/v1/jobs", {**OLD, "learning_rate": 1e-4}, "k")
    assert (changed.status_code, changed.json()["code"]) == (422, "idempotency_key_reused")
    assert changed.json()["differs"] == [{"param": "/hyperparams/lr", "before": 3e-5, "now": 1e-4}]
    with api.store.read() as conn:
        assert conn.exec_driver_sql("SELECT count(*) FROM jobs").scalar() == 1


def test_what_has_no_equal_is_refused_where_it_was_written(api: Api) -> None:
    answer = post(api, "/v1/jobs", {**OLD, "learning_rte": 1, "epochs": 7})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_spec")
    assert {one["param"] for one in answer.json()["problems"]} == {"/learning_rte", "/epochs"}
    for version in ("v3", 3, True, {"v": 1}, ["v1"]):
        answer = post(api, "/v1/jobs", {**OLD, "api_version": version})
        assert answer.json()["problems"][0]["param"] == "/api_version", version
        assert "v2.1" in answer.json()["hint"]
    for body in ([], "x", None):
        assert 400 <= api.client.post("/v1/jobs", json=body).status_code < 500


def test_secrets_are_refused_before_anything_is_moved(api: Api) -> None:
    answer = post(api, "/v1/jobs", {**OLD, "hf_token": "hf_" + "a" * 34, "nonsense": 1})
    assert (answer.status_code, answer.json()["code"]) == (422, "inline_secret")
    assert "aaaa" not in answer.text


def test_policies_hold_for_old_requests_too(api: Api) -> None:
    api.submit()
    rules = {"hyperparams.lr": {"max": 1e-5}, "seed": {"force": 7}}
    api.client.put("/v2.1/projects/p-demo/policy", json={"document": {"rules": rules}})
    answer = post(api, "/v1/jobs", OLD)
    assert (answer.status_code, answer.json()["problems"][0]["param"]) == (422, "/hyperparams/lr")
    assert post(api, "/v1/jobs", {**OLD, "learning_rate": 1e-6}).json()["spec"]["seed"] == 7


def test_nothing_else_of_v1_is_there(api: Api) -> None:
    for method, path in (("GET", "/v1/jobs/x"), ("POST", "/v1/jobs/x/cancel"), ("GET", "/v1"), ("GET", "/v1/")):
        answer = api.client.request(method, path)
        assert (answer.status_code, answer.json()["code"]) == (404, "route_not_found"), path
        assert "/v2.1" in answer.json()["hint"]
    assert api.client.get("/v1/jobs").headers["allow"] == "OPTIONS, POST"
    assert "/v1" not in api.client.get("/v1x").json()["hint"]


@pytest.mark.parametrize("path", ["/v2.1/jobs", "/v2.1/jobs:validate"])
@pytest.mark.parametrize("version", ["v1", "v1.2", 1, "v3", None])
def test_the_current_route_takes_the_current_version_only(api: Api, path: str, version: Any) -> None:
    answer = post(api, path, {**OLD, "api_version": version})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_spec")
    (problem,) = answer.json()["problems"]
    assert problem["param"] == "/api_version"
    assert "v2.1" in problem["message"]
    assert "astraml migrate" in problem["hint"]
    assert "POST /v1/jobs" in problem["hint"]


def test_the_headers_are_described(api: Api) -> None:
    operation = api.client.get("/openapi.json").json()["paths"]["/v1/jobs"]["post"]
    assert {"Deprecation", "Sunset", "Link"} <= set(operation["responses"]["201"]["headers"])
