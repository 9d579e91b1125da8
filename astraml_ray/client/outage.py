"""Bearing with a service that is away: backoff, and when to give up."""

from __future__ import annotations

import random
import time

from astraml_ray.errors import AstraError

__all__ = ["Outage", "backoff_s"]

_FIRST_S = 0.2
_LONGEST_S = 5.0


def backoff_s(tries: int, chance: float) -> float:
    """Seconds before the next try: doubling up to 5 s, and spread by a chance from 0 to 1 so that clients part."""
    return float(min(_LONGEST_S, _FIRST_S * 2.0 ** min(tries, 16)) * (0.5 + 0.5 * chance))


class Outage:
    """Counts the failures in a row, from the first one on."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._tries = 0

    def over(self) -> None:
        """The service answered."""
        self._since = None
        self._tries = 0

    def bear(self, failure: AstraError, *, patience_s: float, at_least_s: float = 0.0) -> None:
        """Sleeps before the next try; raises the failure once the patience would be over.

        Args:
            failure: What happened last.
            patience_s: Longest time without an answer.
            at_least_s: What the service asked for in `Retry-After`.
        """
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        delay = max(backoff_s(self._tries, random.random()), at_least_s)
        if now + delay - self._since > patience_s:
            raise failure
        self._tries += 1
        time.sleep(delay)
