"""Telling webhooks: whatever happens keeps its messages in its own transaction, so that none is lost or made twice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, Row, select

from astraml_ray.spec.webhook import Webhook, event_of
from astraml_ray.store.deliveries import add_delivery
from astraml_ray.store.messages import Message
from astraml_ray.store.plain import iso_time
from astraml_ray.store.statements import upsert
from astraml_ray.store.tables import job_labels, jobs
from astraml_ray.store.webhook_tables import webhook_alerts, webhooks
from astraml_ray.store.webhooks import WebhookRecord, keep_webhook, listeners

__all__ = ["tell_of_condition", "tell_of_job", "tell_of_schedule"]

_ERROR = ("code", "class", "message", "param", "hint", "retryable")


def tell_of_job(
    conn: Connection, job_id: str, event_type: str, *, now: float, message: str | None, data: Mapping[str, Any] | None
) -> None:
    """Tells of one of a job's events, if it is one that is told."""
    if event_of(event_type, sweep=False) is None:
        return
    # Where nobody listens, this is all that it costs.
    query = select(jobs.c.project_id).join(webhooks, webhooks.c.project_id == jobs.c.project_id)
    heard = query.where(jobs.c.id == job_id, webhooks.c.disabled_at.is_(None)).limit(1)
    if conn.execute(heard).first() is None:
        return
    job = conn.execute(select(jobs).where(jobs.c.id == job_id)).one()
    event = event_of(event_type, sweep=bool(job.spec.get("sweep")), reason=job.reason)
    labels = _labels_of(conn, job_id)
    for record, spec in listeners(conn, job.project_id, lock=True) if event else ():
        if spec.wants(str(event), labels):
            told = _of_job(str(event), job, labels, at=now, text=message, more={"event": _event_data(data)})
            add_delivery(conn, record, told, style=spec.format, now=now)


def tell_of_schedule(
    conn: Connection,
    schedule: Any,
    what: str,
    *,
    now: float,
    message: str | None = None,
    data: Mapping[str, Any] | None = None,
) -> None:
    """Tells of a schedule.

    Args:
        conn: A transaction that writes.
        schedule: Its record.
        what: Such as "paused".
        now: Seconds since the epoch.
        message: For people.
        data: For programs.
    """
    event, name = f"schedule.{what}", schedule.name or schedule.id
    about = {"id": schedule.id, "name": schedule.name, "owner": schedule.subject, "timing": schedule.timing}
    for record, spec in listeners(conn, schedule.project_id, lock=True):
        if spec.wants(event):
            shown = {"schedule": about, "event": dict(data or {})}
            told = Message(event, now, schedule.project_id, schedule.id, name, message, shown)
            add_delivery(conn, record, told, style=spec.format, now=now)


def tell_of_condition(
    conn: Connection,
    record: WebhookRecord,
    spec: Webhook,
    job_id: str,
    event: str,
    *,
    key: str,
    message: str,
    data: Mapping[str, Any],
    now: float,
) -> bool:
    """Tells one webhook of a condition of a job, if it was not told yet.

    Args:
        conn: A transaction that writes.
        record: The webhook.
        spec: What it wants.
        job_id: The job.
        event: Such as "metric.not_finite".
        key: The condition, and what made it come; nothing is told twice under one key.
        message: For people.
        data: For programs.
        now: Seconds since the epoch.

    Returns:
        Whether it is told now.
    """
    job = conn.execute(select(jobs).where(jobs.c.id == job_id)).one()
    labels = _labels_of(conn, job_id)
    if not spec.covers(labels) or not keep_webhook(conn, record.id):
        return False
    row = {"webhook_id": record.id, "job_id": job_id, "key": key[:255], "at": now}
    first = upsert(conn, webhook_alerts).values(row).on_conflict_do_nothing().returning(webhook_alerts.c.key)
    if conn.execute(first).first() is None:
        return False
    told = _of_job(event, job, labels, at=now, text=message, more={"condition": dict(data)})
    add_delivery(conn, record, told, style=spec.format, now=now)
    return True


def _of_job(
    event: str, job: Row[Any], labels: Mapping[str, str], *, at: float, text: str | None, more: Mapping[str, Any]
) -> Message:
    progress = job.progress or {}
    about = {
        "id": job.id,
        "name": job.name,
        "status": job.status,
        "reason": job.reason,
        "labels": dict(labels),
        "attempts": job.attempt,
        "created_at": iso_time(job.created_at),
        "started_at": iso_time(job.started_at),
        "finished_at": iso_time(job.finished_at),
        "step": progress.get("step"),
        "total_steps": progress.get("total_steps"),
        "parent_id": job.parent_id,
        "error": _some(job.error, _ERROR),
        "model_path": (job.result or {}).get("model_path"),
        "path": f"/v2.1/jobs/{job.id}",
    }
    title = job.id if job.name is None else f"{job.name} ({job.id})"
    why = ": ".join(part for part in (job.reason, text) if part) or None
    return Message(event, at, job.project_id, job.id, title, why, {"job": about, **more})


def _event_data(data: Mapping[str, Any] | None) -> dict[str, Any]:
    """What of an event's data is of bounded size."""
    given = data or {}
    flat = {key: value for key, value in given.items() if value is None or isinstance(value, (str, int, float))}
    return {key: value[:2000] if isinstance(value, str) else value for key, value in flat.items()}


def _some(given: Mapping[str, Any] | None, names: Iterable[str]) -> dict[str, Any] | None:
    if given is None:
        return None
    found = {name: given[name] for name in names if name in given}
    return {name: value[:2000] if isinstance(value, str) else value for name, value in found.items()}


def _labels_of(conn: Connection, job_id: str) -> dict[str, str]:
    rows = conn.execute(select(job_labels).where(job_labels.c.job_id == job_id))
    return {row.key: row.value for row in rows}
