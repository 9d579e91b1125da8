"""Webhooks and what is encrypted for them: made, found, changed, deleted. Every change leaves its audit row."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, Select, delete, select, update

from astraml_ray.spec.webhook import Webhook
from astraml_ray.store.audit import Actor, append_audit
from astraml_ray.store.records import new_id
from astraml_ray.store.statements import upsert
from astraml_ray.store.webhook_tables import (
    deliveries,
    delivery_attempts,
    webhook_alerts,
    webhook_secrets,
    webhooks,
)

__all__ = [
    "SealedValue",
    "WebhookRecord",
    "add_value",
    "audit_webhook",
    "change_webhook",
    "create_webhook",
    "delete_webhook",
    "expire_keys",
    "find_webhook",
    "hold_webhook",
    "keep_webhook",
    "list_values",
    "list_webhooks",
    "listeners",
    "new_webhook_id",
    "replace_sealed",
    "values_of_other_keys",
]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class WebhookRecord:
    """A webhook's row; the columns are explained in webhook_tables.py."""

    id: str
    project_id: str
    name: str
    document: dict[str, Any]
    address: str
    created_at: float
    created_by: str
    updated_at: float
    disabled_at: float | None = None
    disabled_reason: str | None = None
    hold_until: float | None = None

    def held(self, now: float) -> bool:
        """Whether the receiver wants a rest."""
        return self.hold_until is not None and self.hold_until > now

    def spec(self) -> Webhook | None:
        """What it wants to be told; None if a newer release wrote it in a way that this one does not know."""
        try:
            return Webhook.model_validate_json(json.dumps({**self.document, "name": self.name}))
        except ValidationError:
            _LOG.warning("webhook %s of %s cannot be read: a newer release wrote it", self.name, self.project_id)
            return None


@dataclass(frozen=True)
class SealedValue:
    """Something encrypted: a webhook's address, or one of its signing keys."""

    webhook_id: str
    kind: str
    version: int
    value: bytes
    key_id: str
    created_at: float
    expires_at: float | None

    def counts(self, now: float) -> bool:
        """Whether it has not expired."""
        return self.expires_at is None or self.expires_at > now

    def __repr__(self) -> str:
        return f"SealedValue({self.webhook_id} {self.kind} v{self.version})"


def new_webhook_id(now: float) -> str:
    """An identifier that sorts by time: `wh-`, and twenty characters as a job's."""
    return new_id("wh", now)


def create_webhook(conn: Connection, record: WebhookRecord, *, actor: Actor) -> bool:
    """Makes a webhook; False if the project has one of that name."""
    query = upsert(conn, webhooks).values(vars(record)).on_conflict_do_nothing()
    if conn.execute(query.returning(webhooks.c.id)).first() is None:
        return False
    after = {**record.document, "address": record.address}
    audit_webhook(conn, "created", record, actor=actor, now=record.created_at, after=after)
    return True


def find_webhook(conn: Connection, project_id: str, name: str, *, lock: bool = False) -> WebhookRecord | None:
    """The webhook of a name, or None; locked until the transaction ends, but not against being told things."""
    query = select(webhooks).where(webhooks.c.project_id == project_id, webhooks.c.name == name)
    row = conn.execute(query.with_for_update(key_share=True) if lock else query).mappings().one_or_none()
    return WebhookRecord(**row) if row else None


def list_webhooks(
    conn: Connection, *, project_id: str | None = None, ids: Collection[str] | None = None
) -> list[WebhookRecord]:
    """Webhooks by name: of a project, or those of ids."""
    query = select(webhooks).order_by(webhooks.c.project_id, webhooks.c.name)
    if project_id is not None:
        query = query.where(webhooks.c.project_id == project_id)
    if ids is not None:
        query = query.where(webhooks.c.id.in_(list(ids)))
    return [WebhookRecord(**row) for row in conn.execute(query).mappings()]


def listeners(conn: Connection, project_id: str, *, lock: bool = False) -> list[tuple[WebhookRecord, Webhook]]:
    """Those of a project that are to be told things, with what; locked, none is deleted before the transaction ends."""
    query = select(webhooks).where(webhooks.c.project_id == project_id, webhooks.c.disabled_at.is_(None))
    query = query.order_by(webhooks.c.id)
    found = [WebhookRecord(**row) for row in conn.execute(_kept(query) if lock else query).mappings()]
    return [(record, spec) for record in found if (spec := record.spec()) is not None]


def keep_webhook(conn: Connection, webhook_id: str) -> bool:
    """Whether a webhook is still to be told things; it is not deleted before the transaction ends."""
    query = select(webhooks.c.id).where(webhooks.c.id == webhook_id, webhooks.c.disabled_at.is_(None))
    return conn.execute(_kept(query)).first() is not None


