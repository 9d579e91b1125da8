"""Requests with an idempotency key: what they make is made once, and answered the same again."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from astraml_ray.api.errors import KeyInFlightError, KeyInvalidError, KeyReusedError
from astraml_ray.api.services import Services
from astraml_ray.errors import StoreBusyError
from astraml_ray.store.idempotency import KeyRecord, KeyTakenError, find_key, store_key

__all__ = ["Keyed", "Made", "check_key", "differences", "once"]

_KEY = re.compile(r"[\x20-\x7e]{1,255}")
_MAX_DIFFERENCES = 50


@dataclass(frozen=True)
class Made:
    """What the client is answered, now or again.

    Attributes:
        status: Of the answer.
        body: Of the answer.
        job_id: The job that was made; with a key, this or the schedule must be there.
        schedule_id: The schedule that was made or changed.
        replayed: Whether it is the answer to an earlier request.
    """

    status: int
    body: dict[str, Any]
    job_id: str | None
    schedule_id: str | None = None
    replayed: bool = False

    @property
    def headers(self) -> dict[str, str]:
        """Whether the answer is a repetition."""
        return {"Idempotency-Replayed": "true"} if self.replayed else {}


@dataclass(frozen=True)
class Keyed:
    """A request that may carry a key.

    Attributes:
        project_id: Scope of the key, together with the route.
        route: Such as "POST /v2.1/jobs".
        key: The key, if the client sent one.
        request: What two requests with one key must have in common.
    """

    project_id: str
    route: str
    key: str | None
    request: dict[str, Any]

    def known(self, conn: Connection) -> Made | None:
        """What an earlier request with the key was answered.

        Raises:
            KeyReusedError: That was another request.
        """
        known = None if self.key is None else find_key(conn, self.project_id, self.route, self.key)
        if known is None:
            return None
        if known.fingerprint != self._fingerprint():
            found = differences(known.request, self.request)
            raise KeyReusedError(
                f"the idempotency key has made {known.job_id or known.schedule_id} of another request",
                param=found[0]["param"] if found else None,
                members={"differs": found[:_MAX_DIFFERENCES]},
            )
        return Made(known.status_code, known.body, known.job_id, known.schedule_id, replayed=True)

    def remember(self, conn: Connection, made: Made, *, now: float) -> None:
        """Stores the answer, in the transaction that makes what it tells of.

        Raises:
            KeyTakenError: Another request with the key came first; the transaction must be given up.
        """
        if self.key is not None:
            record = KeyRecord(
                project_id=self.project_id,
                route=self.route,
                key=self.key,
                fingerprint=self._fingerprint(),
                request=self.request,
                status_code=made.status,
                body=made.body,
                job_id=made.job_id,
                created_at=now,
                schedule_id=made.schedule_id,
            )
            store_key(conn, record)

    def _fingerprint(self) -> str:
        text = json.dumps(self.request, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def once(services: Services, keyed: Keyed, make: Callable[[], Made]) -> Made:
    """Makes what is asked for, unless the key has made it already.

    Args:
        services: The database.
        keyed: The request.
        make: Makes it in one transaction, which `remember`s it.

    Raises:
        KeyReusedError: The key belongs to another request.
        KeyInFlightError: Another request with the key may be under way.
        StoreError: The database failed; nothing is made.
    """
    try:
        made = _replayed(services, keyed) or make()
    except KeyTakenError:
        # Its transaction has ended by now, or this one would still wait for it.
        replayed = _replayed(services, keyed)
        if replayed is None:
            raise _in_flight() from None
        return replayed
    except StoreBusyError as error:
        if keyed.key is None:
            raise
        raise _in_flight() from error
    return made


def check_key(values: list[str]) -> str | None:
    """The idempotency key of a request's headers.

    Raises:
        KeyInvalidError: It is not 1 to 255 printable ASCII characters, or there are two.
    """
    if not values:
        return None
    if len(values) > 1:
        raise KeyInvalidError("the header is there twice", param="Idempotency-Key")
    if not _KEY.fullmatch(values[0]):
        found = "is empty" if not values[0] else f"has {len(values[0])} characters, or other ones than printable ASCII"
        raise KeyInvalidError(f"the idempotency key {found}", param="Idempotency-Key")
    return values[0]


def differences(before: Any, now: Any, pointer: str = "") -> list[dict[str, Any]]:
    """Where two requests differ: pointer, and both values; null for none."""
    if isinstance(before, dict) and isinstance(now, dict):
        found = []
        for name in sorted({*before, *now}):
            place = f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"
            found += differences(before.get(name), now.get(name), place)
        return found
    return [] if before == now else [{"param": pointer, "before": before, "now": now}]


def _replayed(services: Services, keyed: Keyed) -> Made | None:
    """What is known without waiting for writers."""
    if keyed.key is None:
        return None
    with services.store.read() as conn:
        return keyed.known(conn)


def _in_flight() -> KeyInFlightError:
    return KeyInFlightError("another request with this idempotency key may be under way", param="Idempotency-Key")
