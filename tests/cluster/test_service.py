"""The service for real: `astraml up`, HTTP, training, kill -9 of every process, `down` and `up` again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from tests.cluster import service
from tests.cluster.service import Installed, wait_for
from tests.cluster.test_sweep import same_decisions
from tests.conftest import write_dataset

pytestmark = pytest.mark.ray

SPEC: dict[str, Any] = {
    "project_id": "p-test",
    "dataset": "s3://bucket/dataset",
    "model": "tiny-bert",
    "hyperparams": {
        "batch_size": 16,
        "lr": 1e-3,
        "epochs": 10,
        "eval_every": "40 steps",
        "max_length": 32,
        "early_stopping": {"patience": 50},
    },
    "augmentation": [{"type": "random_deletion", "rate": 0.2}],
    "checkpoint": {"every": "10 steps"},
    "resources": {"gpus": 0, "threads_per_worker": 1},
    "seed": 11,
}
STEPS = 260


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    folder = tmp_path_factory.mktemp("service")
    write_dataset(folder / "s3" / "bucket" / "dataset", rows=405, group=60)
    installed = service.start(folder / "home", folder / "s3", "--port", str(_port()))
    yield installed
    installed.astraml("down")


def _port() -> int:
    from astraml_ray.control.head import free_port

    return free_port()


def post(up: Installed, path: str, body: Any, **headers: str) -> httpx.Response:
    return httpx.post(up.address + path, json=body, headers={**up.auth, **headers}, timeout=60.0)


def weights(up: Installed, job: dict[str, Any]) -> str:
    path = f"/v2.1/jobs/{job['id']}/artifacts/model/model.safetensors"
    answer = httpx.get(up.address + path, headers=up.auth, timeout=60.0).raise_for_status()
    return hashlib.sha256(answer.content).hexdigest()


@pytest.fixture(scope="module")
def undisturbed(up: Installed) -> dict[str, Any]:
    """A job that nothing happens to; the others are compared with it."""
    answer = post(up, "/v2.1/jobs", SPEC, **{"Idempotency-Key": "undisturbed"})
    assert answer.status_code == 201, answer.text
    job = up.ended(answer.json()["id"])
    assert job["status"] == "succeeded", job
    return job


def test_a_job_by_http(up: Installed, undisturbed: dict[str, Any]) -> None:
    """The object, the events, the logs, the metrics, and the model."""
    job = undisturbed
    assert (job["status"], job["terminal"], job["attempts"]) == ("succeeded", True, 1)
    assert job["progress"]["step"] == job["result"]["steps"] == STEPS
    assert job["result"]["metrics"]["test/accuracy"] > 0.8
    events = up.get(f"/v2.1/jobs/{job['id']}/events")["data"]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    types = [event["type"] for event in events]
    assert [t for t in types if t.startswith(("job_", "attempt_"))] == [
        "job_created",
        "job_starting",
        "attempt_started",
        "job_running",
        "job_succeeded",
    ]
    lines = list(up.client().logs(job["id"], follow=True))
    assert [line["id"] for line in lines] == list(range(1, len(lines) + 1))
    assert {0, None} <= {line["rank"] for line in lines}
    assert any("validation: loss" in line["text"] for line in lines)
    series = up.get(f"/v2.1/jobs/{job['id']}/metrics", name="train/loss", resolution="30s")["series"][0]
    assert series["points"] == STEPS
    assert (series["windows"][0]["step_first"], series["windows"][-1]["step_last"]) == (1, STEPS)
    replay = post(up, "/v2.1/jobs", SPEC, **{"Idempotency-Key": "undisturbed"})
    assert (replay.status_code, replay.headers["Idempotency-Replayed"]) == (201, "true")
    assert replay.json()["id"] == job["id"]


def test_the_reference_requests(up: Installed) -> None:
    """As the design writes them; without a GPU the job waits, and says why and what would start it."""
    reference = {
        "project_id": "p-demo",
        "dataset": "s3://bucket/dataset",
        "model": "bert-base",
        "hyperparams": {"batch_size": 32, "lr": 3e-5, "epochs": 5, "early_stopping": {"patience": 5}},
        "resources": {"gpus": 1},
    }
    command = ["curl", "-sS", "-X", "POST", f"{up.address}/v2.1/jobs", "-H", "Content-Type: application/json"]
    command += ["-H", f"Authorization: {up.auth['Authorization']}"]
    done = subprocess.run([*command, "-d", json.dumps(reference)], capture_output=True, text=True, check=True)
    line = "submit --project p-demo --model bert-base --gpus 1 --dataset s3://bucket/dataset --batch-size 32 --epochs 5"
    for job in (json.loads(done.stdout), up.json(*line.split(), "--lr", "3e-5")):
        hyper = job["spec"]["hyperparams"]
        assert (hyper["batch_size"], hyper["lr"], hyper["epochs"]) == (32, 3e-5, 5)
        assert (hyper["lr_scheduler"], hyper["gradient_accumulation_steps"]) == ("cosine", 1)
        assert hyper["early_stopping"]["patience"] == 5
        wait = wait_for(lambda job=job: up.job(job["id"])["wait"])
        assert wait == {"message": "needs 1 GPU; the cluster has 0", "would_start_with": {"resources.gpus": 0}}
        assert "resources.gpus=0" in up.astraml("explain", job["id"]).stdout
        assert up.json("cancel", job["id"])["status"] == "cancelled"


def test_the_proxy_hangs_up_on_a_flood_of_headers(up: Installed) -> None:
    """It reads them before anyone can be asked who they are."""
    sent = 0
    with socket.create_connection(("127.0.0.1", urlsplit(up.address).port or 0), timeout=60) as flood:
        flood.sendall(b"GET /v2.1/jobs HTTP/1.1\r\nHost: x\r\n")
        try:
            while sent < 50_000_000:
                flood.sendall(b"X-Filler: " + b"x" * 10_000 + b"\r\n")
                sent += 10_000
        except ConnectionError:
            pass
    assert sent < 50_000_000
    assert up.get("/healthz")["status"] == "ok"


def test_a_dry_run_reads_the_bucket(up: Installed) -> None:
    report = post(up, "/v2.1/jobs:validate", SPEC).raise_for_status().json()
    assert report["dataset"]["splits"]["train"]["rows"] == 405
    assert report["steps"]["total"] == STEPS
    assert "/hyperparams/early_stopping/patience" in [warning["param"] for warning in report["warnings"]]
    nothing = post(up, "/v2.1/jobs:validate", {**SPEC, "dataset": "s3://bucket/nothing"})
    assert nothing.status_code == 422
    assert nothing.json()["code"] == "data"


def test_every_process_is_killed_in_turn(up: Installed, undisturbed: dict[str, Any]) -> None:
    """Queued, starting, in the middle of steps, while checkpoints are written, at the end: the same model comes out."""
    job_id = post(up, "/v2.1/jobs", SPEC).raise_for_status().json()["id"]
    assert up.kill("ray::Controller") == 1
    up.kill("ray::ServeReplica")
    wait_for(lambda: up.job(job_id)["status"] != "queued")
    up.kill("ray::Runner")
    up.at_step(job_id, 30)
    up.kill("ray::RayTrainWorker")
    up.at_step(job_id, 80)
    up.kill("ray::RunController")
    up.at_step(job_id, 120)
    up.kill("ray::ServeController")
    up.kill("ray::ProxyActor")
    folder = Path(up.job(job_id)["run_path"]) / "checkpoints"
    wait_for(
        lambda: (
            list(folder.glob(".*/*")) or [f for f in folder.glob("*/*") if f.name.startswith(".")] or _past(folder, 160)
        )
    )
    up.kill("ray::Runner")
    # The last steps may be done between two looks at the job.
    wait_for(lambda: up.job(job_id)["progress"]["step"] >= STEPS - 20)
    up.kill("ray::Controller")
    wait_for(lambda: up.job(job_id)["progress"]["step"] == STEPS)
    for runner in up.processes("ray::Runner"):
        with contextlib.suppress(psutil.NoSuchProcess):
            runner.kill()  # it may be leaving
    job = up.ended(job_id)
    assert job["status"] == "succeeded", job
    assert weights(up, job) == weights(up, undisturbed)
    assert job["result"]["metrics"] == undisturbed["result"]["metrics"]
    events = up.get(f"/v2.1/jobs/{job_id}/events", limit=1000)["data"]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [event["type"] for event in events].count("job_succeeded") == 1
    lines = list(up.client().logs(job_id))
    assert [line["id"] for line in lines] == list(range(1, len(lines) + 1))
    assert {line["attempt"] for line in lines if line["rank"] is None} >= set(range(2, job["attempts"] + 1))
    _nothing_is_left(up)


def test_a_sweep_outlives_the_controller_and_its_runner(up: Installed) -> None:
    """Both killed while trials run, the controller twice: no trial is done twice or lost, and each is told once."""
    rates = [1e-3, 7e-4, 5e-4, 3e-4, 1e-4, 1e-5]
    hyper = {**SPEC["hyperparams"], "eval_every": "20 steps"}
    sweep = {"parameters": {"hyperparams.lr": {"choice": rates}}, "reduction_factor": 2, "max_concurrent": 1}
    job_id = post(up, "/v2.1/jobs", {**SPEC, "hyperparams": hyper, "sweep": sweep}).raise_for_status().json()["id"]

    def ended(count: int) -> list[dict[str, Any]]:
        trials = up.get(f"/v2.1/jobs/{job_id}/trials")["data"]
        found = [trial for trial in trials if trial["ended_at"]]
        return found if len(found) >= count else []

    wait_for(lambda: ended(1))
    up.kill("ray::Controller")
    up.kill("ray::Runner")
    before = wait_for(lambda: ended(2))
    up.kill("ray::Controller")
    job = up.ended(job_id)
    assert job["status"] == "succeeded", job
    assert job["attempts"] >= 2
    after = {trial["number"]: trial for trial in ended(len(rates))}
    assert sorted(trial["parameters"]["hyperparams.lr"] for trial in after.values()) == sorted(rates)
    for trial in before:
        assert {**after[trial["number"]], "seconds": None} == {**trial, "seconds": None}
    same_decisions(Path(job["run_path"]), list(after.values()))
    events = up.get(f"/v2.1/jobs/{job_id}/events", limit=1000)["data"]
    told = sorted(event["data"]["number"] for event in events if event["type"] == "trial_ended")
    assert told == list(range(len(rates)))


def _past(folder: Path, step: int) -> bool:
    return any(int(path.name.removeprefix("step-")) >= step for path in folder.glob("step-*"))


def _nothing_is_left(up: Installed) -> None:
    """No runner, no Train process, and all CPUs are free again."""
    titles = (
        "ray::Runner",
        "ray::RunController",
        "ray::RayTrainWorker",
        "ray::RunChannel",
        "ray::PlacementGroupCleaner",
    )
    wait_for(lambda: not any(up.processes(title) for title in titles))
    job = post(up, "/v2.1/jobs", {**SPEC, "resources": {"gpus": 0, "workers": 2}}).json()
    wait_for(lambda: up.job(job["id"])["status"] != "queued")
    assert up.json("cancel", job["id"])["id"] == job["id"]
    assert up.ended(job["id"])["status"] == "cancelled"


def test_cancel_saves_and_resume_goes_on_to_the_same_weights(up: Installed, undisturbed: dict[str, Any]) -> None:
    job_id = post(up, "/v2.1/jobs", SPEC).raise_for_status().json()["id"]
    up.at_step(job_id, 20)
    asked = time.monotonic()
    assert up.astraml("cancel", job_id).returncode == 0
    job = up.ended(job_id)
    assert (job["status"], job["reason"]) == ("cancelled", "cancelled")
    print(f"cancelled after {time.monotonic() - asked:.1f} s at step {job['progress']['step']}")
    resumed = up.json("resume", job_id)
    assert (resumed["parent_id"], resumed["relation"]) == (job_id, "resume")
    job = up.ended(resumed["id"])
    assert job["status"] == "succeeded", job
    attempts = up.get(f"/v2.1/jobs/{job['id']}/attempts")["data"]
    assert attempts[0]["first_step"] >= 20
    assert weights(up, job) == weights(up, undisturbed)


def test_keep_best_publishes_what_there_is(up: Installed, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    job_id = up.json("submit", "-f", str(_file(tmp_path, SPEC)), "--set", "hyperparams.epochs=100")["id"]
    up.at_step(job_id, 60)
    up.astraml("cancel", job_id, "--keep-best")
    job = up.ended(job_id)
    assert (job["status"], job["reason"]) == ("cancelled", "stopped_keep_best")
    to = tmp_path / "model"
    up.astraml("download", job_id, "--to", str(to))
    AutoModelForSequenceClassification.from_pretrained(to)


def test_down_and_up_again(up: Installed, undisturbed: dict[str, Any], tmp_path: Path) -> None:
    """A job that runs goes on; what was there is there; nothing of the old processes is."""
    job_id = up.json("submit", "-f", str(_file(tmp_path, SPEC)))["id"]
    up.at_step(job_id, 30)
    before = [line["id"] for line in up.client().logs(undisturbed["id"])]
    head = up.processes("")
    port = up.address.rsplit(":", 1)[1]
    up.astraml("down")
    assert not [process for process in head if process.is_running() and process.status() != "zombie"]
    up.astraml("up", "--s3", str(up.s3), "--port", port)
    assert up.json("up")["already_up"]
    job = up.ended(job_id)
    assert job["status"] == "succeeded", job
    assert weights(up, job) == weights(up, undisturbed)
    assert [line["id"] for line in up.client().logs(undisturbed["id"])] == before
    series = up.get(f"/v2.1/jobs/{undisturbed['id']}/metrics", name="train/loss")["series"][0]
    assert series["points"] == STEPS


def _file(folder: Path, spec: dict[str, Any]) -> Path:
    file = folder / "spec.json"
    file.write_text(json.dumps(spec))
    return file
