"""What must not work, tried over the real app: forged addresses, floods, bombs and paths."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from astraml_ray.access.targets import AllowedTargets
from astraml_ray.store.jobs import count_by_status
from tests.api.conftest import REFERENCE, Api, serving


def count_jobs(api: Api) -> int:
    with api.store.read() as conn:
        return sum(count_by_status(conn).values())


LOCAL = [
    "http://127.0.0.1:9000",
    "http://localhost:8700/v2.1/jobs",
    "http://[::1]:9000",
    "http://[::ffff:127.0.0.1]/",
    "http://0/",
    "http://2130706433/",
    "http://0x7f.1/",
    "http://017700000001/",
    "http://169.254.169.254/latest/meta-data",
    "http://metadata.google.internal/",
    "http://10.0.0.8:9000",
    "http://user:pw@example.com@127.0.0.1/",
    "ftp://127.0.0.1/",
    "gopher://127.0.0.1:6379/_x",
]


@pytest.mark.parametrize("url", LOCAL)
@pytest.mark.parametrize("field", ["endpoint_url", "path", "model"])
def test_no_job_makes_the_service_call_its_own_network(api: Api, field: str, url: str) -> None:
    dataset = {"path": "s3://bucket/dataset", **({field: url} if field != "model" else {})}
    spec = {**REFERENCE, "dataset": dataset, **({"model": url} if field == "model" else {})}
    for path in ("/v2.1/jobs", "/v2.1/jobs:validate"):
        answer = api.client.post(path, json=spec)
        assert answer.status_code == 422, answer.text
        assert answer.json()["code"] in ("target_not_allowed", "inline_secret", "invalid_spec"), answer.text
    assert api.validator.seen == []
    assert count_jobs(api) == 0
    clone = api.client.post(f"/v2.1/jobs/{api.new_job()}/clone", json={"set": {"dataset.endpoint_url": url}})
    assert clone.status_code == 422


def test_the_operator_can_allow_an_address(make_api: Callable[..., Api]) -> None:
    spec = {**REFERENCE, "dataset": {"path": "s3://bucket/dataset", "endpoint_url": "http://127.0.0.1:9000"}}
    refused = make_api().client.post("/v2.1/jobs", json=spec)
    assert (refused.status_code, refused.json()["code"]) == (422, "target_not_allowed")
    assert refused.json()["param"] == "/dataset/endpoint_url"
    assert "ASTRAML_ALLOWED_TARGETS" in refused.json()["hint"]
    allowed = make_api(targets=AllowedTargets.parse("127.0.0.1:9000"))
    assert allowed.client.post("/v2.1/jobs", json=spec).status_code == 201
    other = {**spec, "dataset": {**spec["dataset"], "endpoint_url": "http://127.0.0.1:9001"}}
    assert allowed.client.post("/v2.1/jobs", json=other).status_code == 422


@pytest.mark.parametrize("with_token", [True, False])
def test_a_body_of_100_mb_is_not_taken_in(api: Api, with_token: bool) -> None:
    sent = 0

    def chunks() -> Any:
        nonlocal sent
        for _ in range(100):
            sent += 1_000_000
            yield b"x" * 1_000_000

    headers = {"Content-Type": "application/json", **(api.auth if with_token else {})}
    with serving(api.app) as address:
        try:
            answer = httpx.post(f"{address}/v2.1/jobs", content=chunks(), headers=headers, timeout=60)
            assert answer.status_code == (413 if with_token else 401)
        except httpx.TransportError:
            pass  # the server hung up on it
        assert sent < 100_000_000
        assert httpx.get(f"{address}/healthz").status_code == 200


def test_a_flood_of_headers_is_cut_off(api: Api) -> None:
    with serving(api.app) as address:
        with socket.create_connection(("127.0.0.1", urlsplit(address).port or 0), timeout=60) as flood:
            sent = b"GET /v2.1/jobs HTTP/1.1\r\nHost: x\r\n"
            try:
                for number in range(100_000):
                    flood.sendall(sent)
                    sent = f"X-{number}: {'x' * 1000}\r\n".encode()
                first = flood.recv(100)
            except ConnectionError:
                first = b""
        assert number < 50_000, "what is sent without being read fills the sockets' buffers, and no more"
        assert not first or first.split()[1].startswith(b"4")
        assert httpx.get(f"{address}/healthz").status_code == 200


@pytest.mark.parametrize("path", ["/v2.1/jobs", "/v2.1/jobs:validate"])
def test_bombs_are_refused_before_they_are_unpacked(api: Api, path: str) -> None:
    levels = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 12))
    bombs = {
        "application/yaml": [
            f"l0: &l0 [x]\n{levels}",
            "!!python/object/apply:os.system ['true']",
            "a: " + "[" * 90_000,
        ],
        "application/json": ["[" * 500_000, '{"a":' * 100_000, "[" + "1," * 400_000 + "1]"],
    }
    for kind, texts in bombs.items():
        for text in texts:
            answer = api.client.post(path, content=text, headers={"Content-Type": kind})
            assert 400 <= answer.status_code < 500, text[:40]
    assert count_jobs(api) == 0


@pytest.mark.parametrize("value", ["../other", "..", "a/../../b", "p\0x", "/etc", "%2e%2e", "a\nb", "-x", "x" * 200])
def test_names_are_no_paths(api: Api, value: str) -> None:
    for field in ("project_id", "name"):
        answer = api.client.post("/v2.1/jobs", json={**REFERENCE, field: value})
        # A name is for people, and no part of a path; where it may be anything, it is kept as it is.
        assert answer.status_code in (400, 422) or (field == "name" and answer.json()["name"] == value)
