"""What is sent again, what is not, and that a job is made once whatever breaks."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from astraml_ray.client import ApiError, Client
from astraml_ray.client.endpoint import Endpoint
from astraml_ray.client.transport import Transport
from astraml_ray.errors import InfrastructureError
from tests.client.conftest import SPEC, LiveService
from tests.client.proxy import cutting
from tests.client.scripted import Answer, scripted

BUSY = Answer(503, b'{"code": "store_busy", "class": "service", "retryable": true}', {"Retry-After": "0"})
JOB = Answer(200, b'{"id": "job-1"}')


def transport(address: str, retry_s: float = 2.0) -> Transport:
    return Transport(Endpoint(address), timeout_s=5.0, retry_s=retry_s)


@pytest.mark.parametrize("cut", [0, 1, 17, 200, 400, 800])
def test_submit_over_a_connection_that_drops_after_accepting(service: LiveService, client: Client, cut: int) -> None:
    with cutting(service.address) as proxy, Client(proxy.address) as over:
        proxy.cuts = [cut, cut]
        job = over.submit(SPEC)
        assert proxy.connections == 3
    assert [found["id"] for found in client.list_jobs()] == [job["id"]]


@pytest.mark.parametrize("verb", ["clone", "resume"])
def test_new_jobs_from_old_ones_likewise(service: LiveService, client: Client, job_id: str, verb: str) -> None:
    service.move(job_id, "starting", "running", "failed", run_path="/runs/x")
    with cutting(service.address) as proxy, Client(proxy.address) as over:
        proxy.cuts = [0, 100]
        job = getattr(over, verb)(job_id)
    assert [found["id"] for found in client.list_jobs()] == [job["id"], job_id]


def test_cancel_whose_answer_was_lost(service: LiveService, client: Client, job_id: str) -> None:
    with cutting(service.address) as proxy, Client(proxy.address) as over:
        proxy.cuts = [0]
        assert over.cancel(job_id)["status"] == "cancelled"
        with pytest.raises(ApiError, match="already"):
            over.cancel(job_id)


def test_a_service_that_restarts(service: LiveService, client: Client, job_id: str) -> None:
    service.stop()
    back = threading.Timer(0.4, service.start)
    back.start()
    made = client.submit(SPEC)
    back.join()
    assert [job["id"] for job in client.list_jobs()] == [made["id"], job_id]


def test_waiting_bears_an_outage(service: LiveService, client: Client, job_id: str) -> None:
    looks: list[str] = []

    def look(job: dict[str, object]) -> None:
        looks.append(str(job["status"]))
        if len(looks) == 1:
            service.stop()
            threading.Timer(0.4, service.start).start()
        elif not job["terminal"]:
            service.move(job_id, "cancelled")

    assert client.wait(job_id, poll_s=0.01, on_look=look)["status"] == "cancelled"
    assert looks == ["queued", "queued", "cancelled"]


def test_what_may_pass_is_tried_again_with_the_same_key() -> None:
    with scripted(BUSY, Answer(drops=True), Answer(429), Answer(502, b"<html>"), JOB) as script:
        assert transport(script.address, retry_s=10).request("POST", "/v2.1/jobs", body={}, key="k") == {"id": "job-1"}
    assert [headers["Idempotency-Key"] for _, _, headers in script.seen] == ["k"] * 5


def test_a_key_in_flight_is_waited_for() -> None:
    busy = Answer(409, b'{"code": "idempotency_key_in_flight"}', {"Retry-After": "0"})
    with scripted(busy, JOB) as script:
        assert transport(script.address).request("POST", "/v2.1/jobs", body={}, key="k")["id"] == "job-1"


@pytest.mark.parametrize("answer", [Answer(drops=True), BUSY])
def test_what_cannot_be_told_apart_is_sent_once(answer: Answer) -> None:
    with scripted(answer, JOB) as script, pytest.raises((ApiError, InfrastructureError)):
        transport(script.address).request("POST", "/v2.1/jobs", body={})
    assert len(script.seen) == 1


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422, 500])
def test_what_does_not_pass_is_asked_once(status: int) -> None:
    with scripted(Answer(status, b'{"code": "x"}'), JOB) as script, pytest.raises(ApiError) as caught:
        transport(script.address).request("GET", "/v2.1/jobs")
    assert caught.value.status == status
    assert len(script.seen) == 1


def test_retry_after_is_obeyed_and_never_outlasts_the_patience() -> None:
    later = Answer(503, b"{}", {"Retry-After": "3600"})
    with scripted(later, JOB) as script, pytest.raises(ApiError) as caught:
        transport(script.address).request("GET", "/v2.1/jobs")
    assert caught.value.retry_after_s == 3600
    assert len(script.seen) == 1


@pytest.mark.parametrize("text", ["soon", "-1", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_odd_retry_after(text: str) -> None:
    with scripted(Answer(503, b"{}", {"Retry-After": text}), JOB) as script:
        assert transport(script.address).request("GET", "/v2.1/jobs") == {"id": "job-1"}


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"[]", b"", b"\xff"])
def test_something_else_at_the_address(body: bytes) -> None:
    with scripted(Answer(200, body)) as script, pytest.raises(InfrastructureError, match="an AstraML service"):
        transport(script.address).request("GET", "/v2.1/jobs")
    with scripted(Answer(404, body)) as script, pytest.raises(ApiError, match="404"):
        transport(script.address).request("GET", "/v2.1/jobs")
    with scripted(Answer(301, body, {"Location": "http://127.0.0.1:9/"})) as script, pytest.raises(ApiError):
        transport(script.address).request("GET", "/v2.1/jobs")


def test_the_token_goes_with_every_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASTRAML_HOME", str(tmp_path))
    (tmp_path / "token").write_text("secret\n")
    with scripted(JOB) as script, Client(script.address) as client:
        client.get_job("job-1")
    assert script.seen[0][2]["Authorization"] == "Bearer secret"
    assert script.seen[0][2]["User-Agent"].startswith("astraml/")


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with scripted(JOB) as script, Client(script.address, retry_s=0.1) as client:
        assert client.get_job("job-1")["id"] == "job-1"
