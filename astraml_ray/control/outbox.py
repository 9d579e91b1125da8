"""What a runner has to report: kept until the controller has it, in bounded memory however long that takes."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from astraml_ray.data.masking import Masker, mask_data
from astraml_ray.store.windows import Window, merge, window_of

__all__ = ["Outbox"]

_WINDOW_S = 30
_MAX_LINES = 50_000
_MAX_EVENTS = 1_000


class Outbox:
    """Gathers metrics into windows, and log lines, events, trials and the newest progress into reports.

    A report stays the same until it is acknowledged, so that the controller can tell a repeat by its number.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._windows: dict[str, dict[int, Window]] = {}
        self._lines: list[tuple[str, dict[str, Any]]] = []
        self._events: list[dict[str, Any]] = []
        self._trials: dict[str, dict[str, Any]] = {}
        self._state: dict[str, Any] = {}
        self._pending: dict[str, Any] | None = None
        self._seq = 0
        self._masker = Masker({})

    def hide(self, masker: Masker) -> None:
        """Leaves secrets out of all that is reported from now on. Log lines come without them."""
        self._masker = masker

    def add_metrics(self, record: Mapping[str, Any], *, at: float) -> None:
        """Takes the metrics (names with a slash) of a training record."""
        step = record.get("step")
        with self._lock:
            for name, value in record.items():
                if "/" in name and isinstance(value, (int, float)):
                    start = math.floor(at / _WINDOW_S) * _WINDOW_S
                    point = window_of([(at, step, float(value))], start)
                    of_name = self._windows.setdefault(name, {})
                    of_name[start] = merge(of_name[start], point, start) if start in of_name else point

    def add_lines(self, source: str, attempt: int, lines: Sequence[Mapping[str, Any]]) -> None:
        """Takes log lines of one process; beyond the bound the oldest go, and their numbers show the gap."""
        with self._lock:
            self._lines += [(source, {**line, "attempt": attempt}) for line in lines]
            del self._lines[:-_MAX_LINES]

    def add_event(self, kind: str, message: str | None, data: Mapping[str, Any] | None, *, at: float) -> None:
        """Takes an event."""
        with self._lock:
            self._events.append({"type": kind, "message": message, "data": dict(data or {}), "at": at})
            del self._events[:-_MAX_EVENTS]

    def add_trial(self, trial: Mapping[str, Any]) -> None:
        """Takes what is new of a sweep's trial: of each only the newest matters."""
        with self._lock:
            self._trials[str(trial["trial_id"])] = dict(trial)

    def set_state(self, **fields: Any) -> None:
        """Takes what only the newest value matters of: `status`, `progress`, `run_path`, `warnings`, `end` …"""
        with self._lock:
            self._state |= fields

    def next_report(self) -> dict[str, Any]:
        """The report to send: the last one until it is acknowledged, then what has come since."""
        with self._lock:
            if self._pending is None:
                self._seq += 1
                self._pending = {
                    "seq": self._seq,
                    **self._hidden(self._state),
                    "windows": {name: [asdict(w) for w in of.values()] for name, of in self._windows.items()},
                    "lines": self._lines,
                    "events": self._hidden(self._events),
                    "trials": self._hidden(list(self._trials.values())),
                }
                self._windows, self._lines, self._events, self._trials, self._state = {}, [], [], {}, {}
            return self._pending

    def _hidden(self, data: Any) -> Any:
        return mask_data(data, self._masker) if self._masker.reach else data

    def acknowledge(self, seq: int) -> None:
        """The controller has stored the report of that number."""
        with self._lock:
            if self._pending is not None and self._pending["seq"] == seq:
                self._pending = None

    @property
    def empty(self) -> bool:
        """Whether everything is acknowledged."""
        with self._lock:
            waiting = (self._windows, self._lines, self._events, self._trials, self._state)
            return self._pending is None and not any(waiting)
