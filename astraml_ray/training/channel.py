"""The line between a run's first worker and whoever watches it: records one way, a stop the other."""

from __future__ import annotations

import threading
from typing import Any

import ray

from astraml_ray.training.records import Recorder

__all__ = ["ChannelReporter", "RunChannel"]

_PERIOD_S = 0.25


class RunChannel:
    """An actor: holds records until they are read, and the wish to stop."""

    def __init__(self) -> None:
        self._records: list[dict[str, Any]] = []
        self._result: dict[str, Any] | None = None
        self._stop = False

    def push(self, records: list[dict[str, Any]]) -> bool:
        """Takes records of the worker; answers whether it should stop."""
        self._records += records
        return self._stop

    def finish(self, result: dict[str, Any]) -> None:
        """Takes the outcome of the attempt."""
        self._result = result

    def drain(self) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
        """New records, and the outcome once there is one."""
        records, self._records = self._records, []
        return records, self._result

    def request_stop(self) -> None:
        """Asks the worker to save and leave."""
        self._stop = True


class ChannelReporter:
    """The reporter of world rank 0: records go to the run's folder at once, and to the channel by a thread."""

    def __init__(self, channel: Any, recorder: Recorder) -> None:
        self._channel = channel
        self._recorder = recorder
        self._records: list[dict[str, Any]] = []
        self._stop = False
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="channel")
        self._thread.start()

    def report(self, record: dict[str, Any]) -> None:
        """Takes one record."""
        self._recorder.add(record)
        self._records.append(record)

    def flush(self) -> None:
        """Writes the records to the run's folder."""
        self._recorder.flush()

    def stop_requested(self) -> bool:
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
                records, self._records = self._records, []
                self._stop = ray.get(self._channel.push.remote(records)) or self._stop
                if closing:
                    return
        except ray.exceptions.RayError:
            # Whoever watched is gone, and another may go on with the run: save and leave.
            self._stop = True


class SilentReporter:
    """The reporter of every other rank."""

    def report(self, record: dict[str, Any]) -> None:
        """World rank 0 has reported it."""

    def flush(self) -> None:
        """World rank 0 does."""

    def stop_requested(self) -> bool:
        """World rank 0 is asked."""
        return False
