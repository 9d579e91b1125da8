"""A lock whose waiters are served in the order in which they came."""

from __future__ import annotations

import threading
from collections import deque

__all__ = ["Turns"]


class Turns:
    """One holder at a time, first come first served, with a limit to the wait."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._holder: int | None = None

    def acquire(self, timeout_s: float) -> bool:
        """Waits for its turn; False if it did not come in time.

        Raises:
            RuntimeError: This thread holds it already: it would wait for itself.
        """
        me = threading.get_ident()
        with self._mutex:
            if self._holder == me:
                raise RuntimeError("a write inside another write of the same thread")
            if self._holder is None:
                self._holder = me
                return True
            ticket = threading.Lock()
            ticket.acquire()
            self._waiting.append(ticket)
        try:
            served = ticket.acquire(timeout=timeout_s) or not self._withdraw(ticket)
        except BaseException:
            if not self._withdraw(ticket):
                self.release()
            raise
        if served:
            self._holder = me
        return served

    def release(self) -> None:
        """Hands the turn to the first who waits."""
        with self._mutex:
            if self._waiting:
                self._holder = 0  # of the one who wakes up
                self._waiting.popleft().release()
            else:
                self._holder = None

    def _withdraw(self, ticket: threading.Lock) -> bool:
        """Leaves the queue; False if the turn has come meanwhile."""
        with self._mutex:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
                return True
            return False
