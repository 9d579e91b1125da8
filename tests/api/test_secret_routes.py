"""Secrets over HTTP: stored, listed, used, deleted; and a value that was sent is told nowhere."""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from astraml_ray.access.grants import SecretGrant, open_grant
from astraml_ray.access.secrets import KeyRing, SecretRef, load_keys, write_keys
from astraml_ray.access.vault import release_secrets
from astraml_ray.api.startup import _keep_master_key
from astraml_ray.settings import load_settings
from astraml_ray.store.secrets import find_secret
from tests.api.conftest import REFERENCE, Api

VALUE = "wJalrXUtnFEMI/K7MDENG+bPxRfiCY"
JSON = {"Content-Type": "application/json"}
PLACE = "/v2.1/projects/p-demo/secrets"
WITH_SECRETS: dict[str, Any] = {
    **REFERENCE,
    "dataset": {"path": "s3://bucket/dataset", "credentials": {"secret": "s3-prod"}},
    "env": {"HF_TOKEN": {"secret": "hf"}},
}


@pytest.fixture
def job_id(api: Api) -> str:
    """A job, and with it the project."""
    return api.new_job()


def put(api: Api, name: str = "s3-prod", value: Any = VALUE, **more: Any) -> httpx.Response:
    return api.client.put(f"{PLACE}/{name}", json={"value": value, **more})


def use(api: Api, job_id: str, name: str, *, attempt: int = 1) -> str:
    ring = load_keys(None, api.services.keys or Path(), create=False)
    with api.store.write() as conn:
        secret = find_secret(conn, "p-demo", name)
        assert secret is not None
        grant = SecretGrant(job_id, attempt, "ana", (SecretRef("p-demo", name, secret.version),), time.time() + 60)
        return release_secrets(conn, ring, grant, now=time.time())[name]


def test_stored_listed_used_and_deleted(api: Api, job_id: str) -> None:
    assert api.client.get(PLACE).json() == {"data": []}
    first = put(api).raise_for_status().json()
    assert (first["name"], first["version"], first["size"], first["created_by"]) == ("s3-prod", 1, len(VALUE), "root")
    assert (first["last_used_at"], first["warnings"]) == (None, [])
    assert put(api).json()["version"] == 2
    assert "not masked" in put(api, "pin", "1234").json()["warnings"][0]
    assert use(api, job_id, "s3-prod") == VALUE
    use(api, job_id, "s3-prod", attempt=2)
    listed = api.client.get(PLACE).json()["data"]
    assert [(one["name"], one["version"], one["last_used_at"] is None) for one in listed] == [
        ("pin", 1, True),
        ("s3-prod", 2, False),
    ]
    page = api.client.get(f"{PLACE}/s3-prod/uses?limit=1").json()
    assert [(u["job_id"], u["attempt"], u["version"], u["subject"]) for u in page["data"]] == [(job_id, 2, 2, "ana")]
    rest = api.client.get(f"{PLACE}/s3-prod/uses", params={"cursor": page["next_cursor"]}).json()
    assert ([u["attempt"] for u in rest["data"]], rest["next_cursor"]) == ([1], None)
    assert api.client.delete(f"{PLACE}/s3-prod").json() == {"project_id": "p-demo", "name": "s3-prod"}
    assert api.client.delete(f"{PLACE}/s3-prod").json()["code"] == "not_found"
    assert len(api.client.get(f"{PLACE}/s3-prod/uses").json()["data"]) == 2


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        ({"json": {"value": "", "x": VALUE}}, 422, "invalid_parameter"),
        ({"json": {VALUE: VALUE}}, 422, "invalid_parameter"),
        ({"json": [VALUE]}, 422, "invalid_parameter"),
        ({"json": {"value": [VALUE]}}, 422, "invalid_parameter"),
        ({"json": {"value": 12345678901234567890123}}, 400, "invalid_json"),
        ({"json": {"value": VALUE + "\0"}}, 400, "invalid_json"),
        ({"json": {"value": VALUE * 3000}}, 422, "secret_invalid"),
        ({"json": {"value": "  "}}, 422, "secret_invalid"),
        ({"content": f'{{"value": "{VALUE}"', "headers": JSON}, 400, "invalid_json"),
        ({"content": f"value: [{VALUE}", "headers": {"Content-Type": "application/yaml"}}, 400, "invalid_json"),
        ({"content": f'{{"{VALUE}": 1, "{VALUE}": 2}}', "headers": JSON}, 400, "invalid_json"),
        ({"content": VALUE, "headers": {"Content-Type": "text/plain"}}, 415, "unsupported_media_type"),
        ({"content": b""}, 400, "invalid_json"),
    ],
)
def test_what_cannot_be_stored_is_not_repeated(
    api: Api, job_id: str, sent: dict[str, Any], status: int, code: str
) -> None:
    answer = api.client.put(f"{PLACE}/s3-prod", **sent)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert VALUE not in answer.text
    assert "1234567890" not in answer.text
    assert api.client.get(PLACE).json()["data"] == []


