"""Webhooks and their messages as the API shows them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from astraml_ray.api.answers import iso_time
from astraml_ray.spec.webhook import TEST_EVENT
from astraml_ray.store.deliveries import AttemptRow, DeliveryRecord
from astraml_ray.store.webhooks import SealedValue, WebhookRecord

__all__ = ["delivery_object", "delivery_view", "webhook_path", "webhook_view"]


def webhook_path(webhook: WebhookRecord) -> str:
    """Where a webhook is."""
    return f"/v2.1/projects/{quote(webhook.project_id, safe='')}/webhooks/{quote(webhook.name, safe='')}"


def webhook_view(webhook: WebhookRecord, sealed: Iterable[SealedValue], *, now: float) -> dict[str, Any]:
    """The webhook object.

    Args:
        webhook: Its row.
        sealed: What is encrypted for it, the newest first.
        now: Seconds since the epoch.
    """
    place, document = webhook_path(webhook), webhook.document
    keys = [one for one in sealed if one.kind == "signing" and one.counts(now)]
    return {
        "name": webhook.name,
        "project_id": webhook.project_id,
        "address": webhook.address,
        "events": document.get("events", []),
        "conditions": document.get("conditions", []),
        "format": document.get("format", "standard"),
        "labels": document.get("labels", {}),
        "enabled": webhook.disabled_at is None,
        "disabled_at": iso_time(webhook.disabled_at),
        "disabled_reason": webhook.disabled_reason,
        "held_until": iso_time(webhook.hold_until) if webhook.held(now) else None,
        "keys": [
            {"version": one.version, "created_at": iso_time(one.created_at), "expires_at": iso_time(one.expires_at)}
            for one in keys
        ],
        "created_at": iso_time(webhook.created_at),
        "created_by": webhook.created_by,
        "updated_at": iso_time(webhook.updated_at),
        "links": {"self": place, "deliveries": f"{place}/deliveries", "test": f"{place}/test"},
    }


def delivery_view(delivery: DeliveryRecord, webhook: WebhookRecord) -> dict[str, Any]:
    """A message, as in lists."""
    place = f"{webhook_path(webhook)}/deliveries/{delivery.id}"
    return {
        "id": delivery.id,
        "event": delivery.event,
        "subject": delivery.subject,
        "status": delivery.status,
        "created_at": iso_time(delivery.created_at),
        "next_at": iso_time(_next_at(delivery, webhook)),
        "attempts": delivery.attempts,
        "finished_at": iso_time(delivery.finished_at),
        "last_status": delivery.last_status,
        "last_error": delivery.last_error,
        "links": {"self": place, "replay": f"{place}/replay"},
    }


def delivery_object(delivery: DeliveryRecord, webhook: WebhookRecord, log: Iterable[AttemptRow]) -> dict[str, Any]:
    """A message, with what was sent and how each try went."""
    return {**delivery_view(delivery, webhook), "body": delivery.body, "log": [_try_view(row) for row in log]}


def _next_at(delivery: DeliveryRecord, webhook: WebhookRecord) -> float | None:
    """When it is tried next: a test at once, all others not while the receiver wants a rest."""
    if delivery.next_at is None or delivery.event == TEST_EVENT:
        return delivery.next_at
    return max(delivery.next_at, webhook.hold_until or 0.0)


def _try_view(row: AttemptRow) -> dict[str, Any]:
    return {
        "number": row.number,
        "at": iso_time(row.at),
        "took_s": row.took_s,
        "http_status": row.http_status,
        "error": row.error,
        "response": row.response,
    }
