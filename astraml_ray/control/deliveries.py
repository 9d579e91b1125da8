"""Sending to webhooks, decided: signatures, when to try again, and what an answer means. Pure."""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from astraml_ray.access.webhooks import key_bytes
from astraml_ray.spec.webhook import TEST_EVENT
from astraml_ray.store.deliveries import DeliveryRecord

__all__ = ["GIVE_UP_S", "Reply", "Verdict", "headers_of", "judge", "retry_after_of", "retry_delay"]

GIVE_UP_S = 24 * 3600.0
"""Tries go on for so long after the first."""
_FIRST_DELAY_S, _LONGEST_DELAY_S, _GROWTH = 5.0, 4 * 3600.0, 4.0
_SPREAD = 0.2


@dataclass(frozen=True)
class Reply:
    """How a try went.

    Attributes:
        status: Of the HTTP answer; None if there was none.
        error: Why there was none.
        retry_after_s: For how long the receiver asked to be left alone.
        text: The beginning of the answer's body.
        took_s: Seconds.
    """

    status: int | None
    error: str | None = None
    retry_after_s: float | None = None
    text: str | None = None
    took_s: float = 0.0

    @property
    def reason(self) -> str | None:
        """Why it was no success; None if it was one."""
        if self.status is None:
            return self.error or "no answer"
        if 200 <= self.status < 300:
            return None
        if 300 <= self.status < 400:
            return f"answered {self.status}: redirects are not followed"
        return f"answered {self.status}"


@dataclass(frozen=True)
class Verdict:
    """What becomes of a message after a try.

    Attributes:
        status: "pending", "delivered" or "failed".
        next_at: When it is tried again, if it is.
        hold_until: Nothing at all is sent to that webhook before.
        gone: The receiver wants no more: the webhook is disabled.
    """

    status: str
    next_at: float | None = None
    hold_until: float | None = None
    gone: bool = False


def headers_of(delivery_id: str, body: bytes, keys: Iterable[str], *, now: float) -> dict[str, str]:
    """The headers of a try, as Standard Webhooks has them: each key signs id, time and the raw body.

    Args:
        delivery_id: The message's id, the same at every try.
        body: As it is sent.
        keys: `whsec_…`, those that count at the moment.
        now: Seconds since the epoch; a receiver refuses what is long past.
    """
    timestamp = str(int(now))
    signed = b".".join((delivery_id.encode(), timestamp.encode(), body))
    digests = (hmac.new(key_bytes(key), signed, hashlib.sha256).digest() for key in keys)
    return {
        "webhook-id": delivery_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests),
        "content-type": "application/json",
        "user-agent": "AstraML-Webhooks",
    }


def retry_delay(delivery_id: str, tries: int) -> float:
    """Seconds until the next try, after so many: 5 s, 20 s, 80 s ... 4 h, each spread by a fifth either way.

    The spread follows from the message and the try, so that many messages of one outage do not come back together.
    """
    grown = min(_LONGEST_DELAY_S, _FIRST_DELAY_S * _GROWTH ** (min(tries, 20) - 1))
    digest = hashlib.sha256(f"{delivery_id} {tries}".encode()).digest()
    return grown * (1 + _SPREAD * (int.from_bytes(digest[:8], "big") / 2**63 - 1))


def judge(delivery: DeliveryRecord, reply: Reply, *, now: float) -> Verdict:
    """What becomes of a message after a try.

    Args:
        delivery: As it was before.
        reply: How it went.
        now: Seconds since the epoch, after the try.
    """
    if reply.reason is None:
        return Verdict("delivered")
    if reply.status == 410:
        return Verdict("failed", gone=True)
    if delivery.event == TEST_EVENT:
        return Verdict("failed")  # someone waits for the answer, and asks again
    last = (now if delivery.first_at is None else delivery.first_at) + GIVE_UP_S
    if now >= last:
        return Verdict("failed")
    asked = reply.retry_after_s if reply.status in (429, 503) else None
    delay = max(retry_delay(delivery.id, delivery.tries + 1), asked or 0.0)
    hold = None if asked is None else min(now + asked, last)
    # The last try of all comes when the time is over.
    return Verdict("pending", next_at=min(now + delay, last), hold_until=hold)


def retry_after_of(headers: Mapping[str, str], *, now: float) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or as a date; None if it does not say."""
    text = headers.get("retry-after", "").strip()
    try:
        seconds = float(text) if text.isascii() and text.isdigit() else parsedate_to_datetime(text).timestamp() - now
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(0.0, seconds), GIVE_UP_S) if math.isfinite(seconds) else None
