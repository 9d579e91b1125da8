"""Projects, members, tokens and the audit trail as the API shows them, and the names that it takes. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from astraml_ray.access.permissions import SINGLY, TABLE, Permission, roles_with
from astraml_ray.access.quotas import gpu_hours, usage_of
from astraml_ray.access.tokens import Principal
from astraml_ray.api.answers import iso_time
from astraml_ray.api.errors import ParameterError
from astraml_ray.api.parameters import encode_cursor
from astraml_ray.api.problems import did_you_mean
from astraml_ray.errors import Problem
from astraml_ray.store.access import GpuTime
from astraml_ray.store.access_tables import ORGANISATION
from astraml_ray.store.audit import AuditRecord
from astraml_ray.store.projects import MemberRecord, ProjectRecord, QuotaRecord
from astraml_ray.store.tokens import TokenRecord

__all__ = [
    "NAME",
    "NUMBER",
    "audit_view",
    "in_order",
    "member_view",
    "page_view",
    "permission_named",
    "permission_table",
    "permissions_named",
    "project_page_view",
    "project_view",
    "quota_view",
    "token_view",
    "whoami_view",
]

NAME = re.compile(r"[!-~]{1,128}")
"""Of a project, subject or token, in a cursor."""
NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)
"""Of a change, in a cursor."""

_Row = TypeVar("_Row")


def project_page_view(project: ProjectRecord, principal: Principal) -> dict[str, Any]:
    """A project, as in lists."""
    role = principal.role_in(project.id)
    return {
        "id": project.id,
        "title": project.title,
        "created_at": iso_time(project.created_at),
        "created_by": project.created_by,
        "archived_at": iso_time(project.archived_at),
        "role": role.value if role else None,
    }


def project_view(
    project: ProjectRecord, principal: Principal, quota: QuotaRecord | None, times: Iterable[GpuTime], *, now: float
) -> dict[str, Any]:
    """A project, with what the caller may do there, and its quota."""
    return {
        **project_page_view(project, principal),
        "permissions": in_order(principal.permissions_in(project.id)),
        "quota": quota_view(project.id, quota, times, now=now),
    }


def quota_view(scope: str, quota: QuotaRecord | None, times: Iterable[GpuTime], *, now: float) -> dict[str, Any]:
    """The bounds of a scope, and what is taken of them; GPU time is that of the last week."""
    usage = usage_of(times)
    return {
        "project_id": _project_of(scope),
        "gpus_at_once": quota.gpus_at_once if quota else None,
        "jobs_at_once": quota.jobs_at_once if quota else None,
        "gpu_hours_per_week": quota.gpu_hours_per_week if quota else None,
        "updated_at": iso_time(quota.updated_at) if quota else None,
        "updated_by": quota.updated_by if quota else None,
        "used": {"gpus": usage.gpus, "jobs": usage.jobs, "gpu_hours": round(gpu_hours(usage.times, now=now), 3)},
    }


def member_view(member: MemberRecord, *, now: float) -> dict[str, Any]:
    """A member."""
    return {
        "project_id": _project_of(member.scope),
        "subject": member.subject,
        "role": member.role,
        "permissions": list(member.permissions),
        "expires_at": iso_time(member.expires_at),
        "active": member.expires_at is None or member.expires_at > now,
        "updated_at": iso_time(member.updated_at),
        "updated_by": member.updated_by,
    }


def token_view(token: TokenRecord, *, now: float) -> dict[str, Any]:
    """A token, never its digest."""
    expired = token.expires_at is not None and token.expires_at <= now
    return {
        "id": token.id,
        "subject": token.subject,
        "kind": token.kind,
        "project_id": token.scope,
        "role": token.role,
        "permissions": None if token.permissions is None else list(token.permissions),
        "note": token.note,
        "status": "revoked" if token.revoked_at is not None else "expired" if expired else "active",
        "created_at": iso_time(token.created_at),
        "created_by": token.created_by,
        "expires_at": iso_time(token.expires_at),
        "last_used_at": iso_time(token.last_used_at),
        "revoked_at": iso_time(token.revoked_at),
    }


def audit_view(change: AuditRecord) -> dict[str, Any]:
    """A change."""
    return {
        "seq": change.seq,
        "at": iso_time(change.at),
        "actor": change.actor,
        "token_id": change.token_id,
        "project_id": _project_of(change.scope),
        "action": change.action,
        "target": change.target,
        "before": _with_times(change.before),
        "after": _with_times(change.after),
        "seal": change.digest,
    }


def whoami_view(principal: Principal) -> dict[str, Any]:
    """Whom a token stands for."""
    projects = [
        {
            "project_id": project,
            "role": role.value if (role := principal.roles.get(project)) else None,
            "permissions": in_order(principal.singly.get(project, ())),
        }
        for project in sorted({*principal.roles, *principal.singly})
    ]
    return {
        "subject": principal.subject,
        "token_id": principal.token_id,
        "expires_at": iso_time(principal.expires_at),
        "bound": principal.bound,
        "organisation_role": principal.org_role.value if principal.org_role else None,
        "projects": projects,
        "scopes": None if principal.scopes is None else in_order(principal.scopes),
    }


def permission_table() -> list[dict[str, Any]]:
    """The table of permissions."""
    return [
        {
            "permission": permission.value,
            "meaning": grant.meaning,
            "roles": [role.value for role in roles_with(permission)],
            "singly": permission in SINGLY,
        }
        for permission, grant in TABLE.items()
    ]


def in_order(permissions: Iterable[Permission]) -> list[str]:
    """Names in the order of the table."""
    held = set(permissions)
    return [permission.value for permission in Permission if permission in held]


def permission_named(name: str, *, param: str) -> Permission:
    """The permission of a name.

    Raises:
        ParameterError: There is none.
    """
    return permissions_named([name], param=lambda _: param)[0]


def permissions_named(
    names: Sequence[str], *, param: Callable[[int], str] = lambda index: f"/permissions/{index}"
) -> list[Permission]:
    """The permissions of names, in a field of a body.

    Raises:
        ParameterError: There is none of that name; with all of them.
    """
    known = {permission.value: permission for permission in Permission}
    problems = [
        Problem(param(index), f"there is no permission {name[:80]!r}", did_you_mean(name, list(known)))
        for index, name in enumerate(names)
        if name not in known
    ]
    if problems:
        raise ParameterError.of(problems)
    return [known[name] for name in names]


def page_view(
    found: Sequence[_Row], limit: int, key: Callable[[_Row], str], view: Callable[[_Row], dict[str, Any]]
) -> dict[str, Any]:
    """A page of rows, of which one more than `limit` tells that there is another page."""
    page = found[:limit]
    more = encode_cursor(key(page[-1])) if len(found) > limit else None
    return {"data": [view(row) for row in page], "next_cursor": more}


def _with_times(values: dict[str, Any] | None) -> dict[str, Any] | None:
    """With times as they are everywhere in the API."""
    if values is None:
        return None
    return {
        name: iso_time(value) if name.endswith("_at") and isinstance(value, (int, float)) else value
        for name, value in values.items()
    }


def _project_of(scope: str) -> str | None:
    return None if scope == ORGANISATION else scope
