"""`astraml schedule`, and `astraml submit` of a spec with a schedule."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from astraml_ray.client import Client
from astraml_ray.client.failures import ApiError
from tests.client.conftest import Astraml

SPEC = """
name: n-{{ scheduled_time:%Y-%m-%d }}
project_id: p-demo
dataset: s3://bucket/{{ scheduled_time:%Y-%m-%d }}/
model: tiny-bert
schedule: {cron: "30 2 * 3,10 0", timezone: Europe/Berlin}
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC)
    return str(path)


@pytest.fixture
def schedule_id(astraml: Astraml, file: str) -> str:
    return str(json.loads(astraml("submit", "-f", file, "--output", "json").stdout)["id"])


def test_submit_makes_a_schedule_and_shows_its_next_times(astraml: Astraml, client: Client, file: str) -> None:
    done = astraml("submit", "-f", file, "--set", "schedule.overlap=allow", "--follow")
    lines = done.stdout.splitlines()
    (made,) = client.schedules.list()
    assert lines[0] == f"{made['id']} active"
    times = lines[lines.index("next times") + 1 :]
    assert len(times) == 5
    assert all(line[13:18] in ("02:30", "03:00") and "UTC)" in line for line in times), times
    assert ("  ! the clocks go" in done.stdout) == any(
        one["mark"] for one in client.schedules.next(made["id"], count=5)
    )
    assert "no end to wait for" in done.stderr
    spec = client.schedules.get(made["id"])["spec"]
    assert spec["name"] == "n-{{ scheduled_time:%Y-%m-%d }}"
    assert spec["dataset"] == {"path": "s3://bucket/{{ scheduled_time:%Y-%m-%d }}/"}
    assert (made["schedule"]["overlap"], list(client.list_jobs())) == ("allow", [])


def test_what_is_wrong_is_told_before_anything_is_sent(astraml: Astraml, client: Client, file: str) -> None:
    wrong = astraml("submit", "-f", file, "--set", "schedule.cron=0 0 30 2 *", code=10)
    assert "/schedule/cron" in wrong.stderr
    unknown = astraml("submit", "-f", file, "--set", "name={{ now }}", code=10)
    assert "/name" in unknown.stderr
    assert list(client.schedules.list()) == []


def test_the_verbs(astraml: Astraml, client: Client, schedule_id: str) -> None:
    assert schedule_id in astraml("schedule", "list", "--project", "p-demo").stdout
    assert len(astraml("schedule", "next", schedule_id, "--count", "12").stdout.splitlines()) == 12
    marked = astraml("schedule", "next", schedule_id, "--count", "12").stdout
    assert "comes twice" in marked
    assert "forward" in marked
    paused = astraml("schedule", "pause", schedule_id, "--reason", "holidays").stdout
    assert paused.startswith(f"{schedule_id} paused by ")
    assert ": holidays" in paused
    ran = astraml("schedule", "run-now", schedule_id, "--idempotency-key", "k")
    job_id = ran.stdout.split()[0]
    assert astraml("schedule", "run-now", schedule_id, "--idempotency-key", "k").stdout == ran.stdout
    assert schedule_id in astraml("show", job_id).stdout
    assert client.get_job(job_id)["status"] == "queued"
    other = client.submit({"project_id": "p-demo", "dataset": "s3://b/d", "model": "bert-base"})["id"]
    listed = json.loads(astraml("list", "--schedule", schedule_id, "--output", "json").stdout)["data"]
    assert [job["id"] for job in listed] == [job_id]
    assert {job["id"] for job in client.list_jobs()} == {job_id, other}
    assert "no such jobs" in astraml("list", "--schedule", schedule_id, "--status", "failed").stdout
    assert "there is no schedule 'sch-0'" in astraml("list", "--schedule", "sch-0", code=10).stderr
    assert astraml("schedule", "resume", schedule_id).stdout.startswith(f"{schedule_id} active\n")
    times = ("--from", "2026-03-01T00:00:00Z", "--to", "2026-03-31T00:00:00Z")
    planned = astraml("schedule", "backfill", schedule_id, *times)
    assert "5 jobs will be made; 0 times" in planned.stdout
    key = planned.stderr.split("idempotency key ")[1].split()[0]
    again = astraml("schedule", "backfill", schedule_id, *times, "--idempotency-key", key)
    assert again.stdout == planned.stdout
    shown = astraml("schedule", "show", schedule_id).stdout
    assert f"manual  {job_id}" in shown
    assert shown.count("waiting") == 5
    assert len(json.loads(astraml("schedule", "show", schedule_id, "--output", "json").stdout)["occurrences"]) == 6
    assert "its jobs stay" in astraml("schedule", "delete", schedule_id).stdout
    gone = astraml("schedule", "show", schedule_id, code=10)
    assert "there is no schedule" in gone.stderr
    assert "there is no schedule" in astraml("schedule", "list").stdout
    assert client.get_job(job_id)["status"] == "queued"


def test_the_client_makes_one_schedule_of_one_key(client: Client) -> None:
    spec = {"dataset": "s3://b/d", "model": "tiny-bert", "schedule": {"cron": "0 2 * * *"}}
    first, second = (client.schedules.create(spec, idempotency_key="k") for _ in range(2))
    assert first == second
    with pytest.raises(ApiError) as caught:
        client.schedules.backfill(first["id"], "2026-03-01T00:00:00Z", "2100-03-01T00:00:00Z")
    assert caught.value.code == "invalid_parameter"
