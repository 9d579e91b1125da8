"""What the runners report, stored: once each, in one transaction, and only of the incarnation that counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from astraml_ray.control.losses import note_loss
from astraml_ray.control.reconciliation import deadline_message, deadline_passed, stop_mode
from astraml_ray.control.trials import store_sweep, store_sweep_result, store_trials
from astraml_ray.control.unchanged import note_dataset, trained_before
from astraml_ray.control.watching import tell_of_report
from astraml_ray.spec.states import JobStatus
from astraml_ray.store.attempts import amend_attempt, begin_attempt, end_attempt, list_attempts
from astraml_ray.store.engine import Store
from astraml_ray.store.events import append_event
from astraml_ray.store.jobs import JobRecord, change_status, find_job, get_job, update_job
from astraml_ray.store.leases import Lease
from astraml_ray.store.logs import append_lines
from astraml_ray.store.metrics import merge_windows
from astraml_ray.store.windows import Window

__all__ = ["begin_run", "store_report"]

_ABANDON = {"abandon": True, "stop": None}


def begin_run(store: Store, lease: Lease, job_id: str, runner: str, *, now: float) -> dict[str, Any]:
    """Makes a runner's incarnation the one whose reports count.

    Returns:
        The order: `spec`, `run_path`, `parent_run_path`, the failures so far, how many attempts there were, how many
        trials of a sweep it has room for at once, and what to compare the dataset with (see `trained_before`); or
        `abandon` if there is nothing to run.
    """
    with store.write(lease) as conn:
        job = find_job(conn, job_id)
        if job is None or job.status not in (JobStatus.STARTING, JobStatus.RUNNING):
            return _ABANDON
        before = list_attempts(conn, job_id)
        if job.runner is not None and job.runner != runner:
            if before and before[-1].status == "running":
                _lose_attempt(conn, job, now)
                before = list_attempts(conn, job_id)
            if not note_loss(conn, job, before, now=now):
                return _ABANDON
        update_job(conn, job_id, runner=runner, runner_seq=0, heartbeat_at=now)
        parent = find_job(conn, job.parent_id) if job.parent_id and job.relation == "resume" else None
        return {
            "abandon": False,
            "stop": stop_mode(job, now),
            "spec": job.spec,
            "run_path": job.run_path,
            "parent_run_path": parent.run_path if parent else None,
            "attempts": job.attempt,
            "failures": [attempt.error for attempt in before if attempt.error],
            "trials_at_once": (job.placement or {}).get("trials", 1),
            "trained_before": trained_before(conn, job_id),
        }


def _lose_attempt(conn: Connection, job: JobRecord, now: float) -> None:
    """The runner before this one died with its attempt."""
    step = (job.progress or {}).get("step")
    message = "the runner died; the run goes on from its last checkpoint"
    error = {
        "code": "infrastructure",
        "class": "infrastructure",
        "message": message,
        "retryable": True,
        "failed_step": None,  # dying at one step twice is no sign of a fault in the run
        "step": None,  # known to the next runner, which reads the checkpoints
    }
    end_attempt(conn, job.id, job.attempt, "failed", now=now, last_step=step, error=error)
    append_event(conn, job.id, "attempt_failed", now=now, message=message, data={"attempt": job.attempt, **error})


def store_report(
    store: Store, lease: Lease, job_id: str, runner: str, report: Mapping[str, Any], *, now: float
) -> dict[str, Any]:
    """Stores a report of a runner.

    Returns:
        `seq` (stored up to), `abandon` (this runner no longer counts) and `stop` (None, "now" or "keep_best").
    """
    with store.write(lease) as conn:
        job = find_job(conn, job_id)
        if job is None or job.runner != runner or job.status.terminal or job.status is JobStatus.QUEUED:
            return _ABANDON
        if report["seq"] > job.runner_seq:
            _apply(conn, job, report, now)
        return {"abandon": False, "seq": report["seq"], "stop": stop_mode(job, now)}


def _apply(conn: Connection, job: JobRecord, report: Mapping[str, Any], now: float) -> None:
    fields = {name: report[name] for name in ("progress", "warnings", "run_path") if name in report}
    update_job(conn, job.id, runner_seq=report["seq"], heartbeat_at=now, **fields)
    for event in report["events"]:
        _apply_event(conn, job.id, event)
    if (sweep := report.get("sweep")) is not None:
        store_sweep(conn, job.id, sweep)
    store_trials(conn, job, report.get("trials") or (), now=now)
    _append_lines(conn, job.id, report["lines"])
    if report["windows"]:
        windows = {name: [Window(**window) for window in of] for name, of in report["windows"].items()}
        if dropped := merge_windows(conn, job.id, windows):
            names = ", ".join(sorted(dropped)[:10])
            append_event(conn, job.id, "metrics_dropped", now=now, message=f"too many metric names; dropped {names}")
    tell_of_report(conn, job.id, report, now=now)
    if report.get("status") == "running" and get_job(conn, job.id).status is JobStatus.STARTING:
        change_status(conn, job.id, JobStatus.RUNNING, reason=None, message=None, now=now)
    if (end := report.get("end")) is not None:
        _end(conn, get_job(conn, job.id), end, now)


def _append_lines(conn: Connection, job_id: str, lines: list[tuple[str, dict[str, Any]]]) -> None:
    by_source: dict[str, list[dict[str, Any]]] = {}
    for source, line in lines:
        by_source.setdefault(source, []).append(line)
    for source, of_source in by_source.items():
        append_lines(conn, job_id, source, of_source)


def _apply_event(conn: Connection, job_id: str, event: Mapping[str, Any]) -> None:
    data, at = event["data"], event["at"]
    if event["type"] == "attempt_started":
        begin_attempt(conn, job_id, now=at, first_step=data["step"], micro_batch_divisor=data["divisor"])
    elif event["type"] == "attempt_failed":
        error = {**data["error"], "step": data["step"], "failed_step": data["failed_step"]}
        end_attempt(conn, job_id, data["attempt"], "failed", now=at, last_step=data["failed_step"], error=error)
    elif event["type"] == "run_resumed":
        lost = list_attempts(conn, job_id)[-1]
        amend_attempt(conn, job_id, lost.number, {**(lost.error or {}), "step": data["step"]})
    append_event(conn, job_id, event["type"], now=at, message=event["message"], data=data)


def _end(conn: Connection, job: JobRecord, end: Mapping[str, Any], now: float) -> None:
    status, reason, message = JobStatus(end["status"]), end["reason"], end["message"]
    if status is JobStatus.QUEUED:
        # The cluster is smaller than it was at admission: no fault of the job.
        change_status(
            conn,
            job.id,
            status,
            reason=reason,
            message=message,
            now=now,
            not_before=now + 5.0,
            placement=None,
            runner=None,
        )
        return
    if status is JobStatus.CANCELLED and not job.cancel_mode:
        if deadline_passed(job, now):
            status, reason, message = JobStatus.FAILED, "deadline_exceeded", deadline_message(job.spec["limits"])
        else:
            reason, message = "interrupted", f"the runner was stopped from outside: {message}"
    note_dataset(conn, job.id, end)
    result = end.get("result")
    if result:
        result = store_sweep_result(conn, job, result, now=now)
    if job.attempt:
        step = (result or {}).get("steps") or (job.progress or {}).get("step")
        of_attempt = {"succeeded": "succeeded", "cancelled": "cancelled"}.get(status.value, "failed")
        end_attempt(conn, job.id, job.attempt, of_attempt, now=now, last_step=step, error=end.get("error"))
    change_status(
        conn,
        job.id,
        status,
        reason=reason,
        message=message,
        now=now,
        result=result,
        error=end.get("error"),
        placement=None,
    )
