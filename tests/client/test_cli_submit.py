"""Verbs that make jobs: submit, validate, resume, clone."""

from __future__ import annotations

import json
import re
import shlex
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from astraml_ray.client import Client
from astraml_ray.store.jobs import list_jobs
from tests.client.conftest import SPEC, Astraml, LiveService
from tests.conftest import write_dataset

REFERENCE = (
    "submit --project p-demo --model bert-base --gpus 1 --dataset s3://bucket/dataset "
    "--batch-size 32 --epochs 5 --lr 3e-5"
)
MINIMAL = ("submit", "--model", "bert-base", "--dataset", "s3://b/d")


@pytest.fixture
def once_submitted(service: LiveService) -> Callable[[Callable[[str], None]], threading.Thread]:
    """Does something with the first job, as soon as there is one."""

    def start(act: Callable[[str], None]) -> threading.Thread:
        def watch() -> None:
            while True:
                with service.store.read() as conn:
                    found = list_jobs(conn, limit=1)
                if found:
                    act(found[0].id)
                    return
                time.sleep(0.01)

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        return thread

    return start


def test_the_reference_line(astraml: Astraml, client: Client) -> None:
    done = astraml(*shlex.split(REFERENCE))
    (job,) = client.list_jobs()
    assert done.stdout.splitlines()[0] == f"{job['id']} queued"
    assert f"astraml logs {job['id']} -f" in done.stdout
    spec = client.get_job(job["id"])["spec"]
    assert (spec["project_id"], spec["model"]["name"], spec["dataset"]["path"]) == (
        "p-demo",
        "bert-base",
        "s3://bucket/dataset",
    )
    assert spec["resources"]["gpus"] == 1
    assert {name: spec["hyperparams"][name] for name in ("batch_size", "epochs", "lr")} == {
        "batch_size": 32,
        "epochs": 5,
        "lr": 3e-5,
    }


def test_json_prints_the_job_object(astraml: Astraml) -> None:
    done = astraml(*shlex.split(REFERENCE), "--output", "json")
    job = json.loads(done.stdout)
    promised = {
        *("id", "status", "terminal", "reason", "message", "project_id", "effective_batch_size"),
        *("progress", "spec", "created_at"),
    }
    assert promised <= set(job)
    assert (job["status"], job["terminal"], job["effective_batch_size"]) == ("queued", False, 32)


