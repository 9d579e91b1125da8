"""The line between a run's workers and whoever watches it: records, lines and failures one way, a stop the other."""

from __future__ import annotations

import threading
import uuid
from collections import deque
from collections.abc import Callable
from typing import Any

import ray

from astraml_ray.training.records import Recorder, now
from astraml_ray.training.stop import STOP_CODES

__all__ = ["ChannelReporter", "RunChannel", "SilentReporter", "line_shipper"]

_PERIOD_S = 0.25
_MAX_LINES = 50_000
"""Log lines kept while nobody reads them; beyond that the oldest are dropped, and their numbers show the hole."""


class RunChannel:
    """An actor of whoever watches: keeps what the workers say until it is read, and the wish to stop."""

    def __init__(self) -> None:
        self._records: list[dict[str, Any]] = []
        self._lines: deque[tuple[str, list[dict[str, Any]]]] = deque()
        self._held = 0
        self._failures: list[dict[str, Any]] = []
        self._result: dict[str, Any] | None = None
        self._stop = 0

    def push(self, records: list[dict[str, Any]]) -> int:
        """Takes records of world rank 0; answers whether it should stop: one of STOP_CODES, or 0."""
        self._records += records
        return self._stop

    def push_lines(self, source: str, lines: list[dict[str, Any]]) -> None:
        """Takes log lines; of a source, they come in order."""
        self._lines.append((source, lines))
        self._held += len(lines)
        while self._held > _MAX_LINES:
            self._held -= len(self._lines.popleft()[1])

    def fail(self, rank: int, at: float, error: dict[str, Any]) -> None:
        """Takes the failure of a worker; the first to come is the first that failed."""
        self._failures.append({"rank": rank, "at": at, "error": error})

    def finish(self, result: dict[str, Any]) -> None:
        """Takes the outcome of the attempt, after which the workers do nothing any more."""
        self._result = result

    def drain(
        self,
    ) -> tuple[list[dict[str, Any]], list[tuple[str, list[dict[str, Any]]]], dict[str, Any] | None]:
        """New records, new lines by source, and the outcome once there is one."""
        records, self._records = self._records, []
        lines, self._lines, self._held = list(self._lines), deque(), 0
        return records, lines, self._result

    def failures(self) -> list[dict[str, Any]]:
        """The failures of the workers, `{"rank", "at", "error"}`, the first one first."""
        return self._failures

    def request_stop(self, code: int) -> None:
        """Asks the workers to stop: one of STOP_CODES."""
        self._stop = code


def line_shipper(channel: Any) -> Callable[[list[dict[str, Any]]], None]:
    """Ships the log lines of one capture to a channel, under a source of its own; returns when they are there."""
    source = uuid.uuid4().hex

    def ship(lines: list[dict[str, Any]]) -> None:
        ray.get(channel.push_lines.remote(source, lines))

    return ship


class ChannelReporter:
    """The reporter of world rank 0: records go to the run's folder at once, and to the channel by a thread."""

    def __init__(self, channel: Any, recorder: Recorder) -> None:
        self._channel = channel
        self._recorder = recorder
        self._lock = threading.Lock()
        self._records: list[dict[str, Any]] = []
        # Asked at once: a run that is to stop must not train first.
        self._stop: int = ray.get(channel.push.remote([]))
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="channel")
        self._thread.start()

    def report(self, record: dict[str, Any]) -> None:
        """Takes one record, and notes its time."""
        record = {**record, "time": now()}
        self._recorder.add(record)
        with self._lock:
            self._records.append(record)

    def flush(self) -> None:
        """Writes the records to the run's folder."""
        self._recorder.flush()

    def stop_requested(self) -> int:
        """As of the last quarter of a second."""
        return self._stop

    def close(self) -> None:
        """Sends and writes the rest."""
        self._closed.set()
        self._thread.join()
        self._recorder.close()

    def _run(self) -> None:
        try:
            while True:
                closing = self._closed.wait(_PERIOD_S)
                with self._lock:
                    records, self._records = self._records, []
                self._stop = ray.get(self._channel.push.remote(records)) or self._stop
                if closing:
                    return
        except ray.exceptions.RayError:
            # Whoever watched is gone, and another may go on with the run: save and leave.
            self._stop = STOP_CODES["now"]


class SilentReporter:
    """The reporter of every other rank."""

    def report(self, record: dict[str, Any]) -> None:
        """World rank 0 has reported it."""

    def flush(self) -> None:
        """World rank 0 does."""

    def stop_requested(self) -> int:
        """World rank 0 is asked."""
        return 0
