"""The shapes of policies, of where a job's fields are from, and of old requests, for OpenAPI."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, WithJsonSchema

from astraml_ray.api.schemas import OpenShape, ProblemItem, Shape
from astraml_ray.api.schemas_access import Input

__all__ = [
    "FieldChange",
    "FieldOrigin",
    "Move",
    "OldSpec",
    "PolicyChange",
    "PolicyDiff",
    "PolicyObject",
    "PolicyPage",
    "PolicyReplay",
    "PolicyRequest",
    "PolicySummary",
    "Provenance",
    "ReplayRequest",
    "ReplayedJob",
    "RestoreRequest",
]

_Version = Annotated[int, Field(ge=0, le=2**31 - 1)]
_Note = Annotated[str, Field(max_length=500)]
# Read by `parse_policy`, which knows the fields of a job.
_Document = Annotated[dict[str, Any], WithJsonSchema({"allOf": [{"$ref": "#/components/schemas/PolicyInput"}]})]


class PolicySummary(Shape):
    """A version of a policy, as in lists."""

    project_id: str | None
    """Null is the organisation."""
    version: int
    """1, 2, 3 ...; 0 while there is none."""
    note: str | None
    restored_from: int | None
    """The version that this one brought back."""
    created_at: datetime | None
    created_by: str | None


class PolicyObject(PolicySummary):
    """A version of a policy."""

    document: dict[str, Any]


class PolicyPage(Shape):
    """A page of versions, newest first."""

    data: list[PolicySummary]
    next_cursor: str | None


class PolicyChange(Shape):
    """One verb of one field that two versions say differently."""

    path: str
    verb: str
    kind: Literal["added", "removed", "changed"]
    before: Any
    """Null also stands for what is not there; `kind` tells."""
    after: Any
    text: str


class PolicyDiff(Shape):
    """What one version says differently from another."""

    from_: int = Field(alias="from")
    to: int
    changes: list[PolicyChange]


class FieldChange(Shape):
    """A field that would have been another; null also stands for a field that is not there."""

    path: str
    before: Any
    after: Any


class ReplayedJob(Shape):
    """A job that would have gone differently."""

    job_id: str
    outcome: Literal["changed", "rejected"]
    changes: list[FieldChange]
    problems: list[ProblemItem]


class PolicyReplay(Shape):
    """What a policy would have made of past jobs."""

    total: int
    changed: int
    rejected: int
    summary: str
    jobs: list[ReplayedJob]
    """Those that would have gone differently, newest first."""
    truncated: bool
    """Whether there are more of them than are listed."""


class FieldOrigin(OpenShape):
    """A field's value, and where it is from."""

    value: Any
    source: str | None
    """`request`, `built-in`, `sweep`, or whose policy and what of it: `project default`; null is not known."""
    policy_version: int | None


class Move(OpenShape):
    """What became of one field of an older request."""

    from_path: str | None
    to_path: str | None
    value: Any
    kind: str
    """`moved`, `default` (it was left out), `verify` (it may have meant something else) or `dropped`."""
    note: str | None


class Provenance(Shape):
    """Where a job is from: who asked, for what, and what became of it."""

    job_id: str
    submitted_by: str | None
    api_version: str | None
    """Of the request as it was sent; null for a job that no request made."""
    request: dict[str, Any] | None
    """As it was sent."""
    migration: list[Move]
    """What moved, of a request of an older version."""
    fields: dict[str, FieldOrigin]
    """By dotted path."""
    explained: list[str]
    """What policies have a hand in: "resources.gpus 4, capped from 8 by project policy v7"."""


class PolicyRequest(Input):
    """A policy to be put in force."""

    document: _Document
    note: _Note | None = None
    """Why."""
    expected: _Version | None = None
    """The version that it was made from (0: none): another one by now is a 409."""


class RestoreRequest(Input):
    """An earlier version to be put in force again, as a new one."""

    version: Annotated[int, Field(ge=1, le=2**31 - 1)]
    note: _Note | None = None
    expected: _Version | None = None


class ReplayRequest(Input):
    """A policy to be tried on past jobs."""

    document: _Document
    last: Annotated[int, Field(ge=1, le=1000)] = 100
    """So many jobs, the newest ones."""


class OldSpec(OpenShape):
    """A spec of v1.x: flat or nested, in any of its spellings."""

    model_config = ConfigDict(extra="allow")
    api_version: Any = None
