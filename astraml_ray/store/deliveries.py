"""What webhooks are told: kept in the transaction that it tells of, found when it is due, and how each try went."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, insert, or_, select, update

from astraml_ray.spec.webhook import TEST_EVENT
from astraml_ray.store.messages import Message, body_of
from astraml_ray.store.records import new_id
from astraml_ray.store.webhook_tables import PENDING, deliveries, delivery_attempts, webhooks
from astraml_ray.store.webhooks import WebhookRecord

__all__ = [
    "KEPT_S",
    "AttemptRow",
    "DeliveryRecord",
    "add_attempt",
    "add_delivery",
    "due_deliveries",
    "due_webhooks",
    "find_delivery",
    "list_attempt_rows",
    "list_deliveries",
    "prune_deliveries",
    "send_again",
    "set_delivery",
]

KEPT_S = 30 * 86400.0
"""How long a message is kept, sent or not."""
_BATCH = 500


@dataclass(frozen=True)
class DeliveryRecord:
    """A message to one webhook; the columns are explained in webhook_tables.py."""

    id: str
    webhook_id: str
    event: str
    subject: str | None
    body: str
    status: str
    created_at: float
    next_at: float | None
    first_at: float | None
    tries: int
    attempts: int
    finished_at: float | None
    last_status: int | None
    last_error: str | None


@dataclass(frozen=True)
class AttemptRow:
    """A try, from 1 on; `at` is in seconds since the epoch."""

    delivery_id: str
    number: int
    at: float
    took_s: float
    http_status: int | None
    error: str | None
    response: str | None


def add_delivery(conn: Connection, webhook: WebhookRecord, message: Message, *, style: str, now: float) -> str:
    """Keeps a message for a webhook, to be sent as soon as this transaction is written; returns its id."""
    row = {
        "id": new_id("msg", now),
        "webhook_id": webhook.id,
        "event": message.event,
        "subject": message.subject,
        "body": body_of(message, style),
        "status": "pending",
        "created_at": now,
        "next_at": now,
        "tries": 0,
        "attempts": 0,
    }
    conn.execute(insert(deliveries).values(row))
    return str(row["id"])


def find_delivery(conn: Connection, webhook_id: str, delivery_id: str, *, lock: bool = False) -> DeliveryRecord | None:
    """A message of a webhook, or None; locked until the transaction ends."""
    query = select(deliveries).where(deliveries.c.webhook_id == webhook_id, deliveries.c.id == delivery_id)
    row = conn.execute(query.with_for_update() if lock else query).mappings().one_or_none()
    return DeliveryRecord(**row) if row else None


def list_deliveries(
    conn: Connection, webhook_id: str, *, status: str | None = None, before_id: str | None = None, limit: int
) -> list[DeliveryRecord]:
    """A page of a webhook's messages, the newest first."""
    query = select(deliveries).where(deliveries.c.webhook_id == webhook_id)
    if status is not None:
        query = query.where(deliveries.c.status == status)
    if before_id is not None:
        query = query.where(deliveries.c.id < before_id)
    rows = conn.execute(query.order_by(deliveries.c.id.desc()).limit(limit)).mappings()
    return [DeliveryRecord(**row) for row in rows]


def list_attempt_rows(conn: Connection, delivery_id: str, *, limit: int = 1000) -> list[AttemptRow]:
    """The tries of a message, the latest first."""
    query = select(delivery_attempts).where(delivery_attempts.c.delivery_id == delivery_id)
    rows = conn.execute(query.order_by(delivery_attempts.c.number.desc()).limit(limit)).mappings()
    return [AttemptRow(**row) for row in rows]


def due_webhooks(conn: Connection, now: float) -> list[str]:
    """Those that something is to be sent to now, who has waited longest first; a test also while it is off or held."""
    rested = or_(webhooks.c.hold_until.is_(None), webhooks.c.hold_until <= now)
    awake = or_(webhooks.c.disabled_at.is_(None) & rested, deliveries.c.event == TEST_EVENT)
    query = (
        select(deliveries.c.webhook_id)
        .join(webhooks, webhooks.c.id == deliveries.c.webhook_id)
        .where(PENDING, deliveries.c.next_at <= now, awake)
        .group_by(deliveries.c.webhook_id)
        .order_by(func.min(deliveries.c.next_at))
    )
    return list(conn.execute(query).scalars())


def due_deliveries(
    conn: Connection, webhook: WebhookRecord, now: float, *, but: Collection[str], limit: int
) -> list[DeliveryRecord]:
    """What is to be sent to a webhook now, the longest due first, without what is under way."""
    query = select(deliveries).where(PENDING, deliveries.c.webhook_id == webhook.id, deliveries.c.next_at <= now)
    if webhook.disabled_at is not None or webhook.held(now):
        query = query.where(deliveries.c.event == TEST_EVENT)
    if but:
        query = query.where(deliveries.c.id.not_in(list(but)))
    rows = conn.execute(query.order_by(deliveries.c.next_at, deliveries.c.id).limit(limit)).mappings()
    return [DeliveryRecord(**row) for row in rows]


def set_delivery(conn: Connection, delivery_id: str, **values: Any) -> None:
    """Sets columns of a message."""
    conn.execute(update(deliveries).where(deliveries.c.id == delivery_id).values(values))


def send_again(conn: Connection, delivery: DeliveryRecord, *, now: float) -> None:
    """Lets a message be sent once more, with its id, and with all its time."""
    values: Mapping[str, Any] = {"status": "pending", "next_at": now, "first_at": None, "tries": 0}
    set_delivery(conn, delivery.id, **values, finished_at=None)


def add_attempt(conn: Connection, row: AttemptRow) -> None:
    """Notes how a try went."""
    conn.execute(insert(delivery_attempts).values(vars(row)))


def prune_deliveries(conn: Connection, *, now: float) -> int:
    """Deletes a batch of the messages that are past their time. Returns how many; 0: none left."""
    query = select(deliveries.c.id).where(deliveries.c.created_at < now - KEPT_S).order_by(deliveries.c.created_at)
    old = list(conn.execute(query.limit(_BATCH)).scalars())
    if old:
        conn.execute(delete(delivery_attempts).where(delivery_attempts.c.delivery_id.in_(old)))
        conn.execute(delete(deliveries).where(deliveries.c.id.in_(old)))
    return len(old)
