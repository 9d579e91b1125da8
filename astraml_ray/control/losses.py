"""Runners that die: the run goes on, unless each dies before it came any further than the one before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from astraml_ray.spec.states import JobStatus
from astraml_ray.store.access import end_gpu_time
from astraml_ray.store.attempts import AttemptRecord
from astraml_ray.store.events import append_event, latest_event
from astraml_ray.store.jobs import JobRecord, change_status

__all__ = ["MOST", "losses_in_a_row", "note_loss"]

MOST = 10
"""Runners that may die in a row without progress. Restarts of a whole service count among them, so it is not small."""

_EVENT = "runner_lost"


def losses_in_a_row(before: Mapping[str, Any] | None, place: Mapping[str, Any]) -> int:
    """How many runners have died at this place, with the present one.

    Args:
        before: What was noted of the loss before this one.
        place: How far the job was when this one began: see note_loss.
    """
    return before["losses"] + 1 if before and before["place"] == place else 1


def note_loss(conn: Connection, job: JobRecord, attempts: Sequence[AttemptRecord], *, now: float) -> bool:
    """Notes that a job's runner died; the one too many ends the job.

    Returns:
        Whether the job goes on.
    """
    trials = (job.progress or {}).get("trials") or {}
    place = {"step": (attempts[-1].first_step if attempts else None) or 0, "trials": trials.get("ended", 0)}
    before = latest_event(conn, job.id, _EVENT)
    losses = losses_in_a_row(before.data if before else None, place)
    append_event(conn, job.id, _EVENT, now=now, message="the runner died", data={"losses": losses, "place": place})
    if losses < MOST:
        return True
    message = f"its runner died {losses} times in a row, and the job came no further than step {place['step']}"
    hint = "look for what ends processes on the head node, most often its memory; then: astraml resume"
    error = {"code": "infrastructure", "class": "infrastructure", "message": message, "hint": hint, "retryable": True}
    change_status(
        conn,
        job.id,
        JobStatus.FAILED,
        reason="infrastructure",
        message=message,
        now=now,
        error=error,
        placement=None,
    )
    end_gpu_time(conn, job.id, now=now)
    return False
