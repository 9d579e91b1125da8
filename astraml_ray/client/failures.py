"""What an answer of the service, or a job's end, means as an error and as an exit code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from astraml_ray.errors import (
    AstraError,
    DataError,
    InfrastructureError,
    MemoryExhaustedError,
    ModelError,
    NumericError,
    Problem,
    ResourcesError,
    RunStopped,
    SpecError,
    StorageError,
)

__all__ = ["ApiError", "WaitTimeoutError", "outcome_exit_code", "unreachable"]

_KINDS = (
    SpecError,
    ModelError,
    DataError,
    MemoryExhaustedError,
    NumericError,
    InfrastructureError,
    ResourcesError,
    StorageError,
    RunStopped,
)
# By code, and by the class that the service gives codes of which this client knows nothing.
_EXIT_CODES: Mapping[str, int] = {
    **{kind.code: kind.exit_code for kind in _KINDS},
    "memory": MemoryExhaustedError.exit_code,
    "cancelled": RunStopped.exit_code,
}


class ApiError(AstraError):
    """The service refused a request, or failed at it.

    Args:
        status: The HTTP status.
        problem: The answer's problem+json, or as much of it as there was.
        retry_after_s: Seconds that the service asked to wait.

    Attributes:
        repeated: An earlier try of the same request got no answer, or one to try again.
    """

    def __init__(self, status: int, problem: Mapping[str, Any], *, retry_after_s: float | None = None) -> None:
        message = problem.get("detail") or problem.get("title") or f"the service answered {status}"
        listed = [_problem(entry) for entry in problem.get("problems") or [] if isinstance(entry, Mapping)]
        if listed:
            lines = "\n".join(f"  {entry}" for entry in listed)
            what = "spec" if problem.get("code") == SpecError.code else "request"
            message = f"{what}: {len(listed)} problem{'s' if len(listed) != 1 else ''}\n{lines}"
        where, hint = (None, None) if listed else (problem.get("param"), problem.get("hint"))
        super().__init__(str(message), param=where, hint=hint)
        self.status = status
        self.problem = dict(problem)
        self.retry_after_s = retry_after_s
        self.repeated = False
        # The class is known only from the answer; these hide the class variables of the same names.
        self.__dict__["code"] = str(problem.get("code") or f"http_{status}")
        self.__dict__["exit_code"] = _exit_code(problem, 30 if status >= 500 else 10)
        self.__dict__["retryable"] = bool(problem.get("retryable", status in (429, 502, 503)))

    def __str__(self) -> str:
        request = self.problem.get("request_id")
        return super().__str__() + (f"\n  request {request}" if request and self.status >= 500 else "")

    def as_dict(self) -> dict[str, Any]:
        more = ("class", "stage", "retryable", "problems", "differs", "request_id")
        known = {key: self.problem[key] for key in more if self.problem.get(key) is not None}
        return {**super().as_dict(), "http_status": self.status, **known}


class WaitTimeoutError(AstraError):
    """The job had not ended within the time asked for; it goes on."""

    code = "wait_timeout"
    exit_code = 124


def unreachable(address: str, why: str) -> InfrastructureError:
    """The error for a service that does not answer."""
    return InfrastructureError(
        f"the service does not answer: {why}",
        param=address,
        hint="start one with `astraml up`, or set ASTRAML_ADDRESS (or --address) to one that runs",
    )


def outcome_exit_code(job: Mapping[str, Any]) -> int:
    """The exit code that `astraml run` would have had for a job's end: by the class of its error."""
    if job["status"] == "succeeded":
        return 0
    if job["status"] == "cancelled":
        return RunStopped.exit_code
    return _exit_code({"code": job.get("reason"), **(job.get("error") or {})}, 1)


def _exit_code(error: Mapping[str, Any], otherwise: int) -> int:
    names = (str(error.get("code")), str(error.get("class")))
    return next((_EXIT_CODES[name] for name in names if name in _EXIT_CODES), otherwise)


def _problem(entry: Mapping[str, Any]) -> Problem:
    return Problem(str(entry.get("param") or ""), str(entry.get("message") or ""), entry.get("hint"))
