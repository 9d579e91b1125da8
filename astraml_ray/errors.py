"""The error hierarchy. Every error says what happened, where (`param`), and what to do (`hint`).

AstraError
├── SpecError             exit 10   the spec is wrong: all problems at once, each with a JSON pointer
├── ModelError            exit 10   the model cannot be had or does not suit the task
├── DataError             exit 20   the dataset is missing, damaged or does not suit the task
│   └── DamagedError                its bytes are there, and are not what they should be
├── MemoryExhaustedError  exit 21   a worker ran out of memory
├── NumericError          exit 22   a loss or a gradient is not finite
├── InfrastructureError   exit 30   a worker, the cluster or the network failed; the only class tried again
│   ├── ResourcesError    exit 30   the cluster cannot hold the run; not tried again
│   ├── StorageOutageError           storage kept failing until the deadline: its requests were tried again already
│   └── RepeatedFailureError        the same failure at the same step twice; not tried again
├── StorageError          exit 30   the run's folder cannot be read or written
├── RunStopped            exit 40   the run was asked to stop: saved, and ready to be resumed
├── RequestError          exit 10   a request to the service cannot be met as it is
│   ├── JobNotFoundError            no such job
│   ├── JobTerminalError            the job has ended already
│   └── TransitionError             a job cannot go from its state to that one
└── StoreError            exit 30   the service's database
    ├── StoreBusyError              it is locked for longer than a request may wait; tried again
    ├── StoreUnavailableError       it cannot be reached, or is full
    └── StaleLeaseError             another process has taken over

They pickle whole, because they cross process boundaries on Ray.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

__all__ = [
    "AstraError",
    "DamagedError",
    "DataError",
    "InfrastructureError",
    "JobNotFoundError",
    "JobTerminalError",
    "MemoryExhaustedError",
    "ModelError",
    "NumericError",
    "Problem",
    "RepeatedFailureError",
    "RequestError",
    "ResourcesError",
    "RunStopped",
    "ScheduleNotFoundError",
    "SpecError",
    "StaleLeaseError",
    "StorageError",
    "StorageOutageError",
    "StoreBusyError",
    "StoreError",
    "StoreUnavailableError",
    "TransitionError",
    "TrialNotFoundError",
]


class AstraError(Exception):
    """Base of all errors meant for users.

    Args:
        message: What happened.
        param: The field (JSON pointer) or object (URI, row) it is about.
        hint: What to do.

    Attributes:
        rank: World rank of the worker that failed first, where a worker failed and that is known.
    """

    code: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False
    rank: int | None = None

    def __init__(self, message: str, *, param: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.__dict__.copy())

    def __str__(self) -> str:
        where = f"{self.param}: " if self.param else ""
        todo = f"\n  → {self.hint}" if self.hint else ""
        return f"{where}{self.message}{todo}"

    def as_dict(self) -> dict[str, Any]:
        """The error as plain JSON data."""
        fields = {
            "code": self.code,
            "message": self.message,
            "param": self.param,
            "hint": self.hint,
            "rank": self.rank,
        }
        return {key: value for key, value in fields.items() if value is not None}


def _rebuild(kind: type[AstraError], state: dict[str, Any]) -> AstraError:
    error = kind.__new__(kind)
    Exception.__init__(error, state.get("message", ""))
    error.__dict__.update(state)
    return error


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a spec."""

    param: str
    message: str
    hint: str | None = None

    def __str__(self) -> str:
        return f"{self.param or '/'}: {self.message}" + (f" ({self.hint})" if self.hint else "")


class SpecError(AstraError):
    """The spec is invalid; `problems` holds every reason, not only the first."""

    code = "invalid_spec"
    exit_code = 10

    def __init__(self, problems: list[Problem], *, source: str = "spec") -> None:
        lines = "\n".join(f"  {problem}" for problem in problems)
        count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
        super().__init__(f"{source}: {count}\n{lines}")
        self.problems = problems

    def as_dict(self) -> dict[str, Any]:
        problems = [{"param": p.param, "message": p.message, "hint": p.hint} for p in self.problems]
        return {**super().as_dict(), "problems": problems}


class ModelError(AstraError):
    """The model cannot be loaded, or does not suit the task."""

    code = "model"
    exit_code = 10


class DataError(AstraError):
    """The dataset is missing, damaged, changed, or does not suit the task."""

    code = "data"
    exit_code = 20


class DamagedError(DataError):
    """What was read is not what it should be; it may be left out where bad rows may."""


class MemoryExhaustedError(AstraError):
    """A worker ran out of memory."""

    code = "out_of_memory"
    exit_code = 21


class NumericError(AstraError):
    """A loss or a gradient is not finite."""

    code = "numeric"
    exit_code = 22


class InfrastructureError(AstraError):
    """A worker, the cluster or the network failed; trying again may help."""

    code = "infrastructure"
    exit_code = 30
    retryable = True


class ResourcesError(InfrastructureError):
    """The cluster cannot hold the run as it is asked for."""

    code = "resources"
    retryable = False


class StorageOutageError(InfrastructureError):
    """Storage kept failing until the deadline. Its requests were tried again already; a later attempt may do better."""


class RepeatedFailureError(InfrastructureError):
    """The run failed twice in the same way at the same step: a third try would be no better."""

    code = "repeated_failure"
    retryable = False


class StorageError(AstraError):
    """The run's folder cannot be read or written."""

    code = "storage"
    exit_code = 30


class RunStopped(AstraError):
    """The run was asked to stop and has saved itself.

    Attributes:
        step: The step of the checkpoint that it goes on from; None if it had not begun.
    """

    code = "stopped"
    exit_code = 40
    step: int | None = None


class RequestError(AstraError):
    """A request to the service cannot be met as it is."""

    code = "invalid_request"
    exit_code = 10


class JobNotFoundError(RequestError):
    """There is no such job."""

    code = "job_not_found"


class ScheduleNotFoundError(RequestError):
    """There is no such schedule."""

    code = "schedule_not_found"


class TrialNotFoundError(RequestError):
    """The sweep has no such trial."""

    code = "trial_not_found"


class JobTerminalError(RequestError):
    """The job has ended already."""

    code = "job_terminal"


class TransitionError(RequestError):
    """A job cannot go from the state it is in to the one asked for."""

    code = "invalid_transition"


class StoreError(AstraError):
    """The service's database failed."""

    code = "store"
    exit_code = 30


class StoreBusyError(StoreError):
    """The database is locked for longer than a request may wait."""

    code = "store_busy"
    retryable = True


class StoreUnavailableError(StoreError):
    """The database cannot be reached, or takes no writes."""

    code = "store_unavailable"
    retryable = True


class StaleLeaseError(StoreError):
    """Another process holds the lease now; what this one decided no longer counts."""

    code = "stale_lease"
