"""What a project may have at once, and in a week. Pure.

A job that can never have what it asks for is refused when it is submitted; one that only comes too early waits in the
queue, and is told for what. GPU-hours count over the last seven days, whichever they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from astraml_ray.access.denials import QuotaExceededError, QuotaExhaustedError
from astraml_ray.store.access import GpuTime
from astraml_ray.store.access_tables import ORGANISATION
from astraml_ray.store.projects import QuotaRecord

__all__ = ["WEEK_S", "Quota", "Usage", "Verdict", "decide", "decide_all", "gpu_hours", "require_submit", "usage_of"]

WEEK_S = 7 * 86400.0


@dataclass(frozen=True)
class Quota:
    """The most that one scope may have; None is no bound."""

    scope: str
    gpus_at_once: int | None = None
    jobs_at_once: int | None = None
    gpu_hours_per_week: float | None = None

    @classmethod
    def of(cls, record: QuotaRecord | None) -> Quota | None:
        """Of the store's row."""
        if record is None:
            return None
        return cls(record.scope, record.gpus_at_once, record.jobs_at_once, record.gpu_hours_per_week)

    @property
    def name(self) -> str:
        """In a sentence."""
        return "the organisation" if self.scope == ORGANISATION else f"project {self.scope}"


@dataclass(frozen=True)
class Usage:
    """What a scope has now, and GPU time that ended within the last week or still runs."""

    gpus: float = 0
    jobs: int = 0
    times: Sequence[GpuTime] = ()


@dataclass(frozen=True)
class Verdict:
    """Whether a job may start.

    Attributes:
        decision: Start it, leave it in the queue, or refuse it for good.
        message: Whose quota stands in the way, and what is taken of it.
        retry_at: When GPU-hours are back, at the earliest; None where only the end of other jobs helps.
    """

    decision: Literal["admit", "wait", "never"]
    message: str | None = None
    retry_at: float | None = None


_ADMIT = Verdict("admit")


def usage_of(times: Iterable[GpuTime]) -> Usage:
    """What is held now, as far as GPU time tells: jobs on CPUs hold zero GPUs, and count as jobs."""
    all_times = tuple(times)
    running = [time for time in all_times if time.finished_at is None]
    return Usage(sum(time.gpus for time in running), len({time.job_id for time in running}), all_times)


def gpu_hours(times: Iterable[GpuTime], *, now: float, window_s: float = WEEK_S) -> float:
    """GPU-hours within the last `window_s` seconds; what still runs counts until now."""
    seconds = 0.0
    for time in times:
        begin, end = max(time.started_at, now - window_s), min(now, time.finished_at or now)
        seconds += time.gpus * max(0.0, end - begin)
    return seconds / 3600


def decide(quota: Quota | None, usage: Usage, *, gpus: int, now: float) -> Verdict:
    """Whether a job of so many GPUs may start under one quota.

    Args:
        quota: None has no bounds.
        usage: Of the quota's scope, without this job.
        gpus: What the job takes while it runs.
        now: Seconds since the epoch.
    """
    if quota is None:
        return _ADMIT
    if quota.gpus_at_once is not None and gpus > quota.gpus_at_once:
        return Verdict("never", f"{quota.name} may have {quota.gpus_at_once} GPUs at once; the job wants {gpus}")
    if quota.jobs_at_once is not None and quota.jobs_at_once < 1:
        return Verdict("never", f"{quota.name} may run no jobs")
    if quota.gpu_hours_per_week is not None and gpus and quota.gpu_hours_per_week <= 0:
        return Verdict("never", f"{quota.name} may use no GPUs")
    if quota.jobs_at_once is not None and usage.jobs >= quota.jobs_at_once:
        return Verdict("wait", f"{quota.name} runs {usage.jobs} of its {quota.jobs_at_once} jobs at once")
    if quota.gpus_at_once is not None and usage.gpus + gpus > quota.gpus_at_once:
        taken = f"{usage.gpus:g} of its {quota.gpus_at_once} GPUs at once"
        return Verdict("wait", f"{quota.name} has {taken}; the job wants {gpus}")
    if quota.gpu_hours_per_week is not None and gpus:
        return _week(quota.gpu_hours_per_week, quota.name, usage.times, now)
    return _ADMIT


def decide_all(scopes: Iterable[tuple[Quota | None, Usage]], *, gpus: int, now: float) -> Verdict:
    """As `decide`, under several quotas at once: the hardest verdict counts."""
    verdicts = [decide(quota, usage, gpus=gpus, now=now) for quota, usage in scopes]
    for decision in ("never", "wait"):
        found = [verdict for verdict in verdicts if verdict.decision == decision]
        if found:
            retries = [verdict.retry_at for verdict in found if verdict.retry_at is not None]
            # All of them must let it through.
            return Verdict(found[0].decision, found[0].message, max(retries) if len(retries) == len(found) else None)
    return _ADMIT


def require_submit(verdict: Verdict, *, now: float, may_wait: bool = True) -> None:
    """Does nothing for a job that may start, or may wait in the queue.

    Raises:
        QuotaExceededError: It could never start.
        QuotaExhaustedError: It cannot start now, and the caller does not want it queued.
    """
    message = verdict.message or "the quota is used up"
    if verdict.decision == "never":
        hint = "ask for fewer GPUs, or an org_admin for a greater quota"
        raise QuotaExceededError(message, param="/resources/gpus", hint=hint)
    if verdict.decision == "wait" and not may_wait:
        wait_s = max(1.0, verdict.retry_at - now) if verdict.retry_at is not None else None
        raise QuotaExhaustedError(message, hint="try again later, or let it queue", retry_after=wait_s)


def _week(bound: float, name: str, times: Sequence[GpuTime], now: float) -> Verdict:
    used = gpu_hours(times, now=now)
    if used < bound:
        return _ADMIT
    retry_at = _back_at(bound, times, now)
    return Verdict("wait", f"{name} has used {used:.1f} of its {bound:g} GPU-hours of seven days", retry_at)


def _back_at(bound: float, times: Sequence[GpuTime], now: float) -> float:
    """When enough GPU time is older than a week, if nothing more is used meanwhile."""
    ended = [time if time.finished_at is not None else _ended(time, now) for time in times]
    early, late = now, now + WEEK_S
    for _ in range(50):  # the hours left fall with time: halve
        middle = (early + late) / 2
        early, late = (early, middle) if gpu_hours(ended, now=middle) < bound else (middle, late)
    return late


def _ended(time: GpuTime, now: float) -> GpuTime:
    return GpuTime(time.job_id, time.attempt, time.project_id, time.gpus, time.started_at, now)
