"""Whether a condition of a webhook has come, from what is known of a job. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from astraml_ray.spec.base import seconds_of
from astraml_ray.spec.webhook import Condition
from astraml_ray.store.jobs import JobRecord
from astraml_ray.store.plain import iso_time

__all__ = [
    "RESOLUTION_S",
    "SWEEP_BEST",
    "Finding",
    "deadline_finding",
    "not_finite_findings",
    "not_finite_names",
    "not_finite_trials",
    "stall_finding",
    "trial_findings",
]

RESOLUTION_S = 300
"""Of the windows in which the best value is looked for; they are kept for 90 days."""
SWEEP_BEST = "sweep/best"
"""All that a sweep's own job measures; the metrics of its trials are theirs."""
_EARLY = 0.05
"""Of the allowed time: before, the pace is mostly warming up."""
_NUMERIC = "train/loss"


@dataclass(frozen=True)
class Finding:
    """A condition that has come.

    Attributes:
        event: What it is told as.
        key: The same for as long as it is the same thing.
        message: For people.
        data: For programs.
    """

    event: str
    key: str
    message: str
    data: Mapping[str, Any] = field(default_factory=dict)


def not_finite_names(report: Mapping[str, Any]) -> list[str]:
    """The metrics of a runner's report with values that are NaN or infinite, also where the run has failed for that."""
    names = {
        name
        for name, windows in report["windows"].items()
        if any(window["nan_count"] or window["inf_count"] for window in windows)
    }
    errors = [event["data"].get("error") for event in report["events"] if event["type"] == "attempt_failed"]
    errors.append((report.get("end") or {}).get("error"))
    if any(error and error.get("code") == "numeric" for error in errors):
        names.add(_NUMERIC)
    return sorted(names)


def not_finite_findings(condition: Condition, names: Collection[str], *, attempt: int) -> list[Finding]:
    """Told once of each metric and attempt."""
    if condition.when != "not_finite":
        return []
    wanted = [name for name in names if condition.metric in (None, name)]
    return [_not_finite(name, f"{name}:{attempt}", name, attempt=attempt) for name in wanted]


def not_finite_trials(report: Mapping[str, Any]) -> list[str]:
    """The trials of a sweep's report that have failed for a value that is NaN or infinite."""
    failed = [trial for trial in report.get("trials") or () if trial["status"] == "failed"]
    return [str(trial["trial_id"]) for trial in failed if (trial.get("error") or {}).get("code") == "numeric"]


def trial_findings(condition: Condition, trials: Collection[str]) -> list[Finding]:
    """Told once of each trial."""
    if condition.when != "not_finite" or condition.metric not in (None, _NUMERIC):
        return []
    return [
        _not_finite(_NUMERIC, f"{_NUMERIC}:trial:{one}", f"{_NUMERIC} of trial {one}", trial_id=one) for one in trials
    ]


def stall_finding(
    condition: Condition, best: tuple[float, int] | None, *, started_at: float, now: float
) -> Finding | None:
    """Told once for each best value that nothing has followed.

    Args:
        condition: A `no_improvement`.
        best: The best value so far, and the start of the window that had it first; None if there is none.
        started_at: When the job began; without a value, the time counts from there.
        now: Seconds since the epoch.
    """
    # The end of the window: it is told up to five minutes late, never early.
    since = started_at if best is None else float(best[1] + RESOLUTION_S)
    if now - since < seconds_of(condition.for_):
        return None
    was = "it has no value at all" if best is None else f"the best was {best[0]:.6g}"
    data = {
        "when": "no_improvement",
        "metric": condition.metric,
        "for": condition.for_,
        "best": None if best is None else best[0],
        "since": iso_time(since),
    }
    key = f"no_improvement:{condition.metric}:{condition.for_}:{int(since)}"
    return Finding(
        "metric.no_improvement", key, f"{condition.metric}: nothing better for {condition.for_}; {was}", data
    )


def deadline_finding(job: JobRecord, *, now: float) -> Finding | None:
    """Told once of a job that will not have ended within its `limits.max_duration`, at the pace that it has."""
    limit = (job.spec.get("limits") or {}).get("max_duration")
    bounds = (job.progress or {}).get("eta_s")
    if limit is None or not bounds or job.started_at is None or job.heartbeat_at is None:
        return None
    allowed_s = seconds_of(limit)
    deadline = job.started_at + allowed_s
    soonest, latest = (job.heartbeat_at + float(seconds) for seconds in bounds)
    if latest <= deadline or now >= deadline or now - job.started_at < _EARLY * allowed_s:
        return None
    unless = ", unless it stops early" if soonest <= deadline else ""
    message = f"at its pace it ends {latest - deadline:.0f} s after limits.max_duration ({limit}){unless}"
    data = {
        "when": "deadline_will_be_missed",
        "max_duration": limit,
        "deadline": iso_time(deadline),
        "expected_end": iso_time(latest),
        "may_stop_early": bool(unless),
    }
    return Finding("job.deadline_will_be_missed", f"deadline:{limit}", message, data)


def _not_finite(metric: str, key: str, what: str, **more: Any) -> Finding:
    data = {"when": "not_finite", "metric": metric, **more}
    return Finding("metric.not_finite", f"not_finite:{key}", f"{what} is NaN or infinite", data)
