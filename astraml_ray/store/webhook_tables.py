"""The tables of webhooks: themselves, their secrets, what they are told, each try, and which conditions were told."""

from __future__ import annotations

from sqlalchemy import Column, Float, ForeignKey, Index, Integer, LargeBinary, Table, text

from astraml_ray.store.tables import _Json, _Plain, _PlainText, metadata

__all__ = ["PENDING", "deliveries", "delivery_attempts", "webhook_alerts", "webhook_secrets", "webhooks"]

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", _Plain(64), primary_key=True),  # what is encrypted for it is bound to it, also by a second of its name
    Column("project_id", _Plain(128), nullable=False),
    Column("name", _Plain(128), nullable=False),
    Column("document", _Json, nullable=False),  # of spec/webhook.py, without the address
    Column("address", _PlainText(), nullable=False),  # masked
    Column("created_at", Float(53), nullable=False),
    Column("created_by", _Plain(128), nullable=False),
    Column("updated_at", Float(53), nullable=False),
    Column("disabled_at", Float(53)),  # by its `enabled`, or by the receiver: it is told nothing
    Column("disabled_reason", _PlainText()),
    Column("hold_until", Float(53)),  # the receiver asked for a rest
)
Index("uq_webhooks_project_id_name", webhooks.c.project_id, webhooks.c.name, unique=True)

webhook_secrets = Table(
    "webhook_secrets",
    metadata,
    Column("webhook_id", _Plain(64), ForeignKey("webhooks.id"), primary_key=True),
    Column("kind", _Plain(16), primary_key=True),  # url | signing
    Column("version", Integer, primary_key=True),
    Column("value", LargeBinary, nullable=False),  # encrypted
    Column("key_id", _Plain(32), nullable=False, index=True),  # of the master key
    Column("created_at", Float(53), nullable=False),
    Column("expires_at", Float(53)),  # of a key that another one has followed
    sqlite_with_rowid=False,
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", _Plain(64), primary_key=True),  # the message's id at every try; sortable by time
    Column("webhook_id", _Plain(64), ForeignKey("webhooks.id"), nullable=False),
    Column("event", _Plain(64), nullable=False),
    Column("subject", _Plain(64)),  # the job or schedule that it is about
    Column("body", _PlainText(), nullable=False),  # as it is signed and sent, byte for byte
    Column("status", _Plain(16), nullable=False),  # pending | delivered | failed
    Column("created_at", Float(53), nullable=False, index=True),
    Column("next_at", Float(53)),  # of the next try; null once there is none
    Column("first_at", Float(53)),  # of the first try, from which on the tries' time counts
    Column("tries", Integer, nullable=False),  # since then
    Column("attempts", Integer, nullable=False),  # in all, over replays
    Column("finished_at", Float(53)),
    Column("last_status", Integer),  # of the last try's HTTP answer
    Column("last_error", _PlainText()),
)
Index("ix_deliveries_webhook_id_id", deliveries.c.webhook_id, deliveries.c.id)
# Those that are still to be sent are few. A query must spell the condition the same way.
PENDING = text("deliveries.status = 'pending'")
_PENDING = text("status = 'pending'")
Index(
    "ix_deliveries_pending",
    deliveries.c.webhook_id,
    deliveries.c.next_at,
    sqlite_where=_PENDING,
    postgresql_where=_PENDING,
)

delivery_attempts = Table(
    "delivery_attempts",
    metadata,
    Column("delivery_id", _Plain(64), ForeignKey("deliveries.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("at", Float(53), nullable=False),
    Column("took_s", Float(53), nullable=False),
    Column("http_status", Integer),
    Column("error", _PlainText()),
    Column("response", _PlainText()),  # the beginning of the answer's body
    sqlite_with_rowid=False,
)

webhook_alerts = Table(
    "webhook_alerts",
    metadata,
    Column("webhook_id", _Plain(64), ForeignKey("webhooks.id"), primary_key=True),
    Column("job_id", _Plain(64), ForeignKey("jobs.id"), primary_key=True),
    Column("key", _Plain(255), primary_key=True),  # the condition, and what made it come anew
    Column("at", Float(53), nullable=False),
    sqlite_with_rowid=False,
)
