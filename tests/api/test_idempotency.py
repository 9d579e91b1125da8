"""One key, one job: repeated, raced, and cut off at every point."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection

from astraml_ray.api import keyed
from astraml_ray.api.app import ApiLimits
from astraml_ray.errors import StoreBusyError
from astraml_ray.store.jobs import count_by_status
from tests.api.conftest import REFERENCE, Api, serving


def count_jobs(api: Api) -> int:
    with api.store.read() as conn:
        return sum(count_by_status(conn).values())


def submit(api: Api, key: str, spec: dict[str, Any] | None = None) -> httpx.Response:
    return api.submit(spec, **{"Idempotency-Key": key})


def test_a_repeated_request_has_the_same_answer(either_api: Api) -> None:
    first, again = (submit(either_api, "key 1 ~") for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert first.headers["location"] == again.headers["location"]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert count_jobs(either_api) == 1
    assert len(either_api.nudges) == 1


def test_the_answer_stays_as_it_was_when_the_job_moves_on(api: Api) -> None:
    first = submit(api, "k").json()
    assert api.client.post(f"/v2.1/jobs/{first['id']}/cancel").status_code == 200
    assert submit(api, "k").json() == first


def test_the_same_spec_in_other_words_is_the_same_request(api: Api) -> None:
    """Defaults written out, keys in another order, YAML: the canonical spec counts."""
    first = submit(api, "k", {"dataset": "s3://b/d", "model": "m"})
    text = "model: {name: m}\nproject_id: default\nhyperparams: {epochs: 5}\ndataset: {path: 's3://b/d'}\n"
    headers = {"Content-Type": "application/yaml", "Idempotency-Key": "k"}
    again = api.client.post("/v2.1/jobs", content=text, headers=headers)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json() == first.json()


def test_another_request_with_the_key_is_told_what_differs(either_api: Api) -> None:
    job_id = submit(either_api, "k").json()["id"]
    other = {**REFERENCE, "priority": 7, "hyperparams": {"lr": 1e-4}, "labels": {"a/b": "c"}}
    answer = submit(either_api, "k", other)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "idempotency_key_reused")
    assert job_id in problem["detail"]
    assert problem["differs"] == [
        {"param": "/hyperparams/lr", "before": 3e-5, "now": 1e-4},
        {"param": "/labels/a~1b", "before": None, "now": "c"},
        {"param": "/priority", "before": 0, "now": 7},
    ]
    assert count_jobs(either_api) == 1


def test_a_key_belongs_to_a_project_and_a_route(api: Api) -> None:
    first = submit(api, "k").json()
    assert submit(api, "k", {**REFERENCE, "project_id": "other"}).status_code == 201
    clone = api.client.post(f"/v2.1/jobs/{first['id']}/clone", headers={"Idempotency-Key": "k"})
    assert clone.status_code == 201
    assert clone.json()["id"] != first["id"]
    assert count_jobs(api) == 3


@pytest.mark.parametrize("action", ["clone", "resume"])
def test_clones_and_resumed_jobs_are_made_once(api: Api, action: str) -> None:
    parent, other = (api.ended_job(run_path="/tmp/run") for _ in range(2))
    headers = {"Idempotency-Key": "k"}
    first, again = (api.client.post(f"/v2.1/jobs/{parent}/{action}", headers=headers) for _ in range(2))
    assert first.status_code == 201
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json() == first.json()
    reused = api.client.post(f"/v2.1/jobs/{other}/{action}", headers=headers)
    assert reused.status_code == 422
    assert reused.json()["differs"] == [{"param": "/parent_id", "before": parent, "now": other}]
    assert count_jobs(api) == 3


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there", "café".encode("latin-1"), "\x7f"])
def test_invalid_keys(api: Api, key: str | bytes) -> None:
    answer = api.client.post("/v2.1/jobs", json=REFERENCE, headers={"Idempotency-Key": key})  # type: ignore[dict-item]
    assert (answer.status_code, answer.json()["code"]) == (400, "idempotency_key_invalid")
    twice = api.client.post("/v2.1/jobs", json=REFERENCE, headers=[("Idempotency-Key", "a"), ("Idempotency-Key", "b")])
    assert twice.status_code == 400
    assert count_jobs(api) == 0


def test_what_failed_validation_leaves_the_key_free(api: Api) -> None:
    assert submit(api, "k", {**REFERENCE, "modle": "x"}).status_code == 422
    assert submit(api, "k").status_code == 201
    assert submit(api, "x" * 255).status_code == 201


def test_a_thousand_requests_at_once_make_one_job(either_url: str, make_api: Callable[..., Api]) -> None:
    """Against two processes' worth of apps, with retries as a client makes them."""
    clients, each = 50, 20
    limits = ApiLimits(max_concurrent=1000)
    one, two = (make_api(either_url, limits=limits) for _ in range(2))
    for api in (one, two):
        api.client.get("/healthz")  # FastAPI completes its routes at the first request
    answers: list[httpx.Response] = []
    with serving(one.app) as first, serving(two.app) as second:
        start = threading.Barrier(clients)

        def send(number: int) -> None:
            with httpx.Client(
                base_url=(first, second)[number % 2], headers=one.auth, timeout=60, verify=False
            ) as client:
                start.wait()
                for _ in range(each):
                    answer = client.post("/v2.1/jobs", json=REFERENCE, headers={"Idempotency-Key": "the one"})
                    while answer.status_code in (409, 503):
                        assert int(answer.headers["retry-after"]) >= 1
                        answer = client.post("/v2.1/jobs", json=REFERENCE, headers={"Idempotency-Key": "the one"})
                    answers.append(answer)

        with ThreadPoolExecutor(clients) as threads:
            list(threads.map(send, range(clients)))
    assert len(answers) == clients * each == 1000
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert Counter(answer.headers.get("idempotency-replayed") for answer in answers) == {None: 1, "true": 999}
    assert count_jobs(one) == 1
    assert len(one.nudges) + len(two.nudges) == 1


