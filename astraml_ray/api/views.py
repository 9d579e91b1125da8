"""Records as the API shows them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from astraml_ray.api.answers import iso_time
from astraml_ray.api.catalogue import entry_of
from astraml_ray.api.catalogue_entry import CatalogueEntry
from astraml_ray.spec.states import JobStatus
from astraml_ray.store.attempts import AttemptRecord
from astraml_ray.store.events import EventRecord
from astraml_ray.store.jobs import JobRecord
from astraml_ray.store.logs import LogLine
from astraml_ray.store.metrics import Series
from astraml_ray.store.windows import Window

__all__ = [
    "RESOLUTION_NAMES",
    "attempt_view",
    "catalogue_view",
    "error_view",
    "event_view",
    "is_resumable",
    "job_path",
    "job_view",
    "line_view",
    "series_view",
]

RESOLUTION_NAMES = {30: "30s", 300: "5m", 3600: "1h"}


def job_path(job_id: str) -> str:
    """Where a job is."""
    return f"/v2.1/jobs/{job_id}"


def is_resumable(job: JobRecord) -> bool:
    """Whether the job left something to go on from."""
    return job.status in (JobStatus.FAILED, JobStatus.CANCELLED) and job.run_path is not None


def job_view(
    job: JobRecord,
    *,
    submitted_by: str | None,
    occasion: tuple[str, int] | None = None,
    with_spec: bool = True,
) -> dict[str, Any]:
    """The job object; in lists without its spec. `occasion`: the schedule and instant that it was made for."""
    schedule_id, instant = occasion or (None, None)
    view: dict[str, Any] = {
        "id": job.id,
        "api_version": job.api_version,
        "project_id": job.project_id,
        "name": job.name,
        "kind": "sweep" if job.spec.get("sweep") else "training",
        "submitted_by": submitted_by,
        "status": job.status.value,
        "terminal": job.status.terminal,
        "reason": job.reason,
        "message": job.message,
        "labels": job.labels,
        "priority": job.priority,
        "effective_batch_size": _effective_batch_size(job.spec),
        "created_at": iso_time(job.created_at),
        "queued_at": iso_time(job.queued_at),
        "started_at": iso_time(job.started_at),
        "finished_at": iso_time(job.finished_at),
        "attempts": job.attempt,
        "parent_id": job.parent_id,
        "relation": job.relation,
        "schedule_id": schedule_id,
        "scheduled_time": iso_time(instant),
        "cancel_requested": job.cancel_mode,
        "wait": _with_all(_wait_of(job), {"message": None, "would_start_with": None}),
        "progress": _with_all(
            job.progress,
            {
                "step": None,
                "total_steps": None,
                "epoch": None,
                "epochs": None,
                "fraction": None,
                "eta_s": None,
                "metrics": {},
            },
        ),
        "warnings": [_with_all(warning, {"param": None, "hint": None}) for warning in job.warnings or []],
        "error": error_view(job.error),
        "result": job.result,
        "run_path": job.run_path,
        "model_path": (job.result or {}).get("model_path"),
    }
    if with_spec:
        view["spec"] = job.spec
    view["links"] = _links(job)
    return view


def _wait_of(job: JobRecord) -> dict[str, Any] | None:
    """Why it waits; the controller may have written it just when the job left the queue."""
    return job.wait if job.status is JobStatus.QUEUED else None


def attempt_view(attempt: AttemptRecord) -> dict[str, Any]:
    """One attempt."""
    return {
        "number": attempt.number,
        "status": attempt.status,
        "started_at": iso_time(attempt.started_at),
        "finished_at": iso_time(attempt.finished_at),
        "first_step": attempt.first_step,
        "last_step": attempt.last_step,
        "micro_batch_divisor": attempt.micro_batch_divisor,
        "error": error_view(attempt.error),
    }


def event_view(event: EventRecord) -> dict[str, Any]:
    """One event."""
    return {
        "seq": event.seq,
        "at": iso_time(event.at),
        "type": event.type,
        "message": event.message,
        "data": event.data,
    }


def line_view(line: LogLine) -> dict[str, Any]:
    """One log line; `dropped` counts the lines that are missing in its place."""
    return {
        "id": line.id,
        "attempt": line.attempt,
        "rank": line.rank,
        "level": line.level,
        "at": iso_time(line.at),
        "sequence": line.sequence,
        "text": line.text,
        "dropped": line.dropped,
    }


def series_view(series: Series) -> dict[str, Any]:
    """The windows of one metric."""
    return {
        "name": series.name,
        "resolution": RESOLUTION_NAMES[series.resolution],
        "points": series.points,
        "windows": [_window_view(window) for window in series.windows],
    }


def catalogue_view(entry: CatalogueEntry) -> dict[str, Any]:
    """One error code."""
    return {
        "type": f"/v2.1/errors/{entry.code}",
        "code": entry.code,
        "title": entry.title,
        "status": entry.status,
        "class": entry.error_class,
        "stage": entry.stage,
        "retryable": entry.retryable,
        "cause": entry.cause,
        "action": entry.action,
    }


def _window_view(window: Window) -> dict[str, Any]:
    return {
        "start": iso_time(window.start),
        "count": window.count,
        "mean": window.sum / window.count if window.count else None,
        "sum": window.sum,
        "sum_sq": window.sum_sq,
        "min": window.min,
        "max": window.max,
        "first": window.first,
        "last": window.last,
        "nan_count": window.nan_count,
        "inf_count": window.inf_count,
        "step_first": window.step_first,
        "step_last": window.step_last,
        "revision": window.revision,
    }


def error_view(error: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What was stored of an error, completed from the catalogue."""
    if error is None:
        return None
    entry = entry_of(str(error.get("code")))
    known = {
        "code": entry.code,
        "class": entry.error_class,
        "message": "",
        "param": None,
        "hint": entry.action,
        "retryable": entry.retryable,
    }
    return {**known, **error}


def _with_all(given: Mapping[str, Any] | None, defaults: Mapping[str, Any]) -> dict[str, Any] | None:
    return None if given is None else {**defaults, **given}


def _effective_batch_size(spec: Mapping[str, Any]) -> int | None:
    try:
        hyper = spec["hyperparams"]
        return int(hyper["batch_size"] * hyper["gradient_accumulation_steps"])
    except (KeyError, TypeError):
        return None  # a spec of another version


def _links(job: JobRecord) -> dict[str, str]:
    path = job_path(job.id)
    links = {name: f"{path}/{name}" for name in ("attempts", "events", "logs", "metrics", "artifacts", "clone")}
    if job.spec.get("sweep"):
        links |= {name: f"{path}/{name}" for name in ("sweep", "trials")}
    if not job.status.terminal:
        links["cancel"] = f"{path}/cancel"
    if is_resumable(job):
        links["resume"] = f"{path}/resume"
    if job.parent_id:
        links["parent"] = job_path(job.parent_id)
    return {"self": path, **links}
