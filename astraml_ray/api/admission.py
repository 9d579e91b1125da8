"""How many requests and streams one process takes; what is more is refused at once."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Literal

from astraml_ray.api.errors import OverloadedError

__all__ = ["Admission", "ApiLimits", "Slot"]


@dataclass(frozen=True)
class ApiLimits:
    """Bounds of one process of the API.

    Attributes:
        max_body_bytes: Of a request.
        body_timeout_s: For a body to arrive.
        max_concurrent: Requests under way, streams not counted.
        max_streams: Streams of logs and events, and downloads.
        max_validations: Dry runs at once.
        validation_timeout_s: Of a dry run.
        poll_s: How often a stream looks for news, at first.
        max_poll_s: The same, after a while without news.
        heartbeat_s: Longest silence of a stream.
        settle_s: How long a stream waits for late lines of a job that has ended.
        max_stream_s: A stream ends without an `end` event; its client comes back, maybe to a newer process.
    """

    max_body_bytes: int = 1_000_000
    body_timeout_s: float = 30.0
    max_concurrent: int = 128
    max_streams: int = 256
    max_validations: int = 4
    validation_timeout_s: float = 130.0
    poll_s: float = 0.25
    max_poll_s: float = 1.0
    heartbeat_s: float = 15.0
    settle_s: float = 1.0
    max_stream_s: float = 3600.0


class Admission:
    """Counts what is under way. Any thread may use it."""

    def __init__(self, *, max_concurrent: int, max_streams: int) -> None:
        self._limits = {"request": max_concurrent, "stream": max_streams}
        self._counts = {"request": 0, "stream": 0}
        self._lock = threading.Lock()

    @property
    def requests(self) -> int:
        """Requests under way, without streams."""
        return self._counts["request"]

    @property
    def streams(self) -> int:
        """Streams under way."""
        return self._counts["stream"]

    def refuse_if_full(self) -> None:
        """Spares reading the body of a request that will be refused.

        Raises:
            OverloadedError: There is no room.
        """
        if self._counts["request"] >= self._limits["request"]:
            raise _overloaded("request", self._limits["request"])

    def enter(self) -> Slot:
        """Takes a place among the requests.

        Raises:
            OverloadedError: There is none.
        """
        self._take("request")
        return Slot(self)

    def _take(self, kind: Literal["request", "stream"]) -> None:
        with self._lock:
            if self._counts[kind] >= self._limits[kind]:
                raise _overloaded(kind, self._limits[kind])
            self._counts[kind] += 1

    def _give_back(self, kind: Literal["request", "stream"]) -> None:
        with self._lock:
            self._counts[kind] -= 1


class Slot:
    """The place of one request."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._kind: Literal["request", "stream"] = "request"

    def become_stream(self) -> None:
        """Moves over to the streams, which last long and do little.

        Raises:
            OverloadedError: There are too many.
        """
        if self._kind == "request":
            self._admission._take("stream")
            self._admission._give_back("request")
            self._kind = "stream"

    def leave(self) -> None:
        """Gives the place back; to be called once."""
        self._admission._give_back(self._kind)


def _overloaded(kind: str, limit: int) -> OverloadedError:
    return OverloadedError(f"{limit} {kind}s are under way in this process, which is as many as it takes")