def test_file_set_and_flags(astraml: Astraml, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net").mkdir()
    (tmp_path / "spec.yaml").write_text(
        "dataset: {train: rows/train.parquet, test: 's3://b/test'}\nmodel: net\nlabels: {team: vision, kept: 'yes'}\n"
        "hyperparams: {lr: 1e-3, epochs: 3}\n"
    )
    flags = ["--lr", "1e-5", "--label", "team=speech", "--label", "x=a=b", "--priority", "7", "--name", "n"]
    done = astraml("submit", "-f", "spec.yaml", "--set", "hyperparams.epochs=2", *flags, "--output", "json")
    job = json.loads(done.stdout)
    spec = job["spec"]
    assert (spec["hyperparams"]["lr"], spec["hyperparams"]["epochs"]) == (1e-5, 2)
    assert job["labels"] == {"team": "speech", "kept": "yes", "x": "a=b"}
    assert (job["priority"], job["name"]) == (7, "n")
    assert spec["dataset"]["train"] == str(tmp_path / "rows/train.parquet")
    assert spec["dataset"]["test"] == "s3://b/test"
    assert spec["model"]["name"] == str(tmp_path / "net")


def test_only_what_was_given_is_sent() -> None:
    """Defaults are the service's: it may have others, or policies."""
    from astraml_ray.cli.service import Service
    from astraml_ray.cli.submit import read_spec

    flags = {"spec_model": "m", "spec_dataset": "s3://b/d", "spec_hyperparams_lr": 1e-4}
    names = ("project_id", "name", "task", "resources_gpus", "resources_workers", "hyperparams_batch_size")
    nothing = dict.fromkeys(f"spec_{name}" for name in (*names, "hyperparams_epochs", "seed", "priority"))
    sent = read_spec(None, (), {**nothing, **flags, "labels": ()}, Service(None, False))
    assert sent == {"model": {"name": "m"}, "dataset": {"path": "s3://b/d"}, "hyperparams": {"lr": 1e-4}}


def test_mistakes_are_found_before_anything_is_sent(astraml: Astraml, client: Client) -> None:
    done = astraml("submit", "--model", "m", "--lr", "-1", "--set", "hyperparams.epoch=3", "--output", "json", code=10)
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "invalid_spec"
    assert {p["param"] for p in error["problems"]} == {"/dataset", "/hyperparams/lr", "/hyperparams/epoch"}
    assert "did you mean hyperparams.epochs" in done.stderr
    assert "idempotency key" not in done.stderr
    assert "key=value" in astraml(*MINIMAL, "--label", "nothing", code=2).stderr
    assert "spec file" in astraml(*MINIMAL, "--label", "a.b=c", code=2).stderr
    assert list(client.list_jobs()) == []


def test_the_key_is_told_and_makes_one_job(astraml: Astraml, client: Client) -> None:
    done = astraml(*MINIMAL)
    key = re.search(r"idempotency key (\w+)", done.stderr)
    assert key
    assert astraml(*MINIMAL, "--idempotency-key", key[1]).stdout == done.stdout
    assert len(list(client.list_jobs())) == 1
    done = astraml(*MINIMAL, "--lr", "1e-4", "--idempotency-key", key[1], "--output", "json", code=10)
    assert json.loads(done.stdout)["error"]["code"] == "idempotency_key_reused"


@pytest.mark.parametrize("way", ["--wait", "--follow"])
def test_to_the_end_the_last_line_is_the_final_job(
    service: LiveService, astraml: Astraml, once_submitted: Any, way: str
) -> None:
    result = {"steps": 3, "metrics": {"validation/loss": 0.25}, "model_path": "/runs/x/model"}

    def act(job_id: str) -> None:
        service.log(job_id, "a line")
        service.move(job_id, "starting", "running", "succeeded", reason="early_stopping", result=result)

    thread = once_submitted(act)
    done = astraml(*MINIMAL, way, "--output", "json")
    thread.join()
    first, last = map(json.loads, done.stdout.splitlines())
    assert (first["status"], last["status"], last["terminal"]) == ("queued", "succeeded", True)
    assert last["result"]["steps"] == 3
    assert ("rank 0 | a line" in done.stderr) is (way == "--follow")


def test_follow_as_text(service: LiveService, astraml: Astraml, once_submitted: Any) -> None:
    error = {"code": "numeric", "message": "the loss is NaN", "param": "step 7", "hint": "lower lr", "rank": 2}

    def act(job_id: str) -> None:
        service.log(job_id, "a line")
        service.move(job_id, "starting", "running", "failed", reason="numeric", error=error)

    once_submitted(act)
    done = astraml(*MINIMAL, "--follow", code=22)
    assert done.stdout.splitlines()[1:] == ["rank 0 | a line", "failed: numeric"]
    for words in ("the loss is NaN", "step 7", "first on rank 2", "→ lower lr", "--set hyperparams.lr=3e-06"):
        assert words in done.stderr


def test_dry_run_makes_nothing_and_shows_everything(astraml: Astraml, client: Client, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "d", rows=100)
    line = ["--model", "tiny-bert", "--dataset", str(data), "--epochs", "2", "--set", "hyperparams.warmup_steps=50"]
    text = astraml("submit", "--dry-run", *line).stdout
    for words in ("batch_size: 32", "train", "3 classes: bird, fruit, metal", "8 in all, 4 per epoch", "warning: /"):
        assert words in text
    assert list(client.list_jobs()) == []
    done = astraml("validate", "--model", "tiny-bert", "--dataset", "/nothing", "--output", "json", code=20)
    assert json.loads(done.stdout)["error"]["code"] == "data"


def test_clone_and_resume(service: LiveService, astraml: Astraml, client: Client) -> None:
    job_id = client.submit(SPEC)["id"]
    done = astraml("clone", job_id, "--set", "hyperparams.lr=1e-5", "--set", "labels={a: b}", "--output", "json")
    copy = json.loads(done.stdout)
    assert (copy["relation"], copy["parent_id"], copy["labels"]) == ("clone", job_id, {"a": "b"})
    assert copy["spec"]["hyperparams"]["lr"] == 1e-5
    assert "field.path=value" in astraml("clone", job_id, "--set", "x", code=2).stderr
    assert "/hyperparams/lr" in astraml("clone", "latest", "--set", "hyperparams.lr=-1", code=10).stderr
    assert "job_not_resumable" in astraml("resume", job_id, "--output", "json", code=10).stdout
    service.move(job_id, "starting", "running", "failed", run_path="/runs/x")
    again = json.loads(astraml("resume", job_id, "--output", "json", "--idempotency-key", "r").stdout)
    assert (again["relation"], again["parent_id"]) == ("resume", job_id)
    assert astraml("resume", job_id, "--idempotency-key", "r").stdout.startswith(again["id"])
