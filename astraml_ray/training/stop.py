"""The wish to stop a run, shared between whoever has it and whoever obeys it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Literal

__all__ = ["STOP_CODES", "Stop", "StopMode"]

StopMode = Literal["now", "keep_best"]

STOP_CODES: Mapping[str, int] = {"now": 1, "keep_best": 2}
"""What the workers tell each other of a stop; 0 is none."""

_GLANCE_S = 0.05


class Stop:
    """Whether a run should stop, and how: `now` saves and leaves, `keep_best` also publishes the best model so far.

    Safe to use from threads and from signal handlers: it has no lock.
    """

    def __init__(self) -> None:
        self._now = False
        self._keep_best = False

    def request(self, mode: StopMode = "now") -> None:
        """Asks the run to stop. `now` overrides `keep_best`, never the other way round."""
        if mode == "now":
            self._now = True
        else:
            self._keep_best = True

    def set(self) -> None:
        """Asks the run to save and leave."""
        self.request("now")

    @property
    def mode(self) -> StopMode | None:
        """How the run should stop; None if it should not."""
        if self._now:
            return "now"
        return "keep_best" if self._keep_best else None

    def is_set(self) -> bool:
        """Whether the run should stop."""
        return self.mode is not None

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until a stop is asked for, `timeout` seconds at most; tells whether it is."""
        end = None if timeout is None else time.monotonic() + timeout
        while not self.is_set():
            left = _GLANCE_S if end is None else min(_GLANCE_S, end - time.monotonic())
            if left <= 0:
                break
            time.sleep(left)
        return self.is_set()
