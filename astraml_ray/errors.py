"""The error hierarchy. Every error says what happened, where (`param`), and what to do (`hint`).

AstraError
├── SpecError             exit 10   the spec is wrong: all problems at once, each with a JSON pointer
├── ModelError            exit 10   the model cannot be had or does not suit the task
├── DataError             exit 20   the dataset is missing, damaged or does not suit the task
├── MemoryExhaustedError  exit 21   a worker ran out of memory
├── NumericError          exit 22   a loss or a gradient is not finite
├── InfrastructureError   exit 30   a worker, the cluster or the network failed; the only class tried again
│   └── ResourcesError    exit 30   the cluster cannot hold the run; not tried again
├── StorageError          exit 30   the run's folder cannot be read or written
└── RunStopped            exit 40   the run was asked to stop: saved, and ready to be resumed

They pickle whole, because they cross process boundaries on Ray.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

__all__ = [
    "AstraError",
    "DataError",
    "InfrastructureError",
    "MemoryExhaustedError",
    "ModelError",
    "NumericError",
    "Problem",
    "ResourcesError",
    "RunStopped",
    "SpecError",
    "StorageError",
]


class AstraError(Exception):
    """Base of all errors meant for users.

    Args:
        message: What happened.
        param: The field (JSON pointer) or object (URI, row) it is about.
        hint: What to do.
    """

    code: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

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
        fields = {"code": self.code, "message": self.message, "param": self.param, "hint": self.hint}
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


class StorageError(AstraError):
    """The run's folder cannot be read or written."""

    code = "storage"
    exit_code = 30


class RunStopped(AstraError):
    """The run was asked to stop and has saved itself."""

    code = "stopped"
    exit_code = 40
