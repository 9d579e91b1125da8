"""The shapes of projects, members, quotas, tokens and the audit trail, for OpenAPI. Those of bodies check them too."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from astraml_ray.access.permissions import Permission
from astraml_ray.api.errors import ParameterError
from astraml_ray.api.parameters import parse_time
from astraml_ray.api.requests import RawBody
from astraml_ray.api.schemas import Shape
from astraml_ray.errors import Problem
from astraml_ray.spec.base import Duration, seconds_of

__all__ = [
    "AuditCheck",
    "AuditEntry",
    "AuditPage",
    "CanI",
    "Expiring",
    "Held",
    "Input",
    "Member",
    "MemberPage",
    "MemberRequest",
    "NewToken",
    "PermissionEntry",
    "PermissionList",
    "Project",
    "ProjectPage",
    "ProjectRequest",
    "ProjectRole",
    "ProjectSummary",
    "Quota",
    "QuotaRequest",
    "QuotaUse",
    "Token",
    "TokenPage",
    "TokenRequest",
    "Whoami",
    "read_input",
]

RoleName = Literal["viewer", "submitter", "editor", "project_admin", "org_admin"]
PermissionName = Annotated[str, Field(json_schema_extra={"enum": [permission.value for permission in Permission]})]
_LONGEST_S = 100 * 365 * 86400.0


class QuotaUse(Shape):
    """What is taken."""

    gpus: float
    """Held now."""
    jobs: int
    """Running now."""
    gpu_hours: float
    """Of the last seven days."""


class Quota(Shape):
    """The most that a project, or the organisation, may have; null is no bound."""

    project_id: str | None
    """Null is the organisation."""
    gpus_at_once: int | None
    jobs_at_once: int | None
    gpu_hours_per_week: float | None
    updated_at: datetime | None
    updated_by: str | None
    used: QuotaUse


class ProjectSummary(Shape):
    """A project, as in lists."""

    id: str
    title: str | None
    created_at: datetime
    created_by: str
    archived_at: datetime | None
    """An archived project keeps its jobs and takes no new ones."""
    role: RoleName | None
    """The caller's."""


class Project(ProjectSummary):
    """A project."""

    permissions: list[str]
    """Everything that the caller may do there, with this token."""
    quota: Quota


class ProjectPage(Shape):
    """A page of projects, by id."""

    data: list[ProjectSummary]
    next_cursor: str | None


class Member(Shape):
    """Someone's role."""

    project_id: str | None
    """Null is the organisation, and so every project."""
    subject: str
    role: str
    permissions: list[str]
    """Given one by one, besides the role."""
    expires_at: datetime | None
    active: bool
    """Whether it has not expired."""
    updated_at: datetime
    updated_by: str


class MemberPage(Shape):
    """A page of members, by name."""

    data: list[Member]
    next_cursor: str | None


class ProjectRole(Shape):
    """What someone is in one project."""

    project_id: str
    role: RoleName | None
    permissions: list[str]
    """Given one by one, besides the role."""


class Whoami(Shape):
    """Whom a token stands for."""

    subject: str
    token_id: str
    expires_at: datetime | None
    bound: str | None
    """The only project where the token counts."""
    organisation_role: RoleName | None
    """Held in every project."""
    projects: list[ProjectRole]
    scopes: list[str] | None
    """The only permissions of this token; null is all of its roles'."""


class CanI(Shape):
    """Whether something may be done."""

    allowed: bool
    permission: str
    project_id: str | None
    role: RoleName | None
    """The caller's there."""
    roles: list[str]
    """Those that have the permission."""
    reason: str


class Held(Shape):
    """Everything that may be done."""

    project_id: str | None
    role: RoleName | None
    permissions: list[str]


class PermissionEntry(Shape):
    """A row of the table of permissions."""

    permission: str
    meaning: str
    roles: list[str]
    singly: bool
    """Whether a member may be given it one by one, besides the role."""


class PermissionList(Shape):
    """The table of permissions."""

    data: list[PermissionEntry]


class Token(Shape):
    """A token, without what makes it one."""

    id: str
    subject: str
    kind: str
    project_id: str | None
    """The only project where it counts."""
    role: str | None
    """Of a service token."""
    permissions: list[str] | None
    """The only ones it has; null is all of its roles'."""
    note: str | None
    status: Literal["active", "expired", "revoked"]
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    last_used_at: datetime | None
    """To the minute."""
    revoked_at: datetime | None


