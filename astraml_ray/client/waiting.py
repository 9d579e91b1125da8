"""Waiting for a job's end by looking at it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from astraml_ray.client.failures import WaitTimeoutError

__all__ = ["wait_for_end"]

_SOONEST_POLL_S = 0.2


def wait_for_end(
    look: Callable[[float], dict[str, Any]],
    *,
    timeout_s: float | None,
    poll_s: float,
    patience_s: float,
    on_look: Callable[[dict[str, Any]], None] | None,
) -> dict[str, Any]:
    """The job, once it is terminal.

    Args:
        look: Fetches the job, given for how many seconds the service may be away.
        timeout_s: Longest wait; None waits for ever.
        poll_s: Between two looks; the first ones come sooner.
        on_look: Takes the job at every look.

    Raises:
        WaitTimeoutError: It has not ended by then.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    pause = min(_SOONEST_POLL_S, poll_s)
    while True:
        left = _left(deadline)
        job = look(patience_s if left is None else min(patience_s, left))
        if on_look is not None:
            on_look(job)
        if job["terminal"]:
            return job
        left = _left(deadline)
        if left == 0:
            message = f"the job is still {job['status']} after {timeout_s:g} s"
            raise WaitTimeoutError(message, param=job["id"], hint="it goes on; wait again")
        time.sleep(pause if left is None else min(pause, left))
        pause = min(poll_s, pause * 1.5)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())
