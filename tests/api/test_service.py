"""Probes, metrics and limits of the service itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from prometheus_client.parser import text_string_to_metric_families

from astraml_ray.api.admission import Admission
from astraml_ray.api.app import ApiLimits
from astraml_ray.api.errors import OverloadedError
from astraml_ray.store.leases import acquire_lease, release_lease
from tests.api.conftest import REFERENCE, Api, serving, wait_until


def test_ready_while_a_controller_is_in_charge(make_api: Callable[..., Api]) -> None:
    now = [1000.0]
    api = make_api(clock=lambda: now[0])
    missing = api.client.get("/readyz")
    assert (missing.status_code, missing.json()["code"]) == (503, "not_ready")
    assert missing.json()["problems"][0]["param"] == "controller"
    lease = acquire_lease(api.store, "controller", "host-1", ttl_s=10, now=now[0])
    assert lease is not None
    assert api.client.get("/readyz").json() == {"status": "ready", "checks": {"store": "ok", "controller": "ok"}}
    controller = api.client.get("/v2.1/cluster").json()["controller"]
    assert controller == {"holder": "host-1", "token": 1, "expires_at": "1970-01-01T00:16:50.000Z", "alive": True}
    now[0] = 1015.0
    late = api.client.get("/readyz")
    assert late.status_code == 503
    assert "5 s ago" in late.json()["detail"]
    assert api.client.get("/v2.1/cluster").json()["controller"]["alive"] is False
    release_lease(api.store, lease)
    assert api.client.get("/v2.1/cluster").json()["controller"] is None


def test_prometheus_reads_the_metrics(api: Api) -> None:
    api.new_job()
    api.ended_job()
    answer = api.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = {family.name: family.samples for family in text_string_to_metric_families(answer.text)}
    jobs = {sample.labels["status"]: sample.value for sample in families["astraml_jobs"]}
    assert jobs == {"queued": 1, "starting": 0, "running": 0, "succeeded": 0, "failed": 1, "cancelled": 0}
    assert families["astraml_controller_up"][0].value == 0


def test_the_cluster_as_the_controller_sees_it(make_api: Callable[..., Api]) -> None:
    api = make_api(cluster=lambda: {"cpus": 4.0, "gpus": 0.0})
    api.new_job()
    answer = api.client.get("/v2.1/cluster").json()
    assert answer["cluster"] == {"cpus": 4.0, "gpus": 0.0}
    assert answer["jobs"]["queued"] == 1


def test_the_schema_takes_the_reference_request(api: Api) -> None:
    schema = api.client.get("/v2.1/schema").json()
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    assert validator.is_valid(REFERENCE)
    assert not validator.is_valid({**REFERENCE, "modle": "x"})


def test_there_are_no_pages(api: Api) -> None:
    for path in ("/docs", "/redoc", "/docs/oauth2-redirect"):
        assert api.client.get(path).status_code == 404


# -- limits ---------------------------------------------------------------------------------------------------------


def test_what_is_too_much_is_refused_at_once(make_api: Callable[..., Api]) -> None:
    api = make_api(limits=ApiLimits(max_concurrent=2))
    inside, go_on = threading.Semaphore(0), threading.Event()

    def hold(spec: dict[str, Any]) -> dict[str, Any]:
        inside.release()
        go_on.wait(20)
        return {"spec": spec, "dataset": {}, "steps": {}, "warnings": []}

    api.validator.answer = hold
    with serving(api.app) as address, ThreadPoolExecutor(2) as threads:
        held = [
            threads.submit(httpx.post, f"{address}/v2.1/jobs:validate", json=REFERENCE, headers=api.auth, timeout=30)
            for _ in "ab"
        ]
        for _ in held:
            assert inside.acquire(timeout=20)
        for answer in (
            httpx.get(f"{address}/v2.1/jobs", headers=api.auth),
            httpx.post(f"{address}/v2.1/jobs", json=REFERENCE, headers=api.auth),
        ):
            assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
            assert answer.headers["retry-after"] == "1"
        assert httpx.get(f"{address}/healthz").status_code == 200
        assert "astraml_api_requests 2" in httpx.get(f"{address}/metrics", headers=api.auth).text
        go_on.set()
        assert [one.result().status_code for one in held] == [200, 200]
        assert httpx.get(f"{address}/v2.1/jobs", headers=api.auth).status_code == 200


def test_dry_runs_are_few_and_bounded_in_time(make_api: Callable[..., Api]) -> None:
    api = make_api(limits=ApiLimits(max_validations=1, validation_timeout_s=0.1))
    go_on, done = threading.Event(), threading.Event()

    def hang(spec: dict[str, Any]) -> dict[str, Any]:
        go_on.wait(20)
        done.set()
        raise RuntimeError("nobody waits for this any more")

    api.validator.answer = hang
    slow = api.client.post("/v2.1/jobs:validate", json=REFERENCE)
    assert (slow.status_code, slow.json()["code"]) == (504, "validation_timeout")
    # The hanging one still holds its place.
    second = api.client.post("/v2.1/jobs:validate", json=REFERENCE)
    assert (second.status_code, second.json()["code"]) == (503, "overloaded")
    go_on.set()
    assert done.wait(20)
    api.validator.answer = lambda spec: {"spec": spec, "dataset": {}, "steps": {}, "warnings": []}
    wait_until(lambda: api.client.post("/v2.1/jobs:validate", json=REFERENCE).status_code == 200)


def test_places_are_counted_exactly() -> None:
    admission = Admission(max_concurrent=2, max_streams=1)
    first, second = admission.enter(), admission.enter()
    with pytest.raises(OverloadedError):
        admission.enter()
    with pytest.raises(OverloadedError):
        admission.refuse_if_full()
    first.become_stream()
    first.become_stream()
    assert (admission.requests, admission.streams) == (1, 1)
    with pytest.raises(OverloadedError):
        second.become_stream()
    assert (admission.requests, admission.streams) == (1, 1)
    first.leave()
    second.leave()
    assert (admission.requests, admission.streams) == (0, 0)
