"""Verbs that look at jobs and stop them: list, show, cancel, explain, wait, logs, events, metrics, download."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from astraml_ray.cli.metric_chart import draw_charts
from astraml_ray.client import Client
from astraml_ray.store.metrics import merge_windows
from astraml_ray.store.windows import collect
from tests.client.conftest import SPEC, Astraml, LiveService

PROGRESS = {
    "step": 450,
    "total_steps": 1000,
    "epoch": 1.25,
    "epochs": 5,
    "fraction": 0.45,
    "eta_s": [180, 540],
    "metrics": {"train/loss": 0.123456},
}


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


class TestList:
    def test_no_jobs_is_said(self, astraml: Astraml) -> None:
        assert "no jobs; make one: astraml submit" in astraml("list").stdout
        assert "there is no project 'p'" in astraml("list", "--project", "p", code=10).stderr
        assert "no such jobs" in astraml("list", "--status", "failed").stdout
        assert json.loads(astraml("list", "--output", "json").stdout) == {"data": [], "has_more": False}

    def test_table_of_80_columns(self, astraml: Astraml, client: Client, service: LiveService) -> None:
        long = client.submit({**SPEC, "name": "n" * 100, "project_id": "p" * 100})["id"]
        running = client.submit({**SPEC, "name": "small"})["id"]
        service.move(running, "starting", "running")
        service.set(running, progress=PROGRESS)
        lines = astraml("list").stdout.splitlines()
        assert all(len(line) <= 80 for line in lines)
        assert lines[0].split() == ["ID", "STATUS", "DONE", "AGE", "PROJECT", "NAME,", "REASON"]
        assert lines[1].split()[:3] == [running, "running", "45%"]
        assert lines[2].split()[:2] == [long, "queued"]

    def test_filters_and_limit(self, astraml: Astraml, client: Client) -> None:
        ids = [client.submit({**SPEC, "project_id": f"p{n % 2}", "labels": {"n": str(n)}})["id"] for n in range(4)]
        client.cancel(ids[0])

        def found(*arguments: str) -> tuple[list[str], bool]:
            answer = json.loads(astraml("list", *arguments, "--output", "json").stdout)
            return [job["id"] for job in answer["data"]], answer["has_more"]

        assert found() == (ids[::-1], False)
        assert found("--limit", "3") == (ids[:0:-1], True)
        assert found("--limit", "4") == (ids[::-1], False)
        assert found("--project", "p1") == ([ids[3], ids[1]], False)
        assert found("--label", "n=2") == ([ids[2]], False)
        assert found("--status", "cancelled") == ([ids[0]], False)
        assert len(found("--status", "cancelled", "--status", "queued")[0]) == 4
        assert "more" in astraml("list", "--limit", "1").stderr


class TestShow:
    def test_running(self, astraml: Astraml, service: LiveService, job_id: str) -> None:
        service.move(job_id, "starting", "running", run_path="/runs/x")
        warning = {"param": "/hyperparams/lr", "message": "is high", "hint": "lower it"}
        service.set(job_id, progress=PROGRESS, warnings=[warning])
        page = astraml("show", job_id).stdout
        for words in ("running", "45%", "step 450/1000", "3m00s to", "train/loss 0.1235", "bert-base", "s3://bucket"):
            assert words in page
        assert "/hyperparams/lr: is high → lower it" in page
        assert f"astraml logs {job_id} -f" in page
        assert f"{service.address}/v2.1/jobs/{job_id}" in page

    def test_queued_says_what_would_start_it(self, astraml: Astraml, service: LiveService, job_id: str) -> None:
        wait = {"message": "needs 1 GPU; the cluster has 0", "would_start_with": {"resources.gpus": 0}}
        service.set(job_id, wait=wait)
        page = astraml("show", "latest").stdout
        assert "needs 1 GPU; the cluster has 0" in page
        assert "it would start now with resources.gpus=0" in page

    def test_failed(self, astraml: Astraml, service: LiveService, job_id: str) -> None:
        error = {"code": "data", "message": "row 7 is null", "param": "s3://b/x", "hint": "mend it"}
        service.move(job_id, "starting", "running", "failed", reason="data", error=error)
        page = astraml("show", job_id).stdout
        for words in ("failed", "data: row 7 is null", "s3://b/x", "→ mend it"):
            assert words in page

    def test_json_and_watch(self, astraml: Astraml, client: Client, service: LiveService, job_id: str) -> None:
        assert json.loads(astraml("show", job_id, "--output", "json").stdout) == client.get_job(job_id)
        threading.Timer(0.3, service.move, (job_id, "cancelled")).start()
        assert "cancelled" in astraml("show", job_id, "--watch").stdout
        assert len(objects(astraml("show", job_id, "--watch", "--output", "json").stdout)) == 1

    def test_unknown(self, astraml: Astraml) -> None:
        done = astraml("show", "job-unknown", "--output", "json", code=10)
        assert json.loads(done.stdout)["error"]["code"] == "job_not_found"
        assert "no job" in done.stderr
        assert "there is no job yet" in astraml("show", "latest", code=10).stderr


class TestCancel:
    def test_queued(self, astraml: Astraml, job_id: str) -> None:
        assert astraml("cancel", job_id).stdout.startswith(f"{job_id} cancelled")
        assert "already" in astraml("cancel", job_id, code=10).stderr

    def test_running_is_waited_for(self, astraml: Astraml, service: LiveService, job_id: str) -> None:
        service.move(job_id, "starting", "running")
        assert "keeping the best model" in astraml("cancel", job_id, "--keep-best").stdout
        threading.Timer(0.3, service.move, (job_id, "cancelled")).start()
        done = astraml("cancel", "latest", "--wait", "--output", "json")
        assert (json.loads(done.stdout)["status"], json.loads(done.stdout)["cancel_requested"]) == ("cancelled", "now")


class TestExplain:
    def test_jobs(self, astraml: Astraml, service: LiveService, job_id: str) -> None:
        service.set(job_id, wait={"message": "needs 1 GPU", "would_start_with": {"resources.gpus": 0}})
        assert f"astraml clone {job_id} --set resources.gpus=0" in astraml("explain", "latest").stdout
        error = {"code": "out_of_memory", "message": "no room", "rank": 1}
        service.move(job_id, "starting", "running", "failed", reason="out_of_memory", error=error)
        text = astraml("explain", job_id).stdout
        assert "first on rank 1" in text
        assert "--set hyperparams.batch_size=16 --set hyperparams.gradient_accumulation_steps=2" in text
        told = json.loads(astraml("explain", job_id, "--output", "json").stdout)
        assert set(told) == {"job_id", "status", "summary", "where", "hint", "commands"}

    def test_codes(self, astraml: Astraml) -> None:
        text = astraml("explain", "queue_timeout").stdout
        assert "limits.queue_timeout" in text
        assert "to do" in text
        assert json.loads(astraml("explain", "data", "--output", "json").stdout)["code"] == "data"
        assert "no" in astraml("explain", "no_such_code", code=10).stderr


class TestWait:
    @pytest.mark.parametrize(
        ("status", "reason", "code"),
        [
            ("succeeded", "completed", 0),
            ("failed", "data", 20),
            ("failed", "out_of_memory", 21),
            ("failed", "numeric", 22),
            ("failed", "infrastructure", 30),
            ("failed", "storage", 30),
            ("failed", "resources", 30),
            ("failed", "deadline_exceeded", 1),
            ("cancelled", "cancelled", 40),
        ],
    )
    def test_exit_code_is_the_outcome(
        self, astraml: Astraml, service: LiveService, job_id: str, status: str, reason: str, code: int
    ) -> None:
        error = {"code": reason, "message": "why"} if status == "failed" else None
        service.move(job_id, "starting", "running", status, reason=reason, error=error)
        done = astraml("wait", job_id, "--output", "json", code=code)
        assert json.loads(done.stdout)["status"] == status
        assert astraml("wait", job_id, code=code).stdout.startswith(f"{status}: {reason}")

    def test_timeout(self, astraml: Astraml, job_id: str) -> None:
        done = astraml("wait", job_id, "--timeout", "0.1s", "--output", "json", code=124)
        assert json.loads(done.stdout)["error"]["code"] == "wait_timeout"
        assert "90s" in astraml("wait", job_id, "--timeout", "soon", code=2).stderr
        assert astraml("wait", "job-unknown", code=10)


class TestLogs:
    def test_lines(self, astraml: Astraml, service: LiveService, job_id: str) -> None:
        service.log(job_id, "hello \x1b[31mred\x1b[0m\x07", "two")
        service.log(job_id, "after", first=7)
        service.log(job_id, "of the runner", rank=None, level="ERROR")
        assert astraml("logs", job_id).stdout.splitlines() == [
            "rank 0 | hello red",
            "rank 0 | two",
            "… 4 lines lost here",
            "rank 0 | after",
            "runner | of the runner",
        ]
        assert astraml("logs", job_id, "--rank", "0", "--tail", "1").stdout == "rank 0 | after\n"
        assert "rank 0" not in astraml("logs", job_id, "--level", "ERROR").stdout.replace("lost", "")
        assert astraml("logs", job_id, "--attempt", "2").stdout == ""
        lines = objects(astraml("logs", "latest", "--output", "json").stdout)
        assert [line["id"] for line in lines] == [1, 2, 3, 4, 5]
        assert {"id", "attempt", "rank", "level", "at", "sequence", "text"} <= set(lines[0])

    def test_follow(self, astraml: Astraml, service: LiveService, job_id: str) -> None:
        def write() -> None:
            for number in range(1, 5):
                service.log(job_id, f"line {number}", first=number)
                time.sleep(0.05)
            service.move(job_id, "cancelled")

        threading.Thread(target=write).start()
        lines = astraml("logs", job_id, "-f").stdout.splitlines()
        assert lines == [f"rank 0 | line {number}" for number in range(1, 5)]
        assert len(objects(astraml("logs", job_id, "-f", "--output", "json").stdout)) == 4


def test_events(astraml: Astraml, service: LiveService, job_id: str) -> None:
    service.move(job_id, "starting", "running", "cancelled")
    lines = astraml("events", job_id).stdout.splitlines()
    assert [line.split()[3] for line in lines] == ["job_created", "job_starting", "job_running", "job_cancelled"]
    assert astraml("events", job_id, "-f").stdout.splitlines() == lines
    events = objects(astraml("events", job_id, "--output", "json").stdout)
    assert [set(event) for event in events] == [{"seq", "at", "type", "message", "data"}] * 4


class TestMetrics:
    @pytest.fixture
    def measured(self, service: LiveService, job_id: str) -> str:
        begin = time.time() - 3000
        loss = [(begin + 3 * step, step, 2 - step / 1000) for step in range(1000)]
        loss[500] = (loss[500][0], 500, float("nan"))
        rate = [(at, step, 1e-5) for at, step, _ in loss]
        windows = {name: collect(points, 30).values() for name, points in (("train/loss", loss), ("train/lr", rate))}
        with service.store.write() as conn:
            merge_windows(conn, job_id, windows)
        return job_id

    def test_table_where_there_is_no_terminal(self, astraml: Astraml, measured: str) -> None:
        lines = astraml("metrics", measured).stdout.splitlines()
        assert lines[1].split()[:6] == ["train/loss", "1.001", "1.001", "2", "0–999", "1000"]
        assert "1 NaN, step" in lines[1]
        assert lines[-1] == "windows of 30s over 2000 points"
        assert astraml("metrics", measured, "train/lr", "--resolution", "1h").stdout.count("train/") == 1

    def test_json(self, astraml: Astraml, client: Client, measured: str) -> None:
        found = json.loads(astraml("metrics", measured, "--output", "json", "--resolution", "5m").stdout)
        assert found == client.metrics(measured, resolution="5m")
        assert found["resolution"] == "5m"
        part = json.loads(astraml("metrics", measured, "train/loss", "--from-step", "900", "--output", "json").stdout)
        assert [one["name"] for one in part["series"]] == ["train/loss"]
        assert part["series"][0]["points"] < 200

    def test_none_yet(self, astraml: Astraml, job_id: str) -> None:
        assert "no metrics" in astraml("metrics", job_id).stdout

    def test_charts(self, client: Client, measured: str) -> None:
        series = client.metrics(measured)["series"]
        (loss,) = draw_charts(series, width=80, named=False, colour=False)
        lines = loss.splitlines()
        assert lines[0] == "▚ train/loss"
        assert all(len(line) <= 80 for line in lines)
        assert "2┤" in loss
        assert "\x1b" not in loss
        assert len(draw_charts(series, width=80, named=True)) == 2
        assert draw_charts(series, width=20, named=True) == []
        one = [{**series[0], "windows": series[0]["windows"][:1]}]
        assert draw_charts(one, width=80, named=True) == []


def test_download(
    astraml: Astraml, service: LiveService, job_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / "config.json").write_text("{}")
    service.move(job_id, "starting", "running", "succeeded", run_path=str(tmp_path / "run"))
    assert astraml("download", job_id).stdout == f"1 file, 2 B, in {tmp_path / job_id / 'model'}\n"
    assert (tmp_path / job_id / "model" / "config.json").read_text() == "{}"
    told = json.loads(astraml("download", "latest", "model/", "--to", "here", "--output", "json").stdout)
    assert (told["to"], told["bytes"]) == (str(tmp_path / "here"), 2)
    assert (tmp_path / "here" / "config.json").exists()
    assert "there is model" in astraml("download", job_id, "nothing", code=30).stderr
