"""Webhooks at work: what is due is sent by threads, and how that went is written by the controller.

A message is sent at least once. While it is under way only this process knows of that: should it die, the next one
sends the message again, with the same id.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from astraml_ray.access.denials import SecretKeyError
from astraml_ray.access.webhooks import Opened, open_webhooks
from astraml_ray.control.courier import Courier
from astraml_ray.control.deliveries import Reply, Verdict, headers_of, judge
from astraml_ray.control.secrets import keys_for
from astraml_ray.errors import StoreError
from astraml_ray.store.audit import Actor
from astraml_ray.store.deliveries import (
    AttemptRow,
    DeliveryRecord,
    add_attempt,
    due_deliveries,
    due_webhooks,
    find_delivery,
    set_delivery,
)
from astraml_ray.store.engine import Store
from astraml_ray.store.leases import Lease
from astraml_ray.store.webhooks import WebhookRecord, change_webhook, find_webhook, hold_webhook, list_webhooks

__all__ = ["Notifier"]

_LOG = logging.getLogger(__name__)
_SERVICE = Actor("service")
_KEPT_ERROR = 500


@dataclass(frozen=True)
class _Flight:
    """A message that is under way."""

    webhook: WebhookRecord
    sent_at: float
    reply: Future[Reply]


class Notifier:
    """Sends what is due.

    Args:
        store: The truth.
        courier: Sends one message.
        key_file: The master keys.
        lease: Gives the lease that every write is under.
        wake: Called when an answer is there.
        threads: Messages under way at once.
        per_project: Of one project, at most; so one project's slow receivers hold up no other's.
        per_webhook: Of one webhook, at most.
    """

    def __init__(
        self,
        store: Store,
        courier: Courier,
        key_file: Path | None,
        lease: Callable[[], Lease],
        *,
        wake: Callable[[], None] = lambda: None,
        threads: int = 32,
        per_project: int = 8,
        per_webhook: int = 2,
    ) -> None:
        self._store = store
        self._courier = courier
        self._key_file = key_file
        self._lease = lease
        self._wake = wake
        self._most = (threads, per_project, per_webhook)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="webhook")
        self._flights: dict[str, _Flight] = {}

    def look(self, now: float) -> None:
        """One pass: writes how tries went that are over, and begins those that are due. It waits for no receiver."""
        try:
            self._settle_all(now)
            self._begin_due(now)
        except StoreError:
            raise
        except Exception:
            # Jobs go on, whatever is the matter with a webhook.
            _LOG.exception("webhooks")

    def close(self) -> None:
        """Begins nothing more. What is under way is sent again by the next process."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _begin_due(self, now: float) -> None:
        if len(self._flights) >= self._most[0]:
            return
        with self._store.read() as conn:
            ids = due_webhooks(conn, now)
            order = {webhook_id: place for place, webhook_id in enumerate(ids)}
            known = sorted(list_webhooks(conn, ids=ids), key=lambda one: order[one.id]) if ids else []
            begun: list[tuple[WebhookRecord, DeliveryRecord, Opened | Reply]] = []
            for webhook in known:
                room = self._room(webhook, [one for one, _, _ in begun])
                due = due_deliveries(conn, webhook, now, but=self._flights, limit=room) if room > 0 else []
                opened = self._open(conn, webhook, now) if due else None
                begun += [(webhook, delivery, opened) for delivery in due if opened is not None]
        for webhook, delivery, way in begun:
            self._send(webhook, delivery, way, now)

    def _room(self, webhook: WebhookRecord, begun: list[WebhookRecord]) -> int:
        """How many more may be sent to a webhook."""
        busy = [*(flight.webhook for flight in self._flights.values()), *begun]
        by_project, by_webhook = Counter(one.project_id for one in busy), Counter(one.id for one in busy)
        taken = (len(busy), by_project[webhook.project_id], by_webhook[webhook.id])
        return min(most - count for most, count in zip(self._most, taken, strict=True))

    def _open(self, conn: Connection, webhook: WebhookRecord, now: float) -> Opened | Reply:
        """What is needed to send; where the master key is lost, that is how the try went."""
        try:
            opened = open_webhooks(conn, keys_for(conn, self._key_file), [webhook], now=now)
        except SecretKeyError as error:
            return Reply(None, error.message)
        return opened.get(webhook.id) or Reply(None, "the webhook has no address")

    def _send(self, webhook: WebhookRecord, delivery: DeliveryRecord, way: Opened | Reply, now: float) -> None:
        if isinstance(way, Reply):
            reply: Future[Reply] = Future()
            reply.set_result(way)
        else:
            body = delivery.body.encode()
            headers = headers_of(delivery.id, body, way.keys, now=now)
            reply = self._pool.submit(self._courier.send, way.url, headers, body)
            reply.add_done_callback(lambda _: self._wake())
        self._flights[delivery.id] = _Flight(webhook, now, reply)

    def _settle_all(self, now: float) -> None:
        for delivery_id, flight in list(self._flights.items()):
            if not flight.reply.done():
                continue
            reply = _reply_of(flight.reply)
            try:
                self._settle(delivery_id, flight, reply, now)
            except StoreError:
                raise
            except Exception as error:
                # What came back cannot be kept: it goes on as after any failure, and the others with it.
                _LOG.exception("how the message %s went", delivery_id)
                self._settle(delivery_id, flight, Reply(None, _of_the_service(error)), now)
            del self._flights[delivery_id]

    def _settle(self, delivery_id: str, flight: _Flight, reply: Reply, now: float) -> None:
        with self._store.write(self._lease()) as conn:
            _settle(conn, delivery_id, flight, reply, now)


