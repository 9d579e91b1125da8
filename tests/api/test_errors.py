"""Every error is a problem object that says whose fault it is and what to do."""

from __future__ import annotations

import importlib
import pkgutil
import socket
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

import astraml_ray
from astraml_ray import errors
from astraml_ray.api.app import ApiLimits
from astraml_ray.api.catalogue import CATALOGUE
from astraml_ray.api.problems import problem_object
from astraml_ray.errors import AstraError, SpecError, StoreBusyError, StoreUnavailableError
from astraml_ray.store.engine import open_store
from tests.api.conftest import FAST, REFERENCE, Api, serving

MEMBERS = ("type", "title", "status", "detail", "code", "class", "stage", "retryable", "param", "hint", "request_id")


def all_errors() -> Iterator[type[AstraError]]:
    pending = [AstraError]
    while pending:
        kind = pending.pop()
        pending += kind.__subclasses__()
        if kind.__module__.startswith("astraml_ray"):
            yield kind


def test_every_error_has_a_catalogue_entry_of_its_own_status() -> None:
    for module in pkgutil.walk_packages(astraml_ray.__path__, "astraml_ray."):
        if not module.name.startswith(("astraml_ray.store.migrations", "astraml_ray.__main__")):
            importlib.import_module(module.name)
    kinds = list(all_errors())
    assert len(kinds) > 50
    assert not {kind.code for kind in kinds} - set(CATALOGUE)
    for kind in kinds:
        if hasattr(kind, "http_status"):
            assert CATALOGUE[kind.code].status == kind.http_status, kind


def test_an_unknown_code_is_told_what_is_like_it(api: Api) -> None:
    problem = check_problem(api.client.get("/v2.1/errors/out_of_memry"), 404, "error_code_not_found")
    assert "out_of_memory" in problem["hint"]


def test_the_catalogue_covers_how_jobs_end() -> None:
    reasons = {
        "data",
        "deadline_exceeded",
        "infrastructure",
        "internal",
        "numeric",
        "out_of_memory",
        "queue_timeout",
        "repeated_failure",
        "resources",
        "storage",
    }
    assert reasons <= set(CATALOGUE)
    for entry in CATALOGUE.values():
        assert entry.cause.endswith("."), entry.code
        assert entry.action.endswith("."), entry.code
        assert entry.status is None or 400 <= entry.status < 600


def test_the_catalogue_is_served(api: Api) -> None:
    listed = api.client.get("/v2.1/errors").json()["data"]
    assert [entry["code"] for entry in listed] == sorted(CATALOGUE)
    for entry in listed:
        assert api.client.get(entry["type"]).json() == entry
    unknown = api.client.get("/v2.1/errors/out_of_memry")
    assert (unknown.status_code, unknown.json()["hint"]) == (404, "did you mean out_of_memory?")


def check_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    problem: dict[str, Any] = answer.json()
    assert (answer.status_code, problem["code"], problem["status"]) == (status, code, status)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"] == problem["request_id"]
    assert all(member in problem for member in MEMBERS)
    assert problem["type"] == f"/v2.1/errors/{code}"
    assert problem["hint"]
    return problem


@pytest.mark.parametrize(
    "path", ["/", "/v2.1", "/v2.1/jobs/", "/v1/jobs/a", "/v2.1/jobs/a/b/c", "//", "/v2.1/jobs:cancel"]
)
def test_unknown_routes(api: Api, path: str) -> None:
    check_problem(api.client.get(path), 404, "route_not_found")


def test_wrong_methods_are_told_the_right_ones(api: Api) -> None:
    answer = api.client.delete("/v2.1/jobs")
    check_problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert api.client.get("/v2.1/jobs/a/cancel").headers["allow"] == "OPTIONS, POST"
    options = api.client.options("/v2.1/jobs/a")
    assert (options.status_code, options.headers["allow"], options.content) == (204, "GET, HEAD, OPTIONS", b"")
    check_problem(api.client.options("/nope"), 404, "route_not_found")


def test_head_is_get_without_the_body(api: Api) -> None:
    get, head = api.client.get("/v2.1/errors"), api.client.head("/v2.1/errors")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == get.headers["content-length"]
    assert api.client.head("/v2.1/jobs/none").status_code == 404
    job_id = api.new_job()
    followed = api.client.head(f"/v2.1/jobs/{job_id}/logs?follow=true")
    assert (followed.status_code, followed.content) == (200, b"")
    assert followed.headers["content-type"].startswith("text/event-stream")


@pytest.mark.parametrize(
    ("content_type", "extra"),
    [
        (None, {}),
        ("text/plain", {}),
        ("application/x-www-form-urlencoded", {}),
        ("application/json; charset=latin-1", {}),
        ("application/json", {"Content-Encoding": "gzip"}),
        ("multipart/form-data; boundary=x", {}),
        ("nonsense", {}),
    ],
)
def test_other_content_types_are_refused(api: Api, content_type: str | None, extra: dict[str, str]) -> None:
    headers = {**({"Content-Type": content_type} if content_type else {}), **extra}
    answer = api.client.post("/v2.1/jobs", content=b'{"a": 1}', headers=headers)
    assert check_problem(answer, 415, "unsupported_media_type")["param"] in ("Content-Type", "Content-Encoding")