def change_webhook(
    conn: Connection, before: WebhookRecord, *, actor: Actor, now: float, verb: str = "changed", **values: Any
) -> None:
    """Sets columns of a webhook. What the receiver itself has caused has the actor `service`."""
    conn.execute(update(webhooks).where(webhooks.c.id == before.id).values(**values, updated_at=now))
    shown = {key: value for key, value in values.items() if key != "hold_until"}
    known = {key: getattr(before, key) for key in shown}
    audit_webhook(conn, verb, before, actor=actor, now=now, before=known, after=shown)


def hold_webhook(conn: Connection, webhook_id: str, until: float) -> None:
    """Sends it nothing before a time."""
    conn.execute(update(webhooks).where(webhooks.c.id == webhook_id).values(hold_until=until))


def delete_webhook(conn: Connection, record: WebhookRecord, *, actor: Actor, now: float) -> None:
    """Takes a webhook away, with its keys, and all that it was told or is still to be told."""
    # Whoever tells it something just now is waited for, and whoever comes later does not find it.
    conn.execute(select(webhooks.c.id).where(webhooks.c.id == record.id).with_for_update())
    own = select(deliveries.c.id).where(deliveries.c.webhook_id == record.id)
    conn.execute(delete(delivery_attempts).where(delivery_attempts.c.delivery_id.in_(own)))
    for table in (deliveries, webhook_alerts, webhook_secrets):
        conn.execute(delete(table).where(table.c.webhook_id == record.id))
    conn.execute(delete(webhooks).where(webhooks.c.id == record.id))
    before = {**record.document, "address": record.address}
    audit_webhook(conn, "deleted", record, actor=actor, now=now, before=before)


def audit_webhook(
    conn: Connection, verb: str, record: WebhookRecord, *, actor: Actor, now: float, **changes: Any
) -> None:
    """Notes what was done with a webhook."""
    scope, target = record.project_id, record.name
    append_audit(conn, f"webhook.{verb}", actor=actor, scope=scope, target=target, now=now, **changes)


def add_value(conn: Connection, value: SealedValue) -> None:
    """Keeps something encrypted."""
    conn.execute(webhook_secrets.insert().values(vars(value)))


def list_values(conn: Connection, webhook_ids: Collection[str]) -> list[SealedValue]:
    """All that is encrypted for some webhooks, the newest of each kind first."""
    query = select(webhook_secrets).where(webhook_secrets.c.webhook_id.in_(list(webhook_ids)))
    order = (webhook_secrets.c.webhook_id, webhook_secrets.c.kind, webhook_secrets.c.version.desc())
    return [SealedValue(**row) for row in conn.execute(query.order_by(*order)).mappings()]


def expire_keys(conn: Connection, webhook_id: str, kind: str, *, keep: int | None, expires_at: float) -> None:
    """Lets the version `keep` end at a time, and drops those before it; None drops all."""
    mine = [webhook_secrets.c.webhook_id == webhook_id, webhook_secrets.c.kind == kind]
    if keep is not None:
        kept = webhook_secrets.c.version == keep
        conn.execute(update(webhook_secrets).where(*mine, kept).values(expires_at=expires_at))
        mine.append(webhook_secrets.c.version < keep)
    conn.execute(delete(webhook_secrets).where(*mine))


def values_of_other_keys(conn: Connection, key_id: str, *, limit: int) -> list[tuple[SealedValue, str]]:
    """What another master key encrypted, and the project that it is of."""
    query = (
        select(webhook_secrets, webhooks.c.project_id)
        .join(webhooks, webhooks.c.id == webhook_secrets.c.webhook_id)
        .where(webhook_secrets.c.key_id != key_id)
        .order_by(webhook_secrets.c.webhook_id, webhook_secrets.c.kind, webhook_secrets.c.version)
        .limit(limit)
    )
    rows = [dict(row) for row in conn.execute(query).mappings()]
    projects = [row.pop("project_id") for row in rows]
    return [(SealedValue(**row), project) for row, project in zip(rows, projects, strict=True)]


def replace_sealed(conn: Connection, old: SealedValue, *, value: bytes, key_id: str) -> None:
    """Puts the same thing under another master key, if it is still there."""
    query = update(webhook_secrets).where(
        webhook_secrets.c.webhook_id == old.webhook_id,
        webhook_secrets.c.kind == old.kind,
        webhook_secrets.c.version == old.version,
        webhook_secrets.c.key_id == old.key_id,
    )
    conn.execute(query.values(value=value, key_id=key_id))


def _kept(query: Select[Any]) -> Select[Any]:
    return query.with_for_update(read=True, key_share=True)
