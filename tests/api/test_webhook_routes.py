"""Webhooks over HTTP, over both databases: made, seen without their secrets, changed, and their messages."""

from __future__ import annotations

import base64
import hmac
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from astraml_ray.access.webhooks import new_signing_key
from astraml_ray.control.deliveries import headers_of
from astraml_ray.control.trials import store_trials
from astraml_ray.spec.loading import parse_document
from astraml_ray.spec.schedule import DATASET_UNCHANGED
from astraml_ray.spec.states import JobStatus
from astraml_ray.spec.webhook import EVENTS, NewWebhook
from astraml_ray.store.jobs import change_status, get_job
from tests.api.conftest import REFERENCE, Api
from tests.sweeps import told_trials

HOOKS = "/v2.1/projects/p-demo/webhooks"
README = Path(__file__).parents[2] / "astraml_ray/api/README.md"
URL = "https://93.184.216.34/services/T0/sEcReT"


@pytest.fixture
def hooks(either_api: Api) -> Api:
    """With a project."""
    assert either_api.client.post("/v2.1/projects", json={"id": "p-demo"}).status_code == 201
    return either_api


def made(api: Api, name: str = "ci", **fields: Any) -> dict[str, Any]:
    answer = api.client.post(HOOKS, json={"name": name, "url": URL, **fields})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def events_of(api: Api, name: str = "ci") -> list[str]:
    """The oldest first."""
    found = api.client.get(f"{HOOKS}/{name}/deliveries?limit=200").json()["data"]
    return [one["event"] for one in found][::-1]


def test_its_key_is_shown_once_and_its_address_never(hooks: Api) -> None:
    new = made(hooks, conditions=[{"when": "no_improvement", "metric": "validation/f1", "for": "90m"}])
    assert new["signing_key"].startswith("whsec_")
    assert (new["address"], new["warnings"], new["enabled"]) == ("https://93.184.216.34/…", [], True)
    assert new["conditions"] == [{"when": "no_improvement", "metric": "validation/f1", "for": "90m", "mode": "auto"}]
    shown = hooks.client.get(f"{HOOKS}/ci").json()
    assert shown == {key: value for key, value in new.items() if key not in ("signing_key", "warnings")}
    assert hooks.client.get(HOOKS).json() == {"data": [shown]}
    tested = hooks.client.post(f"{HOOKS}/ci/test").json()
    assert json.loads(tested["body"])["type"] == "webhook.test"
    hooks.client.patch(f"{HOOKS}/ci", json={"url": f"{URL}/2"})
    hooks.client.post(f"{HOOKS}/ci/rotate")
    paths = (HOOKS, f"{HOOKS}/ci/deliveries", tested["links"]["self"], "/v2.1/audit?action=webhook")
    answers = [hooks.client.get(path).text for path in paths]
    assert "webhook.rotated" in answers[-1]
    assert not any("sEcReT" in one or new["signing_key"] in one for one in answers)
    again = hooks.client.post(HOOKS, json={"name": "ci", "url": URL})
    assert (again.status_code, again.json()["code"]) == (409, "already_exists")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"events": ["job.exploded"]}, "/events/0"),
        ({"events": ["metric.*"]}, "/events/0"),
        ({"events": []}, ""),
        ({"conditions": [{"when": "no_improvement"}]}, "/conditions/0"),
        ({"conditions": [{"when": "no_improvement", "metric": "m", "for": "5m"}]}, "/conditions/0/for"),
        ({"conditions": [{"when": "deadline_will_be_missed", "metric": "m"}]}, "/conditions/0"),
        ({"conditions": [{"when": "not_finite", "for_": "2h"}]}, "/conditions/0/for_"),
        ({"format": "xml"}, "/format"),
        ({"url": "ftp://x/y"}, "/url"),
        ({"url": "https://h.example/x#y"}, "/url"),
        ({"url": "https://h.example:99999/"}, "/url"),
        ({"url": ""}, "/url"),
        ({"name": "a b"}, "/name"),
        ({"secret": "mine"}, "/secret"),
        ({"labels": {"bad key": "x"}}, "/labels/bad key/[key]"),
    ],
)
def test_what_is_wrong_with_one_is_told_by_its_place(api: Api, fields: dict[str, Any], param: str) -> None:
    api.client.post("/v2.1/projects", json={"id": "p-demo"})
    answer = api.client.post(HOOKS, json={"name": "ci", "url": URL, **fields})
    assert (answer.status_code, answer.json()["code"], answer.json()["param"]) == (422, "invalid_parameter", param)
    assert "sEcReT" not in answer.text


