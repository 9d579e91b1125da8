"""The client against the real API: every verb, pages, and what it raises."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import datetime, timezone
from pathlib import Path

import pytest

import astraml_ray
from astraml_ray.client import ApiError, Client, WaitTimeoutError
from astraml_ray.errors import InfrastructureError, RequestError
from tests.client.conftest import SPEC, LiveService
from tests.conftest import write_dataset


def test_the_package_has_it_and_is_light_without_it() -> None:
    assert astraml_ray.Client is Client
    with pytest.raises(AttributeError, match="Clinet"):
        astraml_ray.Clinet  # noqa: B018
    code = (
        "import sys, astraml_ray; assert 'httpx' not in sys.modules; astraml_ray.Client; assert 'httpx' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_submit_look_cancel(client: Client, service: LiveService) -> None:
    job = client.submit(SPEC)
    assert (job["status"], job["terminal"], job["project_id"], job["effective_batch_size"]) == (
        "queued",
        False,
        "p-demo",
        32,
    )
    assert client.get_job(job["id"]) == job
    assert client.cancel(job["id"])["status"] == "cancelled"
    with pytest.raises(ApiError) as caught:
        client.cancel(job["id"])
    assert (caught.value.status, caught.value.code, caught.value.exit_code) == (409, "job_terminal", 10)


def test_one_key_is_one_job(client: Client) -> None:
    first = client.submit(SPEC, idempotency_key="k")
    assert client.submit(SPEC, idempotency_key="k")["id"] == first["id"]
    assert client.submit(SPEC)["id"] != first["id"]
    with pytest.raises(ApiError) as caught:
        client.submit({**SPEC, "seed": 2}, idempotency_key="k")
    assert caught.value.code == "idempotency_key_reused"
    assert caught.value.as_dict()["differs"]


def test_invalid_spec_tells_every_problem(client: Client) -> None:
    with pytest.raises(ApiError) as caught:
        client.submit({"model": "x", "hyperparams": {"lr": -1}})
    assert {p["param"] for p in caught.value.problem["problems"]} == {"/dataset", "/hyperparams/lr"}
    assert "/hyperparams/lr" in str(caught.value)


def test_unknown_job_and_no_job(client: Client) -> None:
    with pytest.raises(ApiError) as caught:
        client.get_job("job-unknown")
    assert (caught.value.code, caught.value.exit_code) == ("job_not_found", 10)
    for odd in ("a/b", "..", "a?b", "a#b", "ü"):
        with pytest.raises(ApiError) as caught:
            client.get_job(odd)
        assert caught.value.status == 404
    with pytest.raises(RequestError):
        client.get_job(" ")


def test_lists_go_over_pages(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("astraml_ray.client.client._PAGE", 3)
    ids = [client.submit({**SPEC, "project_id": f"p{n % 2}", "labels": {"n": str(n)}})["id"] for n in range(8)]
    newest_first = ids[::-1]
    assert [job["id"] for job in client.list_jobs()] == newest_first
    assert [job["id"] for job in client.list_jobs(limit=4)] == newest_first[:4]
    assert [job["id"] for job in client.list_jobs(limit=6)] == newest_first[:6]
    assert list(client.list_jobs(limit=0)) == []
    assert [job["id"] for job in client.list_jobs(project_id="p1")] == newest_first[::2]
    assert [job["id"] for job in client.list_jobs(labels={"n": "5"})] == [ids[5]]
    client.cancel(ids[2])
    assert [job["id"] for job in client.list_jobs(status="cancelled")] == [ids[2]]
    assert len(list(client.list_jobs(status=["cancelled", "queued"]))) == 8
    now = datetime.now(timezone.utc).isoformat()
    assert list(client.list_jobs(created_after=now)) == []
    assert len(list(client.list_jobs(created_before=now))) == 8


def test_resume_and_clone(client: Client, service: LiveService, job_id: str) -> None:
    with pytest.raises(ApiError) as caught:
        client.resume(job_id)
    assert caught.value.code == "job_not_resumable"
    service.move(job_id, "starting", "running", "failed", run_path="/runs/x")
    again = client.resume(job_id, idempotency_key="r")
    assert (again["parent_id"], again["relation"]) == (job_id, "resume")
    assert client.resume(job_id, idempotency_key="r")["id"] == again["id"]
    copy = client.clone(job_id, {"hyperparams.lr": 1e-5, "labels.team": "x"})
    assert (copy["relation"], copy["spec"]["hyperparams"]["lr"], copy["labels"]) == ("clone", 1e-5, {"team": "x"})


def test_wait_for_an_end(client: Client, service: LiveService, job_id: str) -> None:
    seen: list[str] = []

    def look(job: dict[str, object]) -> None:
        # Moves on as soon as the client has seen a state.
        seen.append(str(job["status"]))
        following = {"queued": "starting", "starting": "running", "running": "succeeded"}.get(seen[-1])
        if following:
            service.move(job_id, following)

    job = client.wait(job_id, poll_s=0.01, on_look=look)
    assert seen == ["queued", "starting", "running", "succeeded"]
    assert job["terminal"]


def test_wait_gives_up_when_asked_to(client: Client, job_id: str) -> None:
    with pytest.raises(WaitTimeoutError, match="still queued"):
        client.wait(job_id, timeout_s=0.05)
    assert client.get_job(job_id)["status"] == "queued"


def test_attempts_events_and_errors(client: Client, service: LiveService, job_id: str) -> None:
    assert client.attempts(job_id) == []
    service.move(job_id, "starting", "running", "succeeded")
    types = ["job_created", "job_starting", "job_running", "job_succeeded"]
    assert [event["type"] for event in client.events(job_id)] == types
    assert [event["type"] for event in client.events(job_id, after=2)] == types[2:]
    assert [event["type"] for event in client.events(job_id, follow=True)] == types
    assert client.error_info("out_of_memory")["class"] == "memory"
    with pytest.raises(ApiError):
        client.error_info("no/such?code")


def test_logs_by_pages_and_filters(
    client: Client, service: LiveService, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("astraml_ray.client.client._LINES", 3)
    service.log(job_id, *(f"line {n}" for n in range(10)))
    service.log(job_id, "of one", rank=1, level="ERROR")
    service.log(job_id, "after a hole", rank=1, first=5)
    everything = list(client.logs(job_id))
    assert [line["id"] for line in everything] == list(range(1, 14))
    assert [line["dropped"] for line in everything] == [0] * 11 + [3, 0]
    assert [line["text"] for line in client.logs(job_id, rank=1) if not line["dropped"]] == ["of one", "after a hole"]
    assert next(client.logs(job_id, level="error", rank=1))["text"] == "of one"
    assert [line["id"] for line in client.logs(job_id, after=11)] == [12, 13]
    assert [line["id"] for line in client.logs(job_id, tail=2)] == [12, 13]
    assert list(client.logs(job_id, attempt=2)) == []


def test_a_real_dry_run(client: Client, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "d", rows=100)
    plan = client.validate({"model": "tiny-bert", "dataset": str(data), "hyperparams": {"epochs": 2}})
    assert plan["dataset"]["splits"]["train"]["rows"] == 100
    assert plan["steps"]["total"] == 8
    assert list(client.list_jobs()) == []
    with pytest.raises(ApiError) as caught:
        client.validate({"model": "tiny-bert", "dataset": str(tmp_path / "nothing")})
    assert (caught.value.code, caught.value.exit_code) == ("data", 20)


def test_many_threads_may_use_one_client(client: Client) -> None:
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.append(client.submit(SPEC)["id"])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 8


def test_no_service_is_an_error_with_a_hint() -> None:
    with Client("http://127.0.0.1:9", retry_s=0.1) as client, pytest.raises(InfrastructureError) as caught:
        client.get_job("job-1")
    assert caught.value.param == "http://127.0.0.1:9"
    assert "astraml up" in str(caught.value)
    assert caught.value.exit_code == 30
