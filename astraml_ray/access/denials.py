"""Why a request is refused. Each says what is missing and who can give it; none carries a secret.

AccessError               a RequestError with its HTTP status
├── UnauthenticatedError      401  no token, or none that counts
├── TooManyFailuresError      429  too many failed tokens from one address
├── PermissionDeniedError     403  the role lacks a permission
├── ProjectNotFoundError      404  no such project, or not one's own: nothing tells which
├── NotThereError             404  no such member, token, policy version, secret, webhook or delivery
├── AlreadyThereError         409  that name is taken
├── LastAdminError            409  the organisation would have no admin left
├── ProjectArchivedError      409  the project takes no jobs
├── MalformedError            422  a name, a time or a bound that there cannot be
├── PolicyInvalidError        422  a policy names what no job spec has
├── PolicyViolationError      422  a job breaks a policy
├── PolicyChangedError        409  someone changed the policy meanwhile
├── QuotaExceededError        403  more than the project may ever have at once
├── QuotaExhaustedError       429  what the project may have is taken for now
├── SecretNotFoundError       422  a job names a secret that is not there
├── SecretInvalidError        422  a secret's name or value cannot be stored
├── InlineSecretError         422  a job carries a secret as a literal
├── SecretGrantError          403  a worker's grant has expired, or covers something else
└── TargetNotAllowedError     422  an address that the service must not call
PolicyUnreadableError     503  a policy speaks of what this release does not know (the operator's fault)
SecretKeyError            503  the master key is lost, unreadable or wrong (the operator's fault)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from astraml_ray.access.permissions import Permission, roles_with
from astraml_ray.errors import AstraError, Problem, RequestError

__all__ = [
    "AccessError",
    "AlreadyThereError",
    "InlineSecretError",
    "LastAdminError",
    "MalformedError",
    "NotThereError",
    "PermissionDeniedError",
    "PolicyChangedError",
    "PolicyInvalidError",
    "PolicyUnreadableError",
    "PolicyViolationError",
    "ProblemsError",
    "ProjectArchivedError",
    "ProjectNotFoundError",
    "QuotaExceededError",
    "QuotaExhaustedError",
    "SecretGrantError",
    "SecretInvalidError",
    "SecretKeyError",
    "SecretNotFoundError",
    "TargetNotAllowedError",
    "TooManyFailuresError",
    "UnauthenticatedError",
]


class AccessError(RequestError):
    """A request that is refused for who asks, or for what the rules say."""

    code = "access"
    http_status: ClassVar[int] = 403

    def __init__(
        self, message: str, *, param: str | None = None, hint: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, param=param, hint=hint)
        self.retry_after = retry_after
        """Seconds after which it is worth asking again, if time helps at all."""


class UnauthenticatedError(AccessError):
    """There is no token, or none that counts."""

    code = "unauthenticated"
    http_status = 401


class TooManyFailuresError(AccessError):
    """Too many failed tokens came from one address."""

    code = "too_many_failures"
    http_status = 429
    retryable = True


class PermissionDeniedError(AccessError):
    """The role in the project lacks a permission."""

    code = "permission_denied"
    http_status = 403

    def __init__(
        self,
        permission: Permission,
        project_id: str | None,
        *,
        held: str | None = None,
        ask: Sequence[str] = (),
        narrowed: bool = False,
        message: str | None = None,
    ) -> None:
        """
        Args:
            permission: The one that is missing.
            project_id: Where; None is the organisation.
            held: The role held there.
            ask: Who can give it.
            narrowed: The role has it; the token was made without it.
            message: Said instead of the usual sentence.
        """
        where = f"in project {project_id!r}" if project_id is not None else "in the organisation"
        roles = [role.value for role in roles_with(permission)]
        if project_id is None:
            roles = roles[-1:]
        if narrowed:
            hint = f"the token was made without it; use one that has {permission.value}"
        else:
            hint = f"granted by: {', '.join(roles)}" + (f"; you are {held}" if held else "")
            hint += f"; ask {', '.join(ask)}" if ask else ""
        super().__init__(message or f"{permission.value} is missing {where}", hint=hint)
        self.permission = permission.value
        self.roles = roles

    def as_dict(self) -> dict[str, Any]:
        return {**super().as_dict(), "permission": self.permission, "roles": self.roles}


class ProjectNotFoundError(AccessError):
    """There is no such project, or the caller is no member of it."""

    code = "project_not_found"
    http_status = 404

    def __init__(self, project_id: str) -> None:
        super().__init__(
            f"there is no project {project_id!r} that you may see",
            param="/project_id",
            hint="`astraml project list` shows yours",
        )


class NotThereError(AccessError):
    """There is no such member, token, policy version, secret, webhook or delivery."""

    code = "not_found"
    http_status = 404


class AlreadyThereError(AccessError):
    """That name is taken."""

    code = "already_exists"
    http_status = 409


class LastAdminError(AccessError):
    """The organisation would have no admin left."""

    code = "last_admin"
    http_status = 409


class ProjectArchivedError(AccessError):
    """The project is archived and takes no jobs."""

    code = "project_archived"
    http_status = 409


class MalformedError(AccessError):
    """A name, a time or a bound that there cannot be."""

    code = "invalid_parameter"
    http_status = 422


class ProblemsError(AccessError):
    """Base of refusals that list everything that is wrong, each with a JSON pointer."""

    what: ClassVar[str] = "request"

    def __init__(self, problems: list[Problem], *, hint: str | None = None) -> None:
        count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
        lines = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(f"{self.what}: {count}\n{lines}", param=problems[0].param if problems else None, hint=hint)
        self.problems = problems

    def as_dict(self) -> dict[str, Any]:
        problems = [{"param": p.param, "message": p.message, "hint": p.hint} for p in self.problems]
        return {**super().as_dict(), "problems": problems}


class PolicyInvalidError(ProblemsError):
    """A policy names a field that no job has, or a value that the field cannot have."""

    code = "policy_invalid"
    http_status = 422
    what = "policy"


class PolicyViolationError(ProblemsError):
    """A job breaks a policy of its project or of the organisation."""

    code = "policy_violation"
    http_status = 422
    what = "the job breaks a policy"


class PolicyChangedError(AccessError):
    """Someone else changed the policy since it was read."""

    code = "policy_changed"
    http_status = 409


class QuotaExceededError(AccessError):
    """The job wants more than its project may ever have at once."""

    code = "quota_exceeded"
    http_status = 403


class QuotaExhaustedError(AccessError):
    """What the project may have is taken for now."""

    code = "quota_exhausted"
    http_status = 429
    retryable = True


class SecretNotFoundError(AccessError):
    """A job names a secret that its project does not have."""

    code = "secret_not_found"
    http_status = 422


class SecretInvalidError(AccessError):
    """A secret's name or value cannot be stored."""

    code = "secret_invalid"
    http_status = 422


class InlineSecretError(ProblemsError):
    """A job carries a secret as a literal."""

    code = "inline_secret"
    http_status = 422
    what = "secrets are not written into a job"


class SecretGrantError(AccessError):
    """A worker's grant has expired, or does not cover what it asks for."""

    code = "secret_grant"
    http_status = 403


class TargetNotAllowedError(ProblemsError):
    """A job names an address that the service must not call."""

    code = "target_not_allowed"
    http_status = 422
    what = "addresses that must not be called"


class SecretKeyError(AstraError):
    """The master key that a secret was encrypted with is lost, unreadable or wrong."""

    code = "secret_key"
    exit_code = 30
    http_status: ClassVar[int] = 503


class PolicyUnreadableError(AstraError):
    """A policy in force speaks of what this release does not know."""

    code = "policy_unreadable"
    exit_code = 30
    http_status: ClassVar[int] = 503
