"""Making, changing and using webhooks: each change in one transaction with its line in the audit trail."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection

from astraml_ray.access.denials import AlreadyThereError, MalformedError, NotThereError
from astraml_ray.access.secrets import KeyRing
from astraml_ray.access.targets import check_url
from astraml_ray.access.tokens import Principal
from astraml_ray.access.webhooks import put_address, put_key
from astraml_ray.api.errors import ParameterError
from astraml_ray.api.services import Services
from astraml_ray.control.secrets import seal_with
from astraml_ray.spec.webhook import TEST_EVENT, NewWebhook, Webhook, WebhookChange, masked_url
from astraml_ray.store.deliveries import DeliveryRecord, add_delivery, find_delivery, send_again
from astraml_ray.store.messages import Message
from astraml_ray.store.webhooks import (
    WebhookRecord,
    audit_webhook,
    change_webhook,
    create_webhook,
    delete_webhook,
    find_webhook,
    list_webhooks,
    new_webhook_id,
)

__all__ = ["change", "known", "known_delivery", "make", "remove", "replay", "rotate", "send_test", "warnings_of"]

_MOST = 100
_SWITCHED_OFF = "it was switched off"


def make(services: Services, principal: Principal, project_id: str, asked: NewWebhook) -> tuple[WebhookRecord, str]:
    """Makes a webhook, and its first key, which nobody gets to see again.

    Raises:
        TargetNotAllowedError: Its address must not be called.
        AlreadyThereError: The project has one of that name.
        MalformedError: The project has too many.
        SecretKeyError: The master key is lost.
    """
    check_url(asked.url, allowed=services.targets, param="/url")
    now = services.clock()
    document = {key: value for key, value in asked.canonical().items() if key not in ("url", "name")}
    record = WebhookRecord(
        id=new_webhook_id(now),
        project_id=project_id,
        name=asked.name,
        document=document,
        address=masked_url(asked.url),
        created_at=now,
        created_by=principal.subject,
        updated_at=now,
        disabled_at=None if asked.enabled else now,
        disabled_reason=None if asked.enabled else _SWITCHED_OFF,
    )

    def work(conn: Connection, ring: KeyRing) -> str:
        if len(list_webhooks(conn, project_id=project_id)) >= _MOST:
            raise MalformedError(
                f"the project has {_MOST} webhooks already", hint="delete one, or give one more events"
            )
        if not create_webhook(conn, record, actor=principal.actor):
            hint = "PATCH changes it"
            raise AlreadyThereError(f"there is a webhook {asked.name!r} already", param="/name", hint=hint)
        put_address(conn, ring, record, asked.url, now=now)
        return put_key(conn, ring, record, overlap_s=0.0, now=now)

    return record, seal_with(services.store, services.keys, work)


def warnings_of(asked: NewWebhook) -> list[str]:
    """What is odd about a webhook that can be made."""
    if asked.url.startswith("https://"):
        return []
    return ["its address is http: what is told can be read, though not changed, on the way"]


def change(services: Services, principal: Principal, project_id: str, name: str, asked: WebhookChange) -> WebhookRecord:
    """Changes what is given; messages that are kept already stay as they are, and go to the new address.

    Raises:
        NotThereError: There is none.
        ParameterError: What it would be then is no webhook.
        TargetNotAllowedError: Its address must not be called.
        SecretKeyError: It has a new address, and the master key is lost.
    """
    given = asked.model_dump(mode="json", by_alias=True, exclude_unset=True)
    url = given.pop("url", None)
    if url is not None:
        check_url(url, allowed=services.targets, param="/url")
    now = services.clock()

    def work(conn: Connection, ring: KeyRing | None) -> WebhookRecord:
        webhook = known(conn, project_id, name, lock=True)
        values: dict[str, Any] = {"document": _document(webhook, given)}
        if "enabled" in given:
            off = None if given["enabled"] else (webhook.disabled_at or now)
            values |= {"disabled_at": off, "disabled_reason": _SWITCHED_OFF if off else None, "hold_until": None}
        if ring is not None and url is not None:
            # Who asked for a rest was the receiver at the old one.
            values |= {"address": masked_url(url), "hold_until": None}
            put_address(conn, ring, webhook, url, now=now)
        change_webhook(conn, webhook, actor=principal.actor, now=now, **values)
        return replace(webhook, **values, updated_at=now)

    if url is not None:
        return seal_with(services.store, services.keys, work)
    # Nothing is encrypted: this goes without the master key.
    with services.store.write() as conn:
        return work(conn, None)


def rotate(
    services: Services, principal: Principal, project_id: str, name: str, *, overlap_s: float
) -> tuple[WebhookRecord, str]:
    """Makes a new signing key; for a while, messages carry the old one's signature too.

    Raises:
        NotThereError: There is no such webhook.
        SecretKeyError: The master key is lost.
    """
    now = services.clock()

    def work(conn: Connection, ring: KeyRing) -> tuple[WebhookRecord, str]:
        webhook = known(conn, project_id, name, lock=True)
        key = put_key(conn, ring, webhook, overlap_s=overlap_s, now=now)
        audit_webhook(conn, "rotated", webhook, actor=principal.actor, now=now, after={"overlap_s": overlap_s})
        return webhook, key

    return seal_with(services.store, services.keys, work)


def remove(services: Services, principal: Principal, project_id: str, name: str) -> None:
    """Takes it away, with all that it was told.

    Raises:
        NotThereError: There is none.
    """
    with services.store.write() as conn:
        webhook = known(conn, project_id, name, lock=True)
        delete_webhook(conn, webhook, actor=principal.actor, now=services.clock())


def send_test(
    services: Services, principal: Principal, project_id: str, name: str
) -> tuple[WebhookRecord, DeliveryRecord]:
    """Keeps a message that says nothing, to be sent at once and once only, also while the webhook is off or held.

    Raises:
        NotThereError: There is no such webhook.
    """
    now = services.clock()
    with services.store.write() as conn:
        webhook = known(conn, project_id, name, lock=True)
        text = f"{principal.subject} tests the webhook {name}"
        message = Message(TEST_EVENT, now, project_id, None, name, text, {"webhook": name})
        style = str(webhook.document.get("format", "standard"))
        delivery_id = add_delivery(conn, webhook, message, style=style, now=now)
        audit_webhook(conn, "tested", webhook, actor=principal.actor, now=now)
        return webhook, known_delivery(conn, webhook, delivery_id)


def replay(
    services: Services, principal: Principal, project_id: str, name: str, delivery_id: str
) -> tuple[WebhookRecord, DeliveryRecord]:
    """Lets a message be sent again, with its id, and for as long as a new one; not while the receiver wants a rest.

    Raises:
        NotThereError: There is no such webhook or message.
    """
    now = services.clock()
    with services.store.write() as conn:
        webhook = known(conn, project_id, name, lock=True)
        send_again(conn, known_delivery(conn, webhook, delivery_id, lock=True), now=now)
        after = {"delivery": delivery_id}
        audit_webhook(conn, "replayed", webhook, actor=principal.actor, now=now, after=after)
        return webhook, known_delivery(conn, webhook, delivery_id)


def known(conn: Connection, project_id: str, name: str, *, lock: bool = False) -> WebhookRecord:
    """The webhook.

    Raises:
        NotThereError: There is none.
    """
    found = find_webhook(conn, project_id, name, lock=lock)
    if found is None:
        hint = f"`astraml webhook list --project {project_id}` shows them"
        raise NotThereError(f"there is no webhook {name[:80]!r}", param="name", hint=hint)
    return found


def known_delivery(conn: Connection, webhook: WebhookRecord, delivery_id: str, *, lock: bool = False) -> DeliveryRecord:
    """A message of a webhook.

    Raises:
        NotThereError: There is none.
    """
    found = find_delivery(conn, webhook.id, delivery_id, lock=lock)
    if found is None:
        hint = "messages are kept for 30 days"
        raise NotThereError(f"there is no delivery {delivery_id[:80]!r}", param="delivery_id", hint=hint)
    return found


def _document(webhook: WebhookRecord, given: dict[str, Any]) -> dict[str, Any]:
    whole = {**webhook.document, **given, "name": webhook.name}
    try:
        document = Webhook.model_validate_json(json.dumps(whole)).canonical()
    except ValidationError as error:
        message = str(error.errors(include_url=False)[0]["msg"]).removeprefix("Value error, ")
        raise ParameterError(message, param="", hint="this is what it would be with the change") from None
    return {key: value for key, value in document.items() if key != "name"}