def test_bodies_are_bounded_whatever_they_declare(make_api: Callable[..., Api]) -> None:
    api = make_api(limits=ApiLimits(max_body_bytes=10_000))
    with serving(api.app) as address, httpx.Client(base_url=address, headers=api.auth) as client:
        headers = {"Content-Type": "application/json"}
        check_problem(client.post("/v2.1/jobs", content=b" " * 10_001, headers=headers), 413, "body_too_large")

        def chunks() -> Iterator[bytes]:
            for _ in range(20):
                yield b" " * 1000

        check_problem(client.post("/v2.1/jobs", content=chunks(), headers=headers), 413, "body_too_large")
        padded = httpx.Response(200, json=REFERENCE).content.ljust(10_000)
        assert client.post("/v2.1/jobs", content=padded, headers=headers).status_code == 201


def test_a_body_that_never_comes_is_given_up(make_api: Callable[..., Api]) -> None:
    api = make_api(limits=ApiLimits(body_timeout_s=0.1, max_concurrent=1))
    with serving(api.app) as address, socket.create_connection(("127.0.0.1", urlsplit(address).port or 0)) as slow:
        names = {"Host": "x", "Content-Type": "application/json", "Content-Length": "100", **api.auth}
        head = "\r\n".join(["POST /v2.1/jobs HTTP/1.1", *(f"{name}: {names[name]}" for name in names), "", "{"])
        slow.sendall(head.encode())
        # A slow sender holds no place, though there is but one.
        assert httpx.get(f"{address}/v2.1/jobs", headers=api.auth).status_code == 200
        answer = b"".join(iter(lambda: slow.recv(10_000), b""))
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'"request_timeout"' in answer
    assert api.services.admission.requests == 0


def test_request_ids_are_taken_if_they_are_sane(api: Api) -> None:
    assert api.client.get("/healthz", headers={"X-Request-Id": "abc-1.2_3"}).headers["x-request-id"] == "abc-1.2_3"
    for wrong in ("", "a b", "x" * 200, "<script>", "é".encode()):
        made = api.client.get("/healthz", headers={"X-Request-Id": wrong}).headers["x-request-id"]
        assert made.startswith("req-")
    first, second = (api.client.get("/healthz").headers["x-request-id"] for _ in range(2))
    assert first != second


def test_behind_a_proxy_the_request_id_is_not_sent_twice(make_api: Callable[..., Api]) -> None:
    answer = make_api(sends_request_id=False).client.get("/nope", headers={"X-Request-Id": "from-proxy"})
    assert "x-request-id" not in answer.headers
    assert answer.json()["request_id"] == "from-proxy"


def test_security_headers_are_everywhere(api: Api) -> None:
    for path in ("/healthz", "/nope", "/openapi.json", "/v2.1/jobs?x=1"):
        headers = api.client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "json" in headers["content-type"]


def test_faults_of_the_service_tell_nothing(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    def fail(spec: dict[str, Any]) -> dict[str, Any]:
        raise ZeroDivisionError("the password is hunter2")

    api.validator.answer = fail
    answer = api.client.post("/v2.1/jobs:validate", json=REFERENCE, headers={"X-Request-Id": "find-me"})
    problem = check_problem(answer, 500, "internal")
    assert "hunter2" not in answer.text
    assert problem["class"] == "internal"
    assert "find-me" in caplog.text
    assert "hunter2" in caplog.text


def test_an_error_without_an_entry_is_a_fault_of_the_service(api: Api) -> None:
    class Unheard(AstraError):
        code = "unheard_of"

    def fail(spec: dict[str, Any]) -> dict[str, Any]:
        raise Unheard("secret")

    api.validator.answer = fail
    answer = api.client.post("/v2.1/jobs:validate", json=REFERENCE)
    check_problem(answer, 500, "internal")
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    ("error", "code"), [(StoreBusyError("locked"), "store_busy"), (StoreUnavailableError("full"), "store_unavailable")]
)
def test_a_failing_database_says_when_to_come_back(api: Api, error: AstraError, code: str) -> None:
    class Failing:
        def read(self) -> Any:
            raise error

        write = read

    api.services.store = Failing()  # type: ignore[assignment]
    for answer in (api.client.get("/v2.1/jobs"), api.submit()):
        assert check_problem(answer, 503, code)["retryable"] is True
        assert int(answer.headers["retry-after"]) >= 1


def test_a_database_that_is_not_there(make_api: Callable[..., Api]) -> None:
    api = make_api()
    api.services.store = open_store("sqlite:////nonexistent/astraml.db")
    check_problem(api.submit(), 503, "store_unavailable")
    ready = check_problem(api.client.get("/readyz"), 503, "not_ready")
    assert ready["problems"][0]["param"] == "store"
    assert api.client.get("/healthz").status_code == 200


def test_long_lists_of_problems_are_cut() -> None:
    error = SpecError([errors.Problem(f"/{number}", "x" * 5000) for number in range(500)])
    problem = problem_object(error, "r")
    assert len(problem["problems"]) == 101
    assert problem["problems"][-1]["message"] == "and 400 more"
    assert len(problem["detail"]) <= 2000


def test_the_defaults_bound_everything() -> None:
    assert FAST.max_body_bytes == 1_000_000
    assert (FAST.max_concurrent, FAST.max_streams) == (128, 256)
