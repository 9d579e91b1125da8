"""What other policies would have made of jobs that were submitted before. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from astraml_ray.access.effective import InForce, apply_policies
from astraml_ray.access.fields import flatten
from astraml_ray.errors import Problem, SpecError

__all__ = ["FieldChange", "PastJob", "ReplayReport", "ReplayedJob", "replay"]


@dataclass(frozen=True)
class PastJob:
    """A job as it was asked for, and as it ran.

    Attributes:
        id: The job.
        request: What was asked for; `effective.request_of` has it from a provenance, and the canonical spec will do
            where none was kept, though defaults can then change nothing.
        document: The canonical spec that ran.
    """

    id: str
    request: Mapping[str, Any]
    document: Mapping[str, Any]


@dataclass(frozen=True)
class FieldChange:
    """A field that would have been another; None also stands for a field that is not there."""

    path: str
    before: Any
    after: Any


@dataclass(frozen=True)
class ReplayedJob:
    """A job that would have been changed, or rejected."""

    id: str
    changes: tuple[FieldChange, ...] = ()
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class ReplayReport:
    """How many jobs there were, and those that would have gone differently."""

    total: int
    changed: tuple[ReplayedJob, ...]
    rejected: tuple[ReplayedJob, ...]

    def __str__(self) -> str:
        return f"of {self.total} jobs, {len(self.changed)} would have changed and {len(self.rejected)} been rejected"


def replay(
    jobs: Iterable[PastJob], *, organisation: InForce | None = None, project: InForce | None = None
) -> ReplayReport:
    """Submits past jobs again under these policies, in thought."""
    total = 0
    changed: list[ReplayedJob] = []
    rejected: list[ReplayedJob] = []
    for job in jobs:
        total += 1
        try:
            outcome = apply_policies(job.request, organisation=organisation, project=project)
        except SpecError as error:
            rejected.append(ReplayedJob(job.id, problems=tuple(error.problems)))
            continue
        if outcome.problems:
            rejected.append(ReplayedJob(job.id, problems=tuple(outcome.problems)))
            continue
        changes = _changes(job.document, outcome.document)
        if changes:
            changed.append(ReplayedJob(job.id, changes=changes))
    return ReplayReport(total, tuple(changed), tuple(rejected))


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[FieldChange, ...]:
    one, two = flatten(before), flatten(after)
    parts = sorted(parts for parts in {*one, *two} if one.get(parts) != two.get(parts))
    return tuple(FieldChange(".".join(name), one.get(name), two.get(name)) for name in parts)
