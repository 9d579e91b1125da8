"""When a request to storage is tried again, and after how long: decided without a clock, a socket or luck."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Failure", "FailureKind", "RetryBudget", "RetryPolicy"]


class FailureKind(enum.Enum):
    """What a failed request tells of the next one."""

    FINAL = "it would fail again"
    PASSING = "it may pass: an error of the server's, a broken or stalled connection, a wrong length"
    BUSY = "the storage asks for fewer requests"
    UNREACHABLE = "no connection came about"


@dataclass(frozen=True)
class Failure:
    """One failed request.

    Attributes:
        kind: What it tells of the next one.
        cause: What happened, in one line.
        retry_after_s: Seconds that the storage asks to wait.
    """

    kind: FailureKind
    cause: str
    retry_after_s: float = 0.0


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential pauses with full jitter until a deadline.

    Attributes:
        deadline_s: Seconds since the request began, or since it last brought a good piece of what was asked for.
        first_pause_s: The longest pause after the first try; it doubles with each. Five times that where the storage
            asks for fewer requests.
        longest_pause_s: No pause is longer, unless the storage asks for it.
        first_tries: Tries at an endpoint that has never answered: its name is more likely wrong than it is down.
    """

    deadline_s: float
    first_pause_s: float = 0.1
    longest_pause_s: float = 10.0
    first_tries: int = 3

    def pause(
        self, failure: Failure, *, tries: int, spent_s: float, answered: bool, draw: float, budget_s: float = 0.0
    ) -> float | None:
        """Seconds until the next try; None is to give up.

        Args:
            failure: Of the last try.
            tries: How many there were.
            spent_s: Of the deadline.
            answered: Whether the endpoint has ever answered.
            draw: A random number in [0, 1).
            budget_s: Seconds until the budget of all requests has room for one more retry.
        """
        if failure.kind is FailureKind.FINAL:
            return None
        if failure.kind is FailureKind.UNREACHABLE and not answered and tries >= self.first_tries:
            return None
        first = self.first_pause_s * (5.0 if failure.kind is FailureKind.BUSY else 1.0)
        # Beyond 2**30 the longest pause is reached whatever the first is.
        ceiling = min(self.longest_pause_s, first * 2.0 ** min(tries - 1, 30))
        pause = max(draw * ceiling, failure.retry_after_s, budget_s)
        return pause if spent_s + pause < self.deadline_s else None


@dataclass
class RetryBudget:
    """Keeps the retries of all requests to an endpoint a fraction of those that succeed, and a trickle besides.

    Without it, a storage that fails under load would get a multiple of that load. Retries beyond the budget are put
    off, not given up.

    Attributes:
        tokens: Retries that may be made at once; below zero, so many wait for their turn.
        capacity: Tokens at most.
        per_second: Tokens that come with time.
        per_success: Tokens that come with each request that succeeds.
    """

    tokens: float = 50.0
    capacity: float = 50.0
    per_second: float = 5.0
    per_success: float = 0.2
    _last_s: float | None = None

    def succeeded(self) -> None:
        """Counts a request that succeeded."""
        self.tokens = min(self.capacity, self.tokens + self.per_success)

    def take(self, now_s: float) -> float:
        """Takes a token; returns the seconds until it is there."""
        if self._last_s is not None:
            self.tokens = min(self.capacity, self.tokens + (now_s - self._last_s) * self.per_second)
        self._last_s = now_s
        self.tokens -= 1
        return max(0.0, -self.tokens / self.per_second)
