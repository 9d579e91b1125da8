"""What is secret about webhooks: their addresses and signing keys, encrypted as secrets are, and bound to each."""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass, replace
from typing import Literal

from sqlalchemy import Connection

from astraml_ray.access.denials import SecretKeyError
from astraml_ray.access.secrets import KeyRing, SecretRef
from astraml_ray.store.webhooks import (
    SealedValue,
    WebhookRecord,
    add_value,
    expire_keys,
    list_values,
    replace_sealed,
    values_of_other_keys,
)

__all__ = ["Opened", "key_bytes", "new_signing_key", "open_webhooks", "put_address", "put_key", "reseal"]

_PREFIX = "whsec_"
_KEY_BYTES = 32
Kind = Literal["url", "signing"]


@dataclass(frozen=True)
class Opened:
    """What is needed to send: where to, and the keys that count at the moment, the newest first."""

    url: str
    keys: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Opened({len(self.keys)} keys)"


def new_signing_key() -> str:
    """`whsec_`, and 32 random bytes in base64, as Standard Webhooks writes keys."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()


def key_bytes(key: str) -> bytes:
    """The bytes that a key signs with."""
    return base64.b64decode(key.removeprefix(_PREFIX))


def put_address(conn: Connection, ring: KeyRing, webhook: WebhookRecord, url: str, *, now: float) -> None:
    """Keeps a webhook's address, in place of the one before."""
    version = _next_version(conn, webhook, "url")
    expire_keys(conn, webhook.id, "url", keep=None, expires_at=now)
    _put(conn, ring, webhook, "url", version, url, now=now)


def put_key(conn: Connection, ring: KeyRing, webhook: WebhookRecord, *, overlap_s: float, now: float) -> str:
    """Makes a new signing key; the one before it counts for a while longer, and those before that no more.

    Returns:
        The key. Nobody gets to see it again.
    """
    version = _next_version(conn, webhook, "signing")
    # One at most is left besides the new one.
    expire_keys(conn, webhook.id, "signing", keep=version - 1 if overlap_s > 0 else None, expires_at=now + overlap_s)
    key = new_signing_key()
    _put(conn, ring, webhook, "signing", version, key, now=now)
    return key


def open_webhooks(conn: Connection, ring: KeyRing, webhooks: list[WebhookRecord], *, now: float) -> dict[str, Opened]:
    """What is needed to send to some webhooks, by id.

    Raises:
        SecretKeyError: The master key is lost.
    """
    projects = {webhook.id: webhook.project_id for webhook in webhooks}
    urls: dict[str, str] = {}
    keys: dict[str, list[str]] = {}
    for sealed in list_values(conn, projects):
        if not sealed.counts(now):
            continue
        value = _open(ring, sealed, projects[sealed.webhook_id])
        if sealed.kind == "url":
            urls[sealed.webhook_id] = value
        else:
            keys.setdefault(sealed.webhook_id, []).append(value)
    return {one: Opened(url, tuple(keys.get(one, ()))) for one, url in urls.items()}


def reseal(conn: Connection, ring: KeyRing, limit: int) -> int:
    """Encrypts a batch again that is not under the first key; how many.

    Raises:
        SecretKeyError: A key that is needed is lost.
    """
    batch = values_of_other_keys(conn, ring.primary_id, limit=limit)
    for sealed, project_id in batch:
        value = ring.encrypt(_open(ring, sealed, project_id), _ref(sealed, project_id))
        replace_sealed(conn, sealed, value=value, key_id=ring.primary_id)
    return len(batch)


def _put(
    conn: Connection, ring: KeyRing, webhook: WebhookRecord, kind: Kind, version: int, text: str, *, now: float
) -> None:
    sealed = SealedValue(webhook.id, kind, version, b"", ring.primary_id, now, None)
    value = ring.encrypt(text, _ref(sealed, webhook.project_id))
    add_value(conn, replace(sealed, value=value))


def _open(ring: KeyRing, sealed: SealedValue, project_id: str) -> str:
    try:
        return ring.decrypt(sealed.value, sealed.key_id, _ref(sealed, project_id))
    except SecretKeyError as error:
        hint = "bring the master key back, or remove the webhook and add it again"
        raise SecretKeyError(f"a webhook cannot be used: {error.message}", hint=hint) from None


def _ref(sealed: SealedValue, project_id: str) -> SecretRef:
    # No secret of a project can have such a name.
    return SecretRef(project_id, f"{sealed.webhook_id}:{sealed.kind}", sealed.version)


def _next_version(conn: Connection, webhook: WebhookRecord, kind: Kind) -> int:
    return max((one.version for one in list_values(conn, [webhook.id]) if one.kind == kind), default=0) + 1