def _settle(conn: Connection, delivery_id: str, flight: _Flight, reply: Reply, now: float) -> None:
    """Writes how a try went; nothing, if the webhook was deleted meanwhile."""
    # As it is now: it may have been changed since, or deleted and made anew.
    webhook = find_webhook(conn, flight.webhook.project_id, flight.webhook.name, lock=True)
    delivery = find_delivery(conn, flight.webhook.id, delivery_id, lock=True)
    if webhook is None or webhook.id != flight.webhook.id or delivery is None:
        return
    attempt = delivery.attempts + 1
    took, error = round(reply.took_s, 3), (reply.error or "")[:_KEPT_ERROR] or None
    add_attempt(conn, AttemptRow(delivery.id, attempt, flight.sent_at, took, reply.status, error, reply.text))
    values: dict[str, Any] = {"attempts": attempt, "last_status": reply.status, "last_error": reply.reason}
    if delivery.status == "pending":
        verdict = judge(delivery, reply, now=now)
        first_at = flight.sent_at if delivery.first_at is None else delivery.first_at
        values |= {"first_at": first_at, "tries": delivery.tries + 1}
        values |= {"status": verdict.status, "next_at": verdict.next_at}
        values |= {"finished_at": None if verdict.status == "pending" else now}
        _apply(conn, webhook, verdict, now)
    set_delivery(conn, delivery.id, **values)


def _apply(conn: Connection, webhook: WebhookRecord, verdict: Verdict, now: float) -> None:
    """What a verdict means for the webhook itself."""
    if verdict.hold_until is not None:
        hold_webhook(conn, webhook.id, verdict.hold_until)
    if verdict.gone and webhook.disabled_at is None:
        reason = "the receiver answered 410 Gone"
        change_webhook(
            conn,
            webhook,
            actor=_SERVICE,
            now=now,
            verb="disabled",
            document={**webhook.document, "enabled": False},
            disabled_at=now,
            disabled_reason=reason,
        )


def _reply_of(future: Future[Reply]) -> Reply:
    try:
        return future.result()
    except Exception as error:
        _LOG.exception("a webhook's message")
        return Reply(None, _of_the_service(error))


def _of_the_service(error: Exception) -> str:
    return f"an error of the service: {type(error).__name__}"
