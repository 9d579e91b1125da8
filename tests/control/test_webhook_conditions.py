"""Conditions of webhooks: told once, and again only when they have come anew."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

import pytest

from astraml_ray.control import watching
from astraml_ray.store.jobs import update_job
from tests.control.webhook_site import Site
from tests.receiver import Receiver
from tests.sweeps import told_trials

SWEEP = {"parameters": {"hyperparams.lr": {"log_uniform": [1e-5, 1e-2]}}, "trials": 9, "metric": "validation/loss"}


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


def test_of_a_sweep_only_its_best_value_is_watched_in_its_direction(site: Site, receiver: Receiver) -> None:
    stalls = [
        {"when": "no_improvement", "metric": metric, "for": "10m"} for metric in ("validation/loss", "sweep/best")
    ]
    conditions(site, receiver, *stalls)
    job_id = site.running(sweep=SWEEP)
    site.report(job_id, {"sweep/best": [(site.now, 1, 0.5)]}, sweep={"metric": "validation/loss", "mode": "min"})
    site.tick(400)
    site.report(job_id, {"sweep/best": [(site.now, 2, 0.4)]})
    site.tick(560)
    assert findings(site) == []
    site.tick(500)
    assert findings(site) == [("metric.no_improvement", "sweep/best: nothing better for 10m; the best was 0.4")]


def test_a_trial_that_fails_for_its_loss_is_told_once(site: Site, receiver: Receiver) -> None:
    conditions(site, receiver, {"when": "not_finite", "metric": "train/loss"})
    conditions(site, receiver, {"when": "not_finite", "metric": "validation/loss"}, name="other")
    job_id = site.running(sweep=SWEEP)
    trials = told_trials(6, failed=(2, 4))
    trials[2]["error"] = {"code": "out_of_memory", "message": "m"}
    for _ in range(2):
        site.report(job_id, trials=trials)
    assert findings(site) == [("metric.not_finite", "train/loss of trial t0004 is NaN or infinite")]
    assert json.loads(site.told()[0].body)["data"]["condition"]["trial_id"] == "t0004"
    assert site.told("other") == []


def test_a_pass_reads_webhooks_once_of_a_project_and_values_once_of_a_job(
    site: Site, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: Counter[str] = Counter()

    def counted(name: str) -> None:
        real: Any = getattr(watching, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            read[name] += 1
            return real(*args, **kwargs)

        monkeypatch.setattr(watching, name, call)

    for name in ("one", "two"):
        conditions(site, receiver, {"when": "no_improvement", "metric": "m", "for": "10m"}, name=name)
    for _ in range(3):
        site.running()
    for name in ("listeners", "best_since"):
        counted(name)
    site.tick(601)
    assert read == {"listeners": 1, "best_since": 3}
    assert (len(site.told("one")), len(site.told("two"))) == (3, 3)


def test_what_cannot_be_told_ends_no_pass(site: Site, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of the pass is done, and the next one tries again."""
    conditions(site, receiver, {"when": "no_improvement", "metric": "m", "for": "10m"})
    site.running()

    def fail(*args: Any, **kwargs: Any) -> None:
        raise ValueError("told in a way that nobody thought of")

    with monkeypatch.context() as patched:
        patched.setattr(watching, "tell_of_condition", fail)
        site.tick(601)
    assert findings(site) == []
    site.tick(61)
    assert len(findings(site)) == 1