def test_the_service_s_own_networks_are_refused(api: Api) -> None:
    api.client.post("/v2.1/projects", json={"id": "p-demo"})
    made(api)
    for url in ("http://127.0.0.1:8700/v2.1/jobs", "https://169.254.169.254/", "https://[::1]/"):
        refused = (
            api.client.post(HOOKS, json={"name": "x", "url": url}),
            api.client.patch(f"{HOOKS}/ci", json={"url": url}),
        )
        assert [(one.status_code, one.json()["code"], one.json()["param"]) for one in refused] == [
            (422, "target_not_allowed", "/url")
        ] * 2


def test_jobs_and_schedules_are_told_of(hooks: Api) -> None:
    made(hooks, events=["*"])
    job_id = hooks.submit().json()["id"]
    hooks.client.post(f"/v2.1/jobs/{job_id}/cancel")
    spec = {**REFERENCE, "schedule": {"cron": "0 2 * * *"}}
    schedule = hooks.client.post("/v2.1/schedules", json=spec).json()["links"]["self"]
    for verb in ("pause", "pause", "resume", "run-now"):
        assert hooks.client.post(f"{schedule}/{verb}").status_code in (200, 201)
    hooks.client.delete(schedule)
    told = "job.created job.cancelled schedule.created schedule.paused schedule.resumed job.created schedule.started"
    # Those of one transaction are of one time.
    assert sorted(events_of(hooks)) == sorted([*told.split(), "schedule.deleted"])


def test_it_is_changed_field_by_field(hooks: Api) -> None:
    made(hooks, events=["job.failed"], labels={"team": "a"})
    changed = hooks.client.patch(f"{HOOKS}/ci", json={"events": ["job.*"], "url": "https://93.184.216.35/other"})
    assert changed.status_code == 200, changed.text
    shown = changed.json()
    assert (shown["events"], shown["labels"], shown["address"]) == (["job.*"], {"team": "a"}, "https://93.184.216.35/…")
    nothing = hooks.client.patch(f"{HOOKS}/ci", json={"events": []})
    assert (nothing.status_code, nothing.json()["code"]) == (422, "invalid_parameter")
    renamed = hooks.client.patch(f"{HOOKS}/ci", json={"name": "x"})
    assert renamed.json()["param"] == "/name"
    off = hooks.client.patch(f"{HOOKS}/ci", json={"enabled": False}).json()
    assert (off["enabled"], off["disabled_reason"]) == (False, "it was switched off")
    hooks.submit({**REFERENCE, "labels": {"team": "a"}})
    assert events_of(hooks) == []
    on = hooks.client.patch(f"{HOOKS}/ci", json={"enabled": True}).json()
    assert (on["enabled"], on["disabled_at"]) == (True, None)
    hooks.submit({**REFERENCE, "labels": {"team": "a"}})
    assert events_of(hooks) == ["job.created"]
    audit = hooks.client.get("/v2.1/audit?action=webhook").json()["data"]
    assert [one["action"] for one in audit] == ["webhook.changed"] * 3 + ["webhook.created"]
    assert audit[2]["before"]["document"]["events"] == ["job.failed"]


def test_of_a_change_the_document_foretells_no_defaults(api: Api) -> None:
    """What is left out stays as it is."""
    schemas = api.client.get("/openapi.json").json()["components"]["schemas"]
    fields = schemas["WebhookChangeInput"]["properties"]
    assert set(fields) == {"events", "conditions", "format", "labels", "enabled", "url"}
    assert not any("default" in field for field in fields.values())
    assert all(field["description"] for field in fields.values())
    assert schemas["NewWebhookInput"]["properties"]["format"]["default"] == "standard"


