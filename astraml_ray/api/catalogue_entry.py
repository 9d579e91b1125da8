"""CatalogueEntry: what is told of one error code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["CatalogueEntry", "ErrorClass", "Stage", "job_failure", "request_error", "service_error"]

ErrorClass = Literal[
    "request", "data", "memory", "numeric", "infrastructure", "storage", "limit", "cancelled", "service", "internal"
]
Stage = Literal["request", "queue", "start", "train", "service"]


@dataclass(frozen=True)
class CatalogueEntry:
    """One code.

    Attributes:
        code: Stable; programs branch on it.
        title: The same for every occurrence.
        status: Of the HTTP answer; None for what only jobs fail with.
        error_class: Whose fault it is, roughly.
        stage: When it happens.
        retryable: Whether the same thing may work later, unchanged.
        retry_after_s: What `Retry-After` says.
        cause: Why it happens.
        action: What to do.
    """

    code: str
    title: str
    status: int | None
    error_class: ErrorClass
    stage: Stage
    retryable: bool
    retry_after_s: int | None
    cause: str
    action: str


def request_error(
    code: str, status: int, title: str, cause: str, action: str, *, retry_after_s: int | None = None
) -> CatalogueEntry:
    """The client's fault, or a conflict that it can resolve."""
    retryable = retry_after_s is not None
    return CatalogueEntry(code, title, status, "request", "request", retryable, retry_after_s, cause, action)


def service_error(
    code: str, status: int, title: str, cause: str, action: str, *, retry_after_s: int | None = None
) -> CatalogueEntry:
    """The service's fault."""
    retryable = code != "internal"
    kind: ErrorClass = "service" if retryable else "internal"
    return CatalogueEntry(code, title, status, kind, "service", retryable, retry_after_s, cause, action)


def job_failure(
    code: str,
    error_class: ErrorClass,
    stage: Stage,
    title: str,
    cause: str,
    action: str,
    *,
    status: int | None = None,
    retryable: bool = False,
) -> CatalogueEntry:
    """What jobs fail with; with a status, a dry run can find it too."""
    retry_after_s = 5 if retryable and status else None
    return CatalogueEntry(code, title, status, error_class, stage, retryable, retry_after_s, cause, action)
