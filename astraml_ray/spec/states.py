"""The states of a job, and which may follow which. Pure."""

from __future__ import annotations

from enum import Enum

__all__ = ["ACTIVE", "TERMINAL", "JobStatus", "may_follow"]


class JobStatus(str, Enum):
    """Where a job is. `reason` says why it is there; early stopping is a success."""

    #: Accepted, and waiting for resources or for a retry.
    QUEUED = "queued"
    #: Admitted: its runner prepares the data, the model and the workers.
    STARTING = "starting"
    #: The workers train.
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether nothing follows."""
        return self in TERMINAL


TERMINAL = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED})
ACTIVE = frozenset({JobStatus.STARTING, JobStatus.RUNNING})

_NEXT: dict[JobStatus, frozenset[JobStatus]] = {
    JobStatus.QUEUED: frozenset({JobStatus.STARTING, JobStatus.FAILED, JobStatus.CANCELLED}),
    # Back to the queue: the cluster became too small before the run began, or lost the run.
    JobStatus.STARTING: frozenset({JobStatus.QUEUED, JobStatus.RUNNING}) | TERMINAL,
    JobStatus.RUNNING: frozenset({JobStatus.QUEUED, JobStatus.STARTING}) | TERMINAL,
    JobStatus.SUCCEEDED: frozenset(),
    JobStatus.FAILED: frozenset(),
    JobStatus.CANCELLED: frozenset(),
}


def may_follow(before: JobStatus, after: JobStatus) -> bool:
    """Whether a job may go from one state to the other."""
    return after in _NEXT[before]