@pytest.mark.parametrize("name", ["-x", "a b", "x" * 129, "%00", "\u00e9"])
def test_names_of_secrets(api: Api, job_id: str, name: str) -> None:
    answer = put(api, name)
    assert (answer.status_code, answer.json()["code"]) == (422, "secret_invalid")
    assert api.client.get(f"{PLACE}/{name}/uses").json() == {"data": [], "next_cursor": None}


def test_a_value_is_in_no_answer_log_row_or_file(
    api: Api, job_id: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    answers = [put(api), put(api, "x y"), api.client.get(PLACE), api.client.get("/v2.1/audit"), api.submit(REFERENCE)]

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("a fault of the service")

    monkeypatch.setattr("astraml_ray.api.routes_secrets.put_secret", fail)
    answers.append(put(api))
    assert answers[-1].status_code == 500
    told = "".join(answer.text for answer in answers) + caplog.text
    files = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    for form in (VALUE, base64.b64encode(VALUE.encode()).decode(), "wJalrXUtnFEMI%2FK7MDENG%2BbPxRfiCY"):
        assert form not in told
        assert form.encode() not in files
    assert (tmp_path / "master.key").stat().st_mode & 0o777 == 0o600


def test_secrets_are_each_projects_own(api: Api, job_id: str) -> None:
    put(api)
    assert api.client.post("/v2.1/projects", json={"id": "other"}).status_code == 201
    assert api.client.get("/v2.1/projects/other/secrets").json() == {"data": []}
    assert api.client.delete("/v2.1/projects/other/secrets/s3-prod").status_code == 404
    assert api.client.get("/v2.1/projects/none/secrets").json()["code"] == "project_not_found"
    refused = api.submit({**WITH_SECRETS, "project_id": "other"})
    assert (refused.status_code, refused.json()["code"]) == (422, "secret_not_found")
    assert refused.json()["param"] in ("/dataset/credentials", "/env/HF_TOKEN")


def test_a_job_names_secrets_and_shows_names(api: Api, job_id: str) -> None:
    put(api)
    put(api, "hf")
    made = api.submit(WITH_SECRETS)
    assert made.status_code == 201, made.text
    assert made.json()["spec"]["env"] == {"HF_TOKEN": {"secret": "hf"}}
    again = api.client.post(f"/v2.1/jobs/{made.json()['id']}/clone", json={"set": {"seed": 3}})
    assert again.status_code == 201, again.text
    assert again.json()["spec"]["env"] == {"HF_TOKEN": {"secret": "hf"}}
    literal = api.submit({**REFERENCE, "env": {"HF_TOKEN": VALUE}})
    assert (literal.status_code, literal.json()["code"]) == (422, "inline_secret")
    assert VALUE not in literal.text
    reserved = api.submit({**REFERENCE, "env": {"LD_PRELOAD": "/x.so"}})
    assert (reserved.status_code, reserved.json()["problems"][0]["param"]) == (422, "/env/LD_PRELOAD")


def test_a_dry_run_gets_a_grant_for_the_credentials_alone(api: Api, job_id: str) -> None:
    missing = api.client.post("/v2.1/jobs:validate", json=WITH_SECRETS)
    assert (missing.status_code, missing.json()["code"]) == (422, "secret_not_found")
    put(api)
    missing = api.client.post("/v2.1/jobs:validate", json=WITH_SECRETS)
    assert (missing.status_code, missing.json()["param"]) == (422, "/env/HF_TOKEN")
    put(api, "hf")
    assert api.client.post("/v2.1/jobs:validate", json=WITH_SECRETS).status_code == 200
    assert api.client.post("/v2.1/jobs:validate", json=REFERENCE).status_code == 200
    grant, none = api.validator.grants
    assert none is None
    assert grant is not None
    opened = open_grant(load_keys(None, api.services.keys or Path(), create=False), grant, now=time.time())
    assert (opened.job_id, opened.subject, opened.secrets) == (None, "root", (SecretRef("p-demo", "s3-prod", 1),))
    assert VALUE not in str(api.validator.seen)


def test_a_lost_master_key_is_said_and_not_made_anew(api: Api, job_id: str) -> None:
    put(api)
    put(api, "hf")
    key = api.services.keys or Path()
    kept = key.read_text()
    key.unlink()
    for answer in (put(api, "other"), api.client.post("/v2.1/jobs:validate", json=WITH_SECRETS)):
        assert (answer.status_code, answer.json()["code"]) == (503, "secret_key"), answer.text
        assert "lost" in answer.json()["detail"]
        assert answer.headers["Retry-After"]
    assert not key.exists()
    key.write_text(kept)
    key.chmod(0o600)
    assert put(api, "other").status_code == 200


def test_a_key_that_a_rotation_dropped_meanwhile_is_noticed(
    api: Api, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The secret is put under a key that is there."""
    put(api, "first")
    path = api.services.keys or Path()
    fresh = KeyRing((b"n" * 32,))
    from astraml_ray.api import routes_secrets

    real: Callable[..., Any] = routes_secrets.put_secret

    def rotated_after(conn: Any, principal: Any, ring: KeyRing, *arguments: Any, **named: Any) -> Any:
        stored = real(conn, principal, ring, *arguments, **named)
        write_keys(path, fresh)
        return stored

    monkeypatch.setattr(routes_secrets, "put_secret", rotated_after)
    assert put(api).json()["version"] == 1
    with api.store.read() as conn:
        secret = find_secret(conn, "p-demo", "s3-prod")
    assert secret is not None
    assert secret.key_id == fresh.primary_id
    ref = SecretRef("p-demo", "s3-prod", 1)
    assert fresh.decrypt(secret.value or b"", secret.key_id, ref) == VALUE


def test_the_master_key_of_the_environment_goes_into_the_file(api: Api, job_id: str, tmp_path: Path) -> None:
    """Before those that something is still encrypted with, and in place of the others."""
    put(api)
    path = api.services.keys or Path()
    old = load_keys(None, path, create=False)
    write_keys(path, KeyRing((*old.keys, b"u" * 32)))
    variable = base64.b64encode(b"k" * 32).decode()
    settings = load_settings({"ASTRAML_HOME": str(path.parent), "ASTRAML_MASTER_KEY": variable})
    for _ in range(2):
        _keep_master_key(settings, api.store)
        assert load_keys(None, path, create=False).keys == (b"k" * 32, *old.keys)
    assert path.stat().st_mode & 0o777 == 0o600
    assert put(api, "later").status_code == 200
    assert use(api, job_id, "s3-prod") == VALUE
    assert use(api, job_id, "later") == VALUE