class NewToken(Token):
    """A token that was just made."""

    token: str
    """Shown this once."""


class TokenPage(Shape):
    """A page of tokens, newest first."""

    data: list[Token]
    next_cursor: str | None


class AuditEntry(Shape):
    """A change."""

    seq: int
    """1, 2, 3 ... without gaps."""
    at: datetime
    actor: str
    token_id: str | None
    project_id: str | None
    """Null is the organisation."""
    action: str
    target: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    seal: str
    """SHA-256 of this change and of the seal before it."""


class AuditPage(Shape):
    """A page of changes: the newest first, or the oldest first with `after`."""

    data: list[AuditEntry]
    next_cursor: str | None


class AuditCheck(Shape):
    """Whether the trail is as it was written."""

    whole: bool
    first_broken: int | None
    """The first change that was altered, or that follows a removed one."""
    entries: int
    seal: str | None
    """Of the newest change. Kept elsewhere, it tells later whether the trail's end was cut off."""


class Input(Shape):
    """Base of bodies: nothing unknown, and nothing converted."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Expiring(Input):
    """What ends by itself; with neither field it does not."""

    expires_at: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = None
    expires_in: Duration | None = None
    """Such as "90d", from now."""

    def end(self, *, now: float) -> float | None:
        """In seconds since the epoch.

        Raises:
            ParameterError: It is no time, or both are given.
        """
        if self.expires_in is None:
            return parse_time("/expires_at", self.expires_at)
        if self.expires_at is not None:
            raise ParameterError("give expires_at or expires_in", param="/expires_in", hint="leave one of them out")
        seconds = seconds_of(self.expires_in)
        if seconds > _LONGEST_S:
            raise ParameterError("is longer than 100 years", param="/expires_in", hint="leave it out for no end")
        return now + seconds


class ProjectRequest(Input):
    """A project to be made."""

    id: str
    """Letters, digits, `.`, `_` and `-`."""
    title: Annotated[str, Field(max_length=500)] | None = None


class MemberRequest(Expiring):
    """A role to be given, in place of the one that is there."""

    role: RoleName
    permissions: list[PermissionName] = Field(default_factory=list, max_length=50)
    """Besides the role; GET /v2.1/permissions says which can be given like that."""


class QuotaRequest(Input):
    """All three bounds; null takes one away."""

    gpus_at_once: Annotated[int, Field(ge=0, le=1_000_000_000)] | None
    jobs_at_once: Annotated[int, Field(ge=0, le=1_000_000_000)] | None
    gpu_hours_per_week: Annotated[float, Field(ge=0, le=1_000_000_000)] | None


class TokenRequest(Expiring):
    """A token to be made."""

    kind: Literal["personal", "service"] = "personal"
    """A personal one has the roles of its subject; a service one has a role of its own."""
    subject: str | None = None
    """Of a personal one; left out, the caller."""
    name: str | None = None
    """Of a service one, whose subject it becomes, as `service:NAME`."""
    role: RoleName | None = None
    """Of a service one."""
    project_id: str | None = None
    """The only project where it counts; left out, wherever its roles are."""
    permissions: Annotated[list[PermissionName], Field(max_length=50)] | None = None
    """The only ones it has; left out, all of its roles'."""
    note: Annotated[str, Field(max_length=500)] | None = None


_Input = TypeVar("_Input", bound=BaseModel)


def read_input(shape: type[_Input], body: RawBody) -> _Input:
    """What a body asks for.

    Raises:
        ParameterError: With everything that is wrong with it.
    """
    data = body.fields(list(shape.model_fields))
    try:
        return shape.model_validate(data)
    except ValidationError as error:
        raise ParameterError.of(_problem(dict(detail)) for detail in error.errors()) from None


def _problem(detail: dict[str, Any]) -> Problem:
    if detail["type"] == "missing":
        return Problem(f"/{detail['loc'][0]}", "is missing")
    pointer = "/".join(str(part)[:200] for part in ("", *detail["loc"]))
    message = str(detail["msg"]).removeprefix("Value error, ")
    return Problem(pointer, message[0].lower() + message[1:])
