"""What a sweep tells of its trials, stored: a row each, written again as they go on, and few events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from astraml_ray.store.events import append_event
from astraml_ray.store.jobs import JobRecord, update_job
from astraml_ray.store.trials import (
    ENDED,
    SweepRecord,
    TrialRecord,
    best_trial,
    count_trials,
    find_sweep,
    find_trial,
    save_sweep,
    save_trial,
)

__all__ = [
    "TrialEvent",
    "events_between",
    "is_news",
    "store_sweep",
    "store_sweep_result",
    "store_trials",
    "sweep_progress",
    "trial_record",
]

_LONGEST_HISTORY = 200
_AS_TOLD = (
    "metric",
    "best_metric",
    "best_step",
    "step",
    "epoch",
    "rung",
    "reason",
    "error",
    "run_path",
    "parent",
    "started_at",
    "ended_at",
)
_MOST_TOLD = 32
"""Parameters in one event."""


@dataclass(frozen=True)
class TrialEvent:
    """An event of the job about one of its trials."""

    type: str
    at: float
    message: str
    data: dict[str, Any]


def trial_record(job_id: str, told: Mapping[str, Any]) -> TrialRecord:
    """A trial as a sweep tells it."""
    same: dict[str, Any] = {name: told.get(name) for name in _AS_TOLD}
    costs: dict[str, Any] = {name: float(told.get(name) or 0.0) for name in ("seconds", "gpu_seconds", "cpu_seconds")}
    return TrialRecord(
        job_id=job_id,
        trial_id=str(told["trial_id"]),
        number=int(told["number"]),
        status=str(told["status"]),
        parameters=dict(told.get("parameters") or {}),
        history=[list(point) for point in told.get("history") or ()][-_LONGEST_HISTORY:],
        **same,
        **costs,
    )


def is_news(before: TrialRecord | None, now: TrialRecord) -> bool:
    """Whether what is told of a trial takes the place of what is known.

    A sweep that begins again tells again of its trials that have ended. One that has ended stays so, unless it was
    started later than that, or has gone further: then the sweep has taken it up again.
    """
    if before is None or before.status not in ENDED or now.status in ENDED:
        return True
    began_again = (now.started_at or 0.0) > max(before.started_at or 0.0, before.ended_at or 0.0)
    return began_again or (now.step or 0) > (before.step or 0)


def events_between(before: TrialRecord | None, after: TrialRecord, *, now: float) -> list[TrialEvent]:
    """The events of a job that a trial's change amounts to: its start, and its end."""
    was = before.status if before else None
    events = []
    started = after.status == "running" or (after.status in ENDED and after.started_at is not None)
    if started and was != "running" and was != after.status:
        chosen = dict(list(after.parameters.items())[:_MOST_TOLD])
        message = f"trial {after.trial_id} started: {', '.join(f'{k}={v}' for k, v in chosen.items())}"[:500]
        data = {"trial_id": after.trial_id, "number": after.number, "parameters": chosen}
        events.append(TrialEvent("trial_started", after.started_at or now, message, data))
    if after.status in ENDED and was != after.status:
        events.append(TrialEvent("trial_ended", after.ended_at or now, _end_words(after), _end_data(after)))
    return events


def sweep_progress(counts: Mapping[str, int], planned: int | None, best: TrialRecord | None) -> dict[str, Any]:
    """How far a sweep is, in the terms of a job's progress: the part of its trials that have ended."""
    ended = sum(counts[status] for status in ENDED)
    told = sum(counts.values())
    total = max(planned or 0, told)
    return {
        "step": None,
        "total_steps": None,
        "epoch": None,
        "epochs": None,
        "fraction": ended / total if total else None,
        "eta_s": None,
        "metrics": {},
        "trials": {"ended": ended, "running": counts["running"], "planned": planned},
        "best_trial": best.trial_id if best else None,
        "best_metric": best.best_metric if best else None,
    }


def store_sweep(conn: Connection, job_id: str, told: Mapping[str, Any]) -> None:
    """Stores what a sweep is after: `metric`, `mode`, `trials` (how many, or all of them), `algorithm`, `scheduler`."""
    trials = told.get("trials")
    planned = trials if isinstance(trials, int) else None
    known = find_sweep(conn, job_id)
    if planned is None and known is not None:
        planned = known.planned
    words = {name: _word(told.get(name)) for name in ("metric", "mode", "algorithm", "scheduler")}
    record = SweepRecord(job_id, planned=planned, **words)
    if record != known:
        save_sweep(conn, record)


def store_trials(conn: Connection, job: JobRecord, told: Sequence[Mapping[str, Any]], *, now: float) -> None:
    """Stores trials as a runner tells them, the events of those that started or ended, and the job's progress."""
    if not told:
        return
    sweep = find_sweep(conn, job.id)
    mode = sweep.mode if sweep else (job.spec.get("sweep") or {}).get("mode")
    for one in told:
        record = trial_record(job.id, one)
        before = find_trial(conn, job.id, record.trial_id)
        if not is_news(before, record):
            continue
        save_trial(conn, record, mode=mode)
        for event in events_between(before, record, now=now):
            append_event(conn, job.id, event.type, now=event.at, message=event.message, data=event.data)
    progress = sweep_progress(count_trials(conn, job.id), sweep.planned if sweep else None, best_trial(conn, job.id))
    update_job(conn, job.id, progress=progress)


def store_sweep_result(conn: Connection, job: JobRecord, result: dict[str, Any], *, now: float) -> dict[str, Any]:
    """Stores the trials of a sweep's result in their table; the result without them, as the job keeps it."""
    sweep = result.get("sweep")
    if not isinstance(sweep, Mapping):
        return result
    store_sweep(conn, job.id, sweep)
    store_trials(conn, job, sweep.get("trials") or (), now=now)
    return {**result, "sweep": {name: value for name, value in sweep.items() if name != "trials"}}


def _word(value: Any) -> str | None:
    """Algorithms and schedulers are told by name, or as an object that has one."""
    if isinstance(value, Mapping):
        value = value.get("type") or value.get("name")
    return None if value is None else str(value)[:64]


def _end_words(trial: TrialRecord) -> str:
    value = "" if trial.best_metric is None else f" with {trial.best_metric:.6g}"
    why = f": {trial.reason}" if trial.reason else ""
    return f"trial {trial.trial_id} {trial.status}{value}{why}"[:500]


def _end_data(trial: TrialRecord) -> dict[str, Any]:
    data = {"trial_id": trial.trial_id, "number": trial.number, "status": trial.status, "reason": trial.reason}
    data |= {"best_metric": trial.best_metric, "step": trial.step, "rung": trial.rung, "seconds": trial.seconds}
    code = (trial.error or {}).get("code")
    return data if code is None else {**data, "code": code}