def test_many_keys_at_once_make_a_job_each(either_api: Api) -> None:
    def send(number: int) -> str:
        answer = submit(either_api, f"key-{number % 40}")
        return str(answer.json()["id"])

    with ThreadPoolExecutor(8) as threads:
        ids = list(threads.map(send, range(80)))
    assert len(set(ids)) == 40
    assert ids[:40] == ids[40:]
    assert count_jobs(either_api) == 40


@contextmanager
def delayed_store_key(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Holds the first request inside its transaction, with job and key not yet committed."""
    inside, go_on = threading.Event(), threading.Event()
    real = keyed.store_key

    def store_key(conn: Connection, record: Any) -> None:
        real(conn, record)
        if not inside.is_set():
            inside.set()
            go_on.wait(20)

    monkeypatch.setattr(keyed, "store_key", store_key)
    try:
        yield inside, go_on
    finally:
        go_on.set()


def test_a_request_that_meets_its_twin_waits_for_it(either_api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    with delayed_store_key(monkeypatch) as (inside, go_on), ThreadPoolExecutor(2) as threads:
        first = threads.submit(submit, either_api, "k")
        assert inside.wait(20)
        second = threads.submit(submit, either_api, "k")
        go_on.set()
        answers = [first.result(), second.result()]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()
    assert count_jobs(either_api) == 1


def test_a_busy_database_means_in_flight_with_a_key_and_busy_without(api: Api) -> None:
    class Busy:
        def __init__(self) -> None:
            self.read = api.store.read

        def write(self) -> Any:
            raise StoreBusyError("locked")

    api.services.store = Busy()  # type: ignore[assignment]
    with_key, without = submit(api, "k"), api.submit()
    assert (with_key.status_code, with_key.json()["code"]) == (409, "idempotency_key_in_flight")
    assert with_key.headers["retry-after"] == "1"
    assert (without.status_code, without.json()["code"]) == (503, "store_busy")


def test_a_crash_before_the_commit_leaves_neither_job_nor_key(either_api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(conn: Connection, record: Any) -> None:
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(keyed, "store_key", crash)
        assert submit(either_api, "k").status_code == 500
    assert count_jobs(either_api) == 0
    assert "idempotency-replayed" not in submit(either_api, "k").headers
    assert count_jobs(either_api) == 1
