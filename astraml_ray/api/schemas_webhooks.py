"""The shapes of webhooks and what they were told, for OpenAPI. No address and no key is in any but where it is made."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from astraml_ray.api.schemas import Shape
from astraml_ray.api.schemas_access import Input
from astraml_ray.spec.base import seconds_of
from astraml_ray.spec.schedule import seconds_or_zero

__all__ = [
    "DeletedWebhook",
    "Delivery",
    "DeliveryObject",
    "DeliveryPage",
    "DeliveryStatus",
    "DeliveryTry",
    "MadeWebhook",
    "RotateRequest",
    "RotatedWebhook",
    "SigningKey",
    "WebhookList",
    "WebhookObject",
]

DeliveryStatus = Literal["pending", "delivered", "failed"]
_LONGEST_S = 7 * 86400.0


def _checked_overlap(text: str) -> str:
    if seconds_or_zero(text) and seconds_of(text) > _LONGEST_S:
        raise ValueError("must be at most 7d")
    return text


class SigningKey(Shape):
    """A key that counts, without itself."""

    version: int
    created_at: datetime
    expires_at: datetime | None
    """Of one that another has followed."""


class WebhookObject(Shape):
    """A webhook."""

    name: str
    project_id: str
    address: str
    """Its URL without what is secret in it."""
    events: list[str]
    conditions: list[dict[str, Any]]
    format: Literal["standard", "slack"]
    labels: dict[str, str]
    enabled: bool
    disabled_at: datetime | None
    disabled_reason: str | None
    held_until: datetime | None
    """The receiver asked to be left alone until then."""
    keys: list[SigningKey]
    """Each signs every message; the newest first."""
    created_at: datetime
    created_by: str
    updated_at: datetime
    links: dict[str, str]


class MadeWebhook(WebhookObject):
    """A webhook that was just made."""

    signing_key: str
    """Shown this once: the receiver checks signatures with it."""
    warnings: list[str]


class RotatedWebhook(WebhookObject):
    """A webhook with a new key."""

    signing_key: str
    """Shown this once. Until the one before it expires, messages carry signatures of both."""


class WebhookList(Shape):
    """A project's webhooks, by name."""

    data: list[WebhookObject]


class DeletedWebhook(Shape):
    """It is gone, with its keys and all that it was told."""

    project_id: str
    name: str


class Delivery(Shape):
    """A message to a webhook, as in lists."""

    id: str
    """Also in the header webhook-id, at every try: a receiver that has seen it leaves it out."""
    event: str
    subject: str | None
    """The job or schedule that it is about."""
    status: DeliveryStatus
    created_at: datetime
    next_at: datetime | None
    """When it is tried next."""
    attempts: int
    finished_at: datetime | None
    last_status: int | None
    """Of the last HTTP answer."""
    last_error: str | None
    links: dict[str, str]


class DeliveryTry(Shape):
    """One try."""

    number: int
    at: datetime
    took_s: float
    http_status: int | None
    error: str | None
    """Why there was no answer."""
    response: str | None
    """The beginning of the answer."""


class DeliveryObject(Delivery):
    """A message to a webhook."""

    body: str
    """As it is signed and sent, byte for byte."""
    log: list[DeliveryTry]
    """The latest first."""


class DeliveryPage(Shape):
    """A page of messages, the newest first."""

    data: list[Delivery]
    next_cursor: str | None


class RotateRequest(Input):
    """How the new key takes over."""

    overlap: Annotated[str, AfterValidator(_checked_overlap)] = "24h"
    """For how long the key before it still signs too, at most 7d; 0s drops it at once, for one that leaked."""
