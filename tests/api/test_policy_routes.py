"""Policies over HTTP: versions, differences, replays; and where a job's fields are from."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from astraml_ray.access.effective import InForce, apply_policies
from astraml_ray.access.issuing import issue_personal_token
from astraml_ray.access.permissions import Role
from astraml_ray.access.policies import parse_policy
from astraml_ray.access.tokens import Principal
from astraml_ray.spec.loading import parse_document
from astraml_ray.store.audit import Actor
from astraml_ray.store.policies import add_policy
from astraml_ray.store.projects import create_project, set_member
from tests.api.conftest import REFERENCE, Api

PROJECT, ORG = "/v2.1/projects/p-demo/policy", "/v2.1/organisation/policy"
CAP = {"resources.gpus": {"max": 4, "on_violation": "clamp"}}


@pytest.fixture
def api(api: Api) -> Api:
    with api.store.write() as conn:
        create_project(conn, "p-demo", actor=Actor("test"), now=1.0)
    return api


def put(api: Api, path: str, rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    answer = api.client.put(path, json={"document": {"rules": rules}, **more})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def submitted(api: Api, **changes: Any) -> str:
    answer = api.submit({**REFERENCE, **changes})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


@pytest.mark.parametrize("path", [PROJECT, ORG])
def test_versions_are_written_listed_and_brought_back(api: Api, path: str) -> None:
    none = api.client.get(path).json()
    assert (none["version"], none["document"], none["created_by"]) == (0, {"rules": {}}, None)
    first = put(api, path, CAP, note="nights", expected=0)
    assert (first["version"], first["note"], first["created_by"]) == (1, "nights", "root")
    assert first["project_id"] == (None if path == ORG else "p-demo")
    text = "document: {rules: {seed: {force: 7}}}\nexpected: 1\n"
    second = api.client.put(path, content=text, headers={"Content-Type": "application/yaml"}).json()
    assert api.client.get(path).json() == second
    assert api.client.get(f"{path}/versions/1").json() == first
    restored = api.client.post(f"{path}/restore", json={"version": 1, "note": "not that", "expected": 2}).json()
    assert (restored["version"], restored["restored_from"], restored["note"]) == (3, 1, "not that")
    assert restored["document"] == first["document"]
    page = api.client.get(f"{path}/versions", params={"limit": 2}).json()
    rest = api.client.get(f"{path}/versions", params={"cursor": page["next_cursor"]}).json()
    assert [one["version"] for one in (*page["data"], *rest["data"])] == [3, 2, 1]
    assert rest["next_cursor"] is None
    assert "document" not in page["data"][0]
    difference = api.client.get(f"{path}/diff", params={"from": 1, "to": 2}).json()
    found = [(one["path"], one["verb"], one["kind"], one["before"], one["after"]) for one in difference["changes"]]
    assert found == [
        ("resources.gpus", "max", "removed", 4, None),
        ("resources.gpus", "on_violation", "removed", "clamp", None),
        ("seed", "force", "added", None, 7),
    ]
    newest = api.client.get(f"{path}/diff").json()
    assert (newest["from"], newest["to"], len(newest["changes"])) == (2, 3, 3)
    assert api.client.get(f"{path}/diff", params={"from": 1}).json()["changes"] == []
    assert len(api.client.get(f"{path}/diff", params={"from": 0, "to": 2}).json()["changes"]) == 1


def test_what_cannot_be_put_in_force_is_told_field_by_field(api: Api) -> None:
    wrong = {"resources.gpu": {"max": 1}, "hyperparams.lr": {"max": "high"}, "seed": {"defualt": 1}}
    answer = api.client.put(PROJECT, json={"document": {"rules": wrong}})
    assert (answer.status_code, answer.json()["code"]) == (422, "policy_invalid")
    assert [one["param"] for one in answer.json()["problems"]] == ["/document/rules/seed/defualt"]
    del wrong["seed"]
    problems = api.client.put(PROJECT, json={"document": {"rules": wrong}}).json()["problems"]
    told = {one["param"]: one["message"] for one in problems}
    assert set(told) == {"/document/rules/resources.gpu", "/document/rules/hyperparams.lr/max"}
    assert "resources.gpus" in told["/document/rules/resources.gpu"]
    secret = {"dataset.path": {"force": "s3://AKIA" + "A" * 16 + "@bucket/d"}}
    for method, path in (("PUT", PROJECT), ("POST", f"{PROJECT}/replay")):
        refused = api.client.request(method, path, json={"document": {"rules": secret}})
        assert (refused.status_code, refused.json()["code"]) == (422, "inline_secret")
        assert "AKIA" not in refused.text
    for body in ({}, {"document": []}, {"document": {}, "note": 7}, {"document": {}, "expected": -1}, {"x": 1}):
        assert api.client.put(PROJECT, json=body).json()["code"] == "invalid_parameter"
    assert api.client.get(PROJECT).json()["version"] == 0


def test_a_change_from_an_older_version_is_refused(api: Api) -> None:
    put(api, PROJECT, CAP)
    for method, path, body in (
        ("PUT", PROJECT, {"document": {"rules": {}}, "expected": 0}),
        ("POST", f"{PROJECT}/restore", {"version": 1, "expected": 7}),
    ):
        answer = api.client.request(method, path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (409, "policy_changed")
    assert api.client.get(PROJECT).json()["version"] == 1


def test_versions_that_are_not_there(api: Api) -> None:
    put(api, PROJECT, CAP)
    assert api.client.post(f"{PROJECT}/restore", json={"version": 2}).json()["code"] == "not_found"
    for path in ("versions/2", "versions/2147483647", "diff?to=9", "diff?from=9"):
        assert api.client.get(f"{PROJECT}/{path}").status_code == 404, path
    for path in ("versions/x", "versions/-1", "versions/99999999999999999999", "diff?from=a", "versions?cursor=%21"):
        assert api.client.get(f"{PROJECT}/{path}").status_code == 422, path
    for project in ("nope", "*", "%2A", "a" * 500):
        answer = api.client.get(f"/v2.1/projects/{project}/policy")
        assert (answer.status_code, answer.json()["code"]) == (404, "project_not_found"), project


def test_a_policy_of_a_newer_release_is_shown_and_not_guessed_at(api: Api) -> None:
    with api.store.write() as conn:
        add_policy(conn, "p-demo", {"rules": {"warp.speed": {"max": 9}}}, actor=Actor("test"), now=1.0)
    assert api.client.get(PROJECT).json()["document"] == {"rules": {"warp.speed": {"max": 9}}}
    assert api.client.get(f"{PROJECT}/diff").status_code == 503
    assert api.submit().json()["code"] == "policy_unreadable"
    submitted(api, project_id="other")
    answer = api.client.post(f"{ORG}/replay", json={"document": {"rules": CAP}})
    assert (answer.status_code, answer.json()["total"]) == (200, 1)


def test_the_organisation_s_policy_is_read_by_whoever_is_in_a_project(api: Api) -> None:
    root = Principal("t" * 12, "root", Role.ORG_ADMIN)
    with api.store.write() as conn:
        set_member(conn, "p-demo", "ana", "viewer", actor=Actor("test"), now=1.0)
        tokens = {name: issue_personal_token(conn, root, name, now=time.time())[0] for name in ("ana", "nobody")}
    for name, status in (("ana", 200), ("nobody", 403)):
        headers = {"Authorization": f"Bearer {tokens[name]}"}
        assert api.client.get(ORG, headers=headers).status_code == status
        assert api.client.put(ORG, json={"document": {}}, headers=headers).status_code == 403
        assert api.client.post(f"{ORG}/replay", json={"document": {}}, headers=headers).status_code == 403


def test_jobs_come_under_the_policies_in_force(api: Api) -> None:
    put(api, ORG, {"limits.max_duration": {"force": "12h"}, "labels.team": {"require": True}})
    put(api, PROJECT, {**CAP, "hyperparams.epochs": {"default": 3}, "seed": {"force": 7}})
    refused = api.submit()
    assert (refused.status_code, refused.json()["code"]) == (422, "policy_violation")
    assert refused.json()["problems"][0]["param"] == "/labels/team"
    asked = {**REFERENCE, "hyperparams": {"lr": 1e-5}, "resources": {"gpus": 8}, "labels": {"team": "x"}}
    job = api.submit(asked).json()
    assert (job["spec"]["resources"]["gpus"], job["spec"]["hyperparams"]["epochs"], job["spec"]["seed"]) == (4, 3, 7)
    # The same is told of a dry run.
    told = api.client.post("/v2.1/jobs:validate", json=asked).json()["policies"]
    found = api.client.get(f"/v2.1/jobs/{job['id']}/provenance").json()
    assert found["explained"] == told
    assert set(told) == {
        "resources.gpus 4, capped from 8 by project policy v1",
        "hyperparams.epochs 3, default of project policy v1",
        "seed 7, set by project policy v1",
        "limits.max_duration 12h, set by organisation policy v1",
    }
    put(api, PROJECT, {})
    assert api.client.get(f"/v2.1/jobs/{job['id']}/provenance").json() == found, "jobs keep theirs"


def test_provenance_names_the_source_of_every_field(api: Api) -> None:
    put(api, PROJECT, CAP)
    sent = {**REFERENCE, "resources": {"gpus": 8}, "labels": {"a.b/c": "d"}}
    job_id = submitted(api, **{key: sent[key] for key in ("resources", "labels")})
    found = api.client.get(f"/v2.1/jobs/{job_id}/provenance").json()
    assert (found["submitted_by"], found["api_version"], found["migration"]) == ("root", "v2.1", [])
    assert found["request"] == sent
    fields = found["fields"]
    assert fields["hyperparams.lr"] == {"value": 3e-5, "source": "request", "policy_version": None}
    assert fields["labels.a.b/c"]["source"] == "request"
    assert fields["checkpoint.keep"] == {"value": 2, "source": "built-in", "policy_version": None}
    assert fields["resources.gpus"] == {
        "value": 4,
        "source": "project limit",
        "policy_version": 1,
        "was": 8,
        "was_source": "request",
    }


def test_provenance_of_a_job_that_no_request_made(api: Api) -> None:
    job_id = api.new_job()
    found = api.client.get(f"/v2.1/jobs/{job_id}/provenance").json()
    assert (found["submitted_by"], found["request"], found["api_version"], found["explained"]) == (None, None, None, [])
    assert found["fields"]["hyperparams.lr"] == {"value": 3e-5, "source": None, "policy_version": None}
    assert api.client.get("/v2.1/jobs/job-nope/provenance").json()["code"] == "job_not_found"


def test_a_replay_tells_what_would_have_been_changed_or_rejected(api: Api) -> None:
    put(api, PROJECT, CAP)
    big, small = submitted(api, resources={"gpus": 8}), submitted(api, labels={"team": "x"})
    made_below, other = api.new_job(resources={"gpus": 6}), submitted(api, project_id="other")

    def replayed(path: str, rules: dict[str, Any], **more: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        answer = api.client.post(f"{path}/replay", json={"document": {"rules": rules}, **more})
        assert answer.status_code == 200, answer.text
        return answer.json(), {job["job_id"]: job for job in answer.json()["jobs"]}

    found, jobs = replayed(PROJECT, {"resources.gpus": {"max": 5, "on_violation": "clamp"}})
    assert found["summary"] == "of 3 jobs, 2 would have changed and 0 been rejected"
    # What was asked for counts, not what the policy of then made of it.
    assert jobs[big]["changes"] == [{"path": "resources.gpus", "before": 4, "after": 5}]
    assert jobs[made_below]["changes"] == [{"path": "resources.gpus", "before": 6, "after": 5}]
    found, jobs = replayed(PROJECT, {**CAP, "labels.team": {"require": True, "reason": "whose is it?"}})
    assert (found["total"], found["changed"], found["rejected"]) == (3, 0, 2)
    assert [one["param"] for one in jobs[big]["problems"]] == ["/labels/team"]
    assert jobs[big]["outcome"] == "rejected"
    assert small not in jobs
    assert replayed(PROJECT, {"seed": {"force": 7}}, last=2)[0]["total"] == 2
    # The organisation's is tried on all projects, each under its own policy.
    found, jobs = replayed(ORG, {"seed": {"force": 7}})
    assert (found["total"], set(jobs)) == (4, {big, small, made_below, other})
    assert {one["path"] for one in jobs[big]["changes"]} == {"seed"}
    assert api.client.get(PROJECT).json()["version"] == 1
    assert api.client.get(ORG).json()["version"] == 0


def test_a_long_replay_counts_all_and_lists_the_newest(api: Api) -> None:
    ids = [api.new_job() for _ in range(130)]
    body = {"document": {"rules": {"seed": {"force": 7}}}, "last": 120}
    found = api.client.post(f"{PROJECT}/replay", json=body).json()
    assert (found["total"], found["changed"], found["truncated"], len(found["jobs"])) == (120, 120, True, 100)
    assert [job["job_id"] for job in found["jobs"]] == sorted(ids, reverse=True)[:100]
    taken = [api.services.validations.acquire(blocking=False) for _ in range(api.services.limits.max_validations)]
    busy = api.client.post(f"{PROJECT}/replay", json=body)
    assert (busy.status_code, busy.json()["code"]) == (503, "overloaded")
    for _ in taken:
        api.services.validations.release()
    assert api.client.post(f"{PROJECT}/replay", json=body).status_code == 200
    for last in (0, 1001, "1", 1.5, True):
        assert api.client.post(f"{PROJECT}/replay", json={**body, "last": last}).json()["code"] == "invalid_parameter"


def test_the_example_of_the_documentation_is_a_policy() -> None:
    text = (Path(__file__).parents[2] / "astraml_ray" / "api" / "README.md").read_text()
    section = text.split("\n## Policies\n")[1].split("\n## ")[0]
    (example,) = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
    policy = parse_policy(parse_document(example, source="README.md"))
    verbs = {verb for rule in policy.rules.values() for verb in rule.model_fields_set}
    assert verbs == {"default", "force", "min", "max", "allow", "deny", "require", "on_violation", "reason"}
    asked = {**REFERENCE, "resources": {"gpus": 8}, "labels": {"team": "x"}}
    outcome = apply_policies(asked, project=InForce("project", 7, policy))
    outcome.raise_for_violations()
    assert outcome.document["resources"]["gpus"] == 4
