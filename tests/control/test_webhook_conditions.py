"""Conditions of webhooks: told once, and again only when they have come anew."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from astraml_ray.store.jobs import update_job
from tests.control.webhook_site import Site
from tests.receiver import Receiver


def conditions(site: Site, receiver: Receiver, *given: dict[str, Any], **fields: Any) -> None:
    site.add(receiver.url(), events=[], conditions=list(given), **fields)


def findings(site: Site) -> list[tuple[str, str]]:
    return [(one.event, json.loads(one.body)["data"]["message"]) for one in site.told()]


def test_a_loss_that_is_not_finite_is_told_once_of_each_attempt(site: Site, receiver: Receiver) -> None:
    conditions(site, receiver, {"when": "not_finite", "metric": "validation/loss"}, labels={"team": "a"})
    other, job_id = site.running(), site.running(labels={"team": "a"})
    for one in (other, job_id):
        site.report(one, {"validation/loss": [(site.now, 1, 0.5)], "x": [(site.now, 1, math.nan)]})
    assert findings(site) == []
    for step in (2, 3):
        for one in (other, job_id):
            site.report(one, {"validation/loss": [(site.now, step, math.nan)]})
    assert findings(site) == [("metric.not_finite", "validation/loss is NaN or infinite")]
    with site.store.write() as conn:
        update_job(conn, job_id, attempt=2)
    site.report(job_id, {"validation/loss": [(site.now, 4, math.inf)]})
    assert [event for event, _ in findings(site)] == ["metric.not_finite"] * 2
    site.settle()
    assert receiver.got[0].json["data"]["condition"]["metric"] == "validation/loss"
    assert receiver.got[0].json["data"]["job"]["id"] == job_id


def test_a_run_that_fails_for_its_loss_is_told_too(site: Site, receiver: Receiver) -> None:
    """The loop raises before it records such a loss."""
    conditions(site, receiver, {"when": "not_finite"})
    job_id = site.running()
    error = {"code": "numeric", "message": "the loss is not finite at step 3"}
    site.report(job_id, end={"status": "failed", "reason": "numeric", "message": "m", "error": error, "result": None})
    assert findings(site) == [("metric.not_finite", "train/loss is NaN or infinite")]


def test_no_improvement_for_two_hours_is_told_once_until_there_is_one(site: Site, receiver: Receiver) -> None:
    conditions(site, receiver, {"when": "no_improvement", "metric": "validation/loss", "for": "2h"})
    job_id = site.running()

    def score(value: float, seconds: float) -> None:
        site.tick(seconds)
        site.report(job_id, {"validation/loss": [(site.now, 1, value)]})

    score(0.5, 60)
    score(0.4, 600)
    for _ in range(7):
        score(0.45, 1000)
    site.tick(61)
    assert findings(site) == []
    score(0.41, 700)
    site.tick(61)
    told = [("metric.no_improvement", "validation/loss: nothing better for 2h; the best was 0.4")]
    assert findings(site) == told
    for _ in range(5):
        site.tick(3600)
    assert findings(site) == told
    score(0.3, 60)
    site.tick(3600)
    assert findings(site) == told
    site.tick(3600 + 400)
    assert len(findings(site)) == 2
    site.move(job_id, "succeeded")
    site.tick(9999)
    assert len(findings(site)) == 2


def test_a_deadline_that_will_be_missed(site: Site, receiver: Receiver) -> None:
    conditions(site, receiver, {"when": "deadline_will_be_missed"})
    late = site.running(limits={"max_duration": "1h"})
    site.running()

    def progress(soonest: float, latest: float) -> None:
        site.report(late, progress={"step": 5, "total_steps": 100, "eta_s": [soonest, latest], "metrics": {}})

    progress(9000, 9000)
    site.tick(61)
    assert findings(site) == [], "the first steps tell nothing about the pace"
    site.now += 239
    progress(3000, 3300)
    site.tick(61)
    assert findings(site) == []
    progress(3000, 4000)
    site.tick(61)
    (told,) = findings(site)
    assert told[0] == "job.deadline_will_be_missed"
    assert "761 s after limits.max_duration (1h), unless it stops early" in told[1]
    site.tick(61)
    assert len(findings(site)) == 1


def test_many_jobs_are_looked_at_in_turns(site: Site, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("astraml_ray.control.watching._JOBS", 5)
    conditions(site, receiver, {"when": "no_improvement", "metric": "m", "for": "10m"})
    for _ in range(7):
        site.running()
    site.tick(601)
    assert len(findings(site)) == 5
    site.tick(1)
    assert len(findings(site)) == 7
