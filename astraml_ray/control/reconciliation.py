"""What the controller should do next, from what the store and the cluster say. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from astraml_ray.access.quotas import Quota
from astraml_ray.control.admission import Capacity, Demand, Hold, Start, Waiting, admit
from astraml_ray.control.allowances import Allowances, Holder
from astraml_ray.spec.base import seconds_of
from astraml_ray.spec.job import Resources
from astraml_ray.spec.placement import Placement
from astraml_ray.spec.states import ACTIVE, JobStatus
from astraml_ray.spec.sweep import Sweep
from astraml_ray.store.access import GpuTime
from astraml_ray.store.jobs import JobRecord

__all__ = [
    "Action",
    "Admit",
    "End",
    "Explain",
    "Kill",
    "Launch",
    "deadline_message",
    "deadline_passed",
    "decide",
    "held_by_nobody",
    "stop_mode",
    "taken_by",
    "trials_wanted",
]

_NOW_GRACE_S = 9.0
_KEEP_BEST_GRACE_S = 300.0


@dataclass(frozen=True)
class Admit:
    """A queued job gets its share of the cluster: the placement, for so many trials at once."""

    job: JobRecord
    placement: Placement
    trials: int = 1


@dataclass(frozen=True)
class Explain:
    """A queued job waits for another reason than before."""

    job: JobRecord
    wait: dict[str, Any]


@dataclass(frozen=True)
class Launch:
    """An admitted job has no runner: it never had one, or lost it."""

    job: JobRecord


@dataclass(frozen=True)
class End:
    """A job ends without its runner having said so."""

    job: JobRecord
    status: JobStatus
    reason: str
    message: str


@dataclass(frozen=True)
class Kill:
    """A runner is left of a job that has ended."""

    job_id: str


Action = Admit | Explain | Launch | End | Kill


def decide(
    jobs: Sequence[JobRecord],
    runners: Collection[str],
    cluster: Capacity,
    *,
    now: float,
    quotas: Mapping[str, Quota] | None = None,
    times: Mapping[str, Sequence[GpuTime]] | None = None,
) -> list[Action]:
    """One pass over all jobs that have not ended.

    Args:
        jobs: All that are queued, starting or running.
        runners: Ids of the jobs whose runner is there.
        cluster: Its `free_…` are of what others than these jobs leave.
        now: Seconds since the epoch.
        quotas: By scope.
        times: GPU time of the last week, by scope, where a quota counts it.
    """
    actions: list[Action] = []
    active = [job for job in jobs if job.status in ACTIVE]
    queued = [job for job in jobs if job.status is JobStatus.QUEUED]
    for job in active:
        if overdue := _overdue(job, now):
            actions.append(overdue)
        elif job.id not in runners:
            actions.append(Launch(job))
    late = [end for job in queued if (end := _timed_out(job, now))]
    actions += late
    ended = {end.job.id for end in late}
    waiting = [_waiting(job) for job in queued if job.id not in ended]
    by_id = {job.id: job for job in queued}
    holders = [Holder(job.project_id, taken_by(job).gpus) for job in active]
    allowances = Allowances.of(quotas or {}, holders, times or {}, now=now)
    for decision in admit(waiting, _free(cluster, active), now=now, allowances=allowances):
        job = by_id[decision.job_id]
        if isinstance(decision, Start):
            actions.append(Admit(job, decision.placement, decision.trials))
        elif (wait := _wait(decision)) != job.wait:
            actions.append(Explain(job, wait))
    known = {job.id for job in active}
    actions += [Kill(job_id) for job_id in sorted(runners) if job_id not in known]
    return actions


def stop_mode(job: JobRecord, now: float) -> str | None:
    """How a job's runner should stop: `now`, `keep_best`, or not at all."""
    if job.cancel_mode:
        return job.cancel_mode
    return "now" if deadline_passed(job, now) else None


def trials_wanted(spec: Mapping[str, Any]) -> int:
    """How many trials a job may have at once: as its sweep says, else all of them; 1 without a sweep."""
    return _most_at_once(json.dumps(spec["sweep"])) if spec.get("sweep") else 1


@lru_cache(maxsize=1024)
def _most_at_once(sweep: str) -> int:
    """Of a sweep as JSON: jobs that wait are looked at again and again."""
    try:
        return Sweep.model_validate_json(sweep).most_at_once
    except ValueError:
        return 1  # an earlier release took it; its runner says what is wrong with it now, and nobody else waits for it


def taken_by(job: JobRecord) -> Demand:
    """What an active job has of the cluster."""
    placement = job.placement or {}
    return Demand(float(placement.get("cpus", 0.0)), float(placement.get("gpus", 0.0)))


def held_by_nobody(times: Iterable[GpuTime], jobs: Iterable[JobRecord]) -> list[str]:
    """The jobs whose GPU time still runs although they hold nothing any more: whoever ended them died meanwhile."""
    active = {job.id for job in jobs if job.status in ACTIVE}
    return sorted({time.job_id for time in times if time.finished_at is None} - active)


def _free(cluster: Capacity, active: Sequence[JobRecord]) -> Capacity:
    """What admitted jobs and others on the cluster leave, also of jobs whose workers have not started yet."""
    ours = [taken_by(job) for job in active]
    cpus, gpus = sum(demand.cpus for demand in ours), sum(demand.gpus for demand in ours)
    return replace(
        cluster,
        free_cpus=min(cluster.free_cpus, cluster.cpus - cpus) if cpus else cluster.free_cpus,
        free_gpus=min(cluster.free_gpus, cluster.gpus - gpus) if gpus else cluster.free_gpus,
    )


def _waiting(job: JobRecord) -> Waiting:
    resources = Resources.model_validate_json(json.dumps(job.spec["resources"]))
    trials = trials_wanted(job.spec)
    return Waiting(job.id, resources, job.priority, job.queued_at, job.not_before, job.project_id, trials)


def _wait(hold: Hold) -> dict[str, Any]:
    return {"message": hold.message, "would_start_with": hold.would_start_with}


def _timed_out(job: JobRecord, now: float) -> End | None:
    limit = job.spec["limits"].get("queue_timeout")
    if limit is None or job.started_at is not None or now - job.created_at < seconds_of(limit):
        return None
    why = f": {job.wait['message']}" if job.wait else ""
    return End(job, JobStatus.FAILED, "queue_timeout", f"did not start within limits.queue_timeout ({limit}){why}")


def deadline_passed(job: JobRecord, now: float) -> bool:
    """Whether the job has run for longer than its `limits.max_duration`."""
    limit = job.spec["limits"].get("max_duration")
    return limit is not None and job.started_at is not None and now - job.started_at >= seconds_of(limit)


def _overdue(job: JobRecord, now: float) -> End | None:
    """The end of a job whose runner was asked to stop, and did not."""
    if job.cancel_mode and job.cancel_requested_at is not None:
        grace = _KEEP_BEST_GRACE_S if job.cancel_mode == "keep_best" else _NOW_GRACE_S
        if now - job.cancel_requested_at < grace:
            return None
        message = "stopped by force: the last checkpoint is what is left of it"
        return End(job, JobStatus.CANCELLED, "cancelled", message)
    if deadline_passed(job, now - _NOW_GRACE_S * 2):
        return End(job, JobStatus.FAILED, "deadline_exceeded", deadline_message(job.spec["limits"]))
    return None


def deadline_message(limits: dict[str, Any]) -> str:
    """What a job is told that ran out of time."""
    return f"was stopped after limits.max_duration ({limits['max_duration']}); go on with a longer one: clone or resume"
