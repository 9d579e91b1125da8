"""Short-lived grants: what lets one worker ask for the secrets of its job, and nothing else. Pure.

A grant is a sealed note, made by the service when an attempt starts. It names the secrets and holds none; whoever
has it must still ask the service, which opens it, looks the values up and notes the use.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import dataclass

from astraml_ray.access.denials import SecretGrantError
from astraml_ray.access.secrets import KeyRing, SecretRef

__all__ = ["SecretGrant", "open_grant", "seal_grant"]


@dataclass(frozen=True)
class SecretGrant:
    """Who may have which secrets until when.

    Attributes:
        job_id: The job; None is a dry run, which has none.
        attempt: Its attempt; a later one needs a grant of its own.
        subject: Who submitted the job, or tries it.
        secrets: Which, to the version: a rotation does not change what a running job sees.
        expires_at: Seconds since the epoch.
    """

    job_id: str | None
    attempt: int
    subject: str
    secrets: tuple[SecretRef, ...]
    expires_at: float

    def require(self, ref: SecretRef, *, now: float) -> None:
        """Does nothing if the grant covers a secret.

        Raises:
            SecretGrantError: It does not, or has expired.
        """
        if now >= self.expires_at:
            raise SecretGrantError("the grant has expired", hint="a new attempt gets a new one")
        if ref not in self.secrets:
            raise SecretGrantError(f"the grant does not cover secret {ref.name}")


def seal_grant(ring: KeyRing, grant: SecretGrant) -> str:
    """The grant as text that only the service can make."""
    fields = [grant.job_id, grant.attempt, grant.subject, grant.expires_at]
    refs = [[ref.project_id, ref.name, ref.version] for ref in grant.secrets]
    body = json.dumps([*fields, refs], separators=(",", ":")).encode()
    seal = hmac.new(_key(ring.keys[0]), body, hashlib.sha256).digest()
    return base64.urlsafe_b64encode(seal + body).decode()


def open_grant(ring: KeyRing, text: str, *, now: float) -> SecretGrant:
    """The grant that a text is.

    Raises:
        SecretGrantError: It was not made here, was changed, or has expired.
    """
    try:
        data = base64.urlsafe_b64decode(text.encode())
    except (binascii.Error, ValueError):
        data = b""
    seal, body = data[:32], data[32:]
    if not any(hmac.compare_digest(seal, hmac.new(_key(key), body, hashlib.sha256).digest()) for key in ring.keys):
        raise SecretGrantError("this is no grant of this service")
    job_id, attempt, subject, expires_at, refs = json.loads(body)
    grant = SecretGrant(job_id, attempt, subject, tuple(SecretRef(*ref) for ref in refs), expires_at)
    if now >= grant.expires_at:
        raise SecretGrantError("the grant has expired", hint="a new attempt gets a new one")
    return grant


def _key(master: bytes) -> bytes:
    return hmac.new(master, b"astraml-grant", hashlib.sha256).digest()