def test_messages_are_listed_by_pages_and_sent_again(hooks: Api) -> None:
    made(hooks, events=["job.*"])
    made(hooks, "other")
    for _ in range(5):
        hooks.submit()
    first = hooks.client.get(f"{HOOKS}/ci/deliveries?limit=3").json()
    rest = hooks.client.get(f"{HOOKS}/ci/deliveries?limit=3&cursor={first['next_cursor']}").json()
    ids = [one["id"] for one in first["data"] + rest["data"]]
    assert (len(set(ids)), ids, rest["next_cursor"]) == (5, sorted(ids, reverse=True), None)
    assert hooks.client.get(f"{HOOKS}/ci/deliveries?status=delivered").json()["data"] == []
    one = hooks.client.get(f"{HOOKS}/ci/deliveries/{ids[0]}").json()
    assert (one["status"], one["log"], '"type":"job.created"' in one["body"]) == ("pending", [], True)
    with hooks.store.write() as conn:
        conn.execute(text("UPDATE deliveries SET status = 'failed', next_at = NULL, finished_at = 1, tries = 12"))
    nudges = len(hooks.nudges)
    replayed = hooks.client.post(f"{HOOKS}/ci/deliveries/{ids[0]}/replay")
    assert (replayed.status_code, replayed.json()["status"], replayed.json()["id"]) == (202, "pending", ids[0])
    assert len(hooks.nudges) == nudges + 1
    # A message is its own webhook's.
    for path in (f"{HOOKS}/other/deliveries/{ids[0]}", f"{HOOKS}/nope/deliveries/{ids[0]}"):
        assert hooks.client.get(path).json()["code"] == "not_found"
        assert hooks.client.post(f"{path}/replay").status_code == 404


def test_rotation_and_deletion(hooks: Api) -> None:
    first = made(hooks, events=["job.*"])["signing_key"]
    rotated = hooks.client.post(f"{HOOKS}/ci/rotate").json()
    assert rotated["signing_key"] != first
    assert [(key["version"], key["expires_at"] is None) for key in rotated["keys"]] == [(2, True), (1, False)]
    leaked = hooks.client.post(f"{HOOKS}/ci/rotate", json={"overlap": "0s"}).json()
    assert [key["version"] for key in leaked["keys"]] == [3]
    for overlap in ("8d", "soon", 5):
        refused = hooks.client.post(f"{HOOKS}/ci/rotate", json={"overlap": overlap})
        assert (refused.status_code, refused.json()["param"]) == (422, "/overlap")
    hooks.submit()
    assert events_of(hooks) == ["job.created"]
    assert hooks.client.delete(f"{HOOKS}/ci").json() == {"project_id": "p-demo", "name": "ci"}
    assert hooks.client.delete(f"{HOOKS}/ci").status_code == 404
    # Another of that name is another one.
    assert [key["version"] for key in made(hooks, events=["job.*"])["keys"]] == [1]
    assert events_of(hooks) == []


def test_without_the_master_key_it_can_still_be_stopped(hooks: Api) -> None:
    made(hooks)
    assert hooks.services.keys is not None
    hooks.services.keys.unlink()
    off = hooks.client.patch(f"{HOOKS}/ci", json={"enabled": False, "events": ["job.failed"]})
    assert (off.status_code, off.json()["enabled"], off.json()["events"]) == (200, False, ["job.failed"]), off.text
    moved = hooks.client.patch(f"{HOOKS}/ci", json={"url": URL})
    assert (moved.status_code, moved.json()["code"]) == (503, "secret_key")
    assert hooks.client.delete(f"{HOOKS}/ci").status_code == 200
    assert hooks.client.get(HOOKS).json() == {"data": []}


