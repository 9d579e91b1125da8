"""What a new policy would have made of past jobs."""

from __future__ import annotations

from typing import Any

from astraml_ray.access.effective import InForce, apply_policies, request_of
from astraml_ray.access.policies import parse_policy
from astraml_ray.access.replay import PastJob, replay


def policy(version: int, **rules: Any) -> InForce:
    return InForce("project", version, parse_policy({"rules": rules}))


def past(job_id: str, under: InForce | None, **request: Any) -> PastJob:
    outcome = apply_policies({"dataset": "d", "model": "m", **request}, project=under)
    return PastJob(job_id, request_of(outcome.provenance), outcome.document)


def test_jobs_are_counted_as_changed_rejected_or_neither() -> None:
    old = policy(1, **{"resources.gpus": {"max": 4, "on_violation": "clamp"}})
    jobs = [
        past("a", old, resources={"gpus": 8}),
        past("b", old, resources={"gpus": 1}),
        past("c", old, resources={"gpus": 2}, labels={"team": "x"}),
    ]
    assert str(replay(jobs, project=old)) == "of 3 jobs, 0 would have changed and 0 been rejected"
    # With the old cap gone, what was asked for counts again.
    report = replay(jobs, project=policy(2, **{"resources.gpus": {"max": 6, "on_violation": "clamp"}}))
    assert [(job.id, [(c.path, c.before, c.after) for c in job.changes]) for job in report.changed] == [
        ("a", [("resources.gpus", 4, 6)])
    ]
    required = replay(jobs, project=policy(3, **{"labels.team": {"require": True}, "resources.gpus": {"max": 4}}))
    assert [job.id for job in required.rejected] == ["a", "b"]
    assert {problem.param for problem in required.rejected[0].problems} == {"/labels/team", "/resources/gpus"}
    assert [job.id for job in required.changed] == []
    assert required.total == 3


def test_a_new_default_changes_only_what_nobody_set() -> None:
    jobs = [past("a", None), past("b", None, hyperparams={"batch_size": 32})]
    report = replay(jobs, project=policy(1, **{"hyperparams.batch_size": {"default": 64}}))
    assert [job.id for job in report.changed] == ["a"]


def test_a_job_that_would_no_longer_be_valid_is_rejected() -> None:
    job = past("a", None, resources={"workers": 2})
    report = replay([job], project=policy(1, **{"resources.gpus": {"force": 4}}))
    assert [found.id for found in report.rejected] == ["a"]
