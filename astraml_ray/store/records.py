"""A job as its row has it, and as it is first written. Pure, with the identifiers that sort by time."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row

from astraml_ray.spec.states import JobStatus

__all__ = ["JobRecord", "NewJob", "first_id_of", "new_id", "new_job_id"]

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_CHARACTERS = 10
_LATEST = 32**_CHARACTERS - 1
_STATUS = 3


@dataclass(frozen=True)
class NewJob:
    """What a job is made of.

    Attributes:
        id: From `new_job_id`; pages are in its order.
        spec: Canonical: every default written out.
        spec_digest: Of the canonical spec.
        api_version: The version the request named.
        project_id: Its project.
        name: For people; may repeat.
        priority: Greater goes first.
        labels: For filters.
        parent_id: The job it resumes or clones.
        relation: "resume" or "clone", if it has a parent.
    """

    id: str
    spec: dict[str, Any]
    spec_digest: str
    api_version: str
    project_id: str
    name: str | None
    priority: int
    labels: dict[str, str] = field(default_factory=dict)
    parent_id: str | None = None
    relation: str | None = None


@dataclass(frozen=True)
class JobRecord:
    """A job's row and its labels; the columns are explained in tables.py."""

    id: str
    project_id: str
    name: str | None
    status: JobStatus
    reason: str | None
    message: str | None
    spec: dict[str, Any]
    spec_digest: str
    api_version: str
    priority: int
    parent_id: str | None
    relation: str | None
    created_at: float
    queued_at: float
    not_before: float | None
    started_at: float | None
    finished_at: float | None
    cancel_mode: str | None
    cancel_requested_at: float | None
    attempt: int
    runner: str | None
    runner_seq: int
    heartbeat_at: float | None
    placement: dict[str, Any] | None
    wait: dict[str, Any] | None
    progress: dict[str, Any] | None
    warnings: list[dict[str, Any]] | None
    run_path: str | None
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    event_seq: int
    log_seq: int
    labels: dict[str, str]

    @classmethod
    def from_row(cls, row: Row[Any], labels: dict[str, str]) -> JobRecord:
        """The record of a whole row, whose columns are in the order of the attributes."""
        values: list[Any] = [*row, labels]
        values[_STATUS] = JobStatus(values[_STATUS])
        return cls(*values)


def new_job_id(now: float) -> str:
    """An identifier that sorts by time: `job-`, ten characters of milliseconds, ten of chance."""
    return new_id("job", now)


def new_id(kind: str, now: float) -> str:
    """An identifier as a job's, of something else: `kind-`, and the twenty characters."""
    return f"{kind}-{first_id_of(now)[-2 * _CHARACTERS : -_CHARACTERS]}{_base32(secrets.randbits(5 * _CHARACTERS))}"


def first_id_of(at: float) -> str:
    """The smallest identifier that a job of this time can have."""
    return f"job-{_base32(round(min(max(at * 1000, 0), _LATEST)))}{_base32(0)}"


def _base32(number: int) -> str:
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(5 * _CHARACTERS - 5, -1, -5))