def test_a_project_has_so_many(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("astraml_ray.api.notifying._MOST", 2)
    api.client.post("/v2.1/projects", json={"id": "p-demo"})
    made(api), made(api, "second")
    refused = api.client.post(HOOKS, json={"name": "third", "url": URL})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_parameter")


def test_a_rotation_of_the_master_key_meanwhile_loses_nothing(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """It drops the key between reading it and writing what it has encrypted, and did not see that."""
    from astraml_ray.access.secrets import KeyRing, add_master_key, load_keys, write_keys
    from astraml_ray.access.webhooks import open_webhooks
    from astraml_ray.control import secrets
    from astraml_ray.store.webhooks import find_webhook

    api.client.post("/v2.1/projects", json={"id": "p-demo"})
    path = api.services.keys
    assert path is not None
    real, turns = secrets.keys_for, iter(range(9))

    def rotating(conn: Any, key_file: Path | None) -> KeyRing:
        ring = real(conn, key_file)
        if next(turns) == 0:
            write_keys(path, KeyRing(add_master_key(path).keys[:1]))
        return ring

    monkeypatch.setattr(secrets, "keys_for", rotating)
    key = made(api)["signing_key"]
    with api.store.read() as conn:
        webhook = find_webhook(conn, "p-demo", "ci")
        assert webhook is not None
        opened = open_webhooks(conn, load_keys(None, path), [webhook], now=api.services.clock())
    assert (opened[webhook.id].url, opened[webhook.id].keys) == (URL, (key,))
    assert URL not in repr(opened)


def end_unchanged(api: Api, job_id: str) -> None:
    """Ends a job that had nothing new to train on."""
    api.move(job_id, JobStatus.STARTING)
    with api.store.write() as conn:
        change_status(conn, job_id, JobStatus.SUCCEEDED, reason=DATASET_UNCHANGED, message=None, now=time.time())


def test_every_event_of_jobs_can_be_told(api: Api) -> None:
    """The names here are those that the store writes."""
    api.client.post("/v2.1/projects", json={"id": "p-demo"})
    made(api, events=["job.*"])
    one, other, third = (api.new_job() for _ in range(3))
    api.move(one, JobStatus.STARTING, JobStatus.QUEUED, JobStatus.STARTING, JobStatus.RUNNING, JobStatus.SUCCEEDED)
    api.move(other, JobStatus.STARTING, JobStatus.RUNNING, JobStatus.FAILED)
    api.move(third, JobStatus.CANCELLED)
    end_unchanged(api, api.new_job())
    known = {event for event in EVENTS if event.startswith("job.")} - {"job.attempt_failed"}
    assert set(events_of(api)) == known


def test_every_event_of_sweeps_can_be_told(api: Api) -> None:
    """Their states, and what is stored of their trials."""
    api.client.post("/v2.1/projects", json={"id": "p-demo"})
    made(api, events=["sweep.*"])
    sweep = {"parameters": {"hyperparams.lr": {"log_uniform": [1e-5, 1e-2]}}, "trials": 3}
    one, other, third = (api.new_job(sweep=sweep) for _ in range(3))
    api.move(one, JobStatus.STARTING, JobStatus.QUEUED, JobStatus.STARTING, JobStatus.RUNNING)
    with api.store.write() as conn:
        store_trials(conn, get_job(conn, one), told_trials(3, failed=(1,)), now=time.time())
    api.move(one, JobStatus.SUCCEEDED)
    api.move(other, JobStatus.STARTING, JobStatus.RUNNING, JobStatus.FAILED)
    api.move(third, JobStatus.CANCELLED)
    end_unchanged(api, api.new_job(sweep=sweep))
    known = {event for event in EVENTS if event.startswith("sweep.")} - {"sweep.attempt_failed"}
    assert set(events_of(api)) == known
    listed = api.client.get(f"{HOOKS}/ci/deliveries?limit=200").json()["data"]
    ended = [d["id"] for d in listed if d["event"] == "sweep.trial_ended"]
    bodies = [json.loads(api.client.get(f"{HOOKS}/ci/deliveries/{one}").json()["body"]) for one in ended]
    told = {body["data"]["event"]["trial_id"]: body["data"]["event"]["status"] for body in bodies}
    assert told == {trial["trial_id"]: trial["status"] for trial in told_trials(3, failed=(1,))}


def test_the_readme_s_webhook_can_be_made_and_its_check_checks(api: Api) -> None:
    section = README.read_text().partition("## Webhooks")[2].partition("\n## ")[0]
    example = parse_document(section.partition("```yaml")[2].partition("```")[0], source="README")
    assert set(example) == set(NewWebhook.model_fields) - {"enabled"}
    NewWebhook.model_validate(example)
    rows = dict(re.findall(r"^\| `([a-z_.]+)` \| (.+) \|$", section, re.MULTILINE))
    assert rows == {**EVENTS, "webhook.test": "someone tests it"}
    given = {"base64": base64, "hmac": hmac, "time": time}
    exec(section.partition("```python")[2].partition("```")[0], given)
    key, body, now = new_signing_key(), "{}é".encode(), time.time()
    headers = headers_of("msg-1", body, [new_signing_key(), key], now=now)
    is_ours: Any = given["is_ours"]
    assert is_ours(headers, body, key)
    assert not is_ours(headers, body + b" ", key)
    assert not is_ours(headers, body, new_signing_key())
    assert not is_ours(headers_of("msg-1", body, [key], now=now - 301), body, key)
