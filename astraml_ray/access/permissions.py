"""The one table of who may do what. Pure.

Roles are ordered: `viewer < submitter < editor < project_admin < org_admin`, and each holds whatever the ones below
it hold. So a permission needs no more than the lowest role that has it. A release never widens a role.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

__all__ = [
    "ANYWHERE",
    "PROJECT_ROLES",
    "SINGLY",
    "TABLE",
    "Grant",
    "Permission",
    "Role",
    "allows",
    "permissions_of",
    "render_table",
    "roles_with",
    "stronger",
]


class Role(str, Enum):
    """What a member is, lowest first. All but the last are held in one project."""

    VIEWER = "viewer"
    SUBMITTER = "submitter"
    EDITOR = "editor"
    PROJECT_ADMIN = "project_admin"
    #: Held in the organisation, and so in every project.
    ORG_ADMIN = "org_admin"


class Permission(str, Enum):
    """What a route asks for. There is no permission to read a secret back: nobody can."""

    PROJECT_READ = "project.read"
    JOB_READ = "job.read"
    POLICY_READ = "policy.read"
    CLUSTER_READ = "cluster.read"
    JOB_SUBMIT = "job.submit"
    JOB_RESUME = "job.resume"
    JOB_CANCEL_OWN = "job.cancel.own"
    ARTIFACT_READ = "artifact.read"
    SECRET_LIST = "secret.list"
    JOB_CANCEL_ANY = "job.cancel.any"
    SECRET_USE = "secret.use"
    SCHEDULE_MANAGE = "schedule.manage"
    WEBHOOK_READ = "webhook.read"
    SECRET_MANAGE = "secret.manage"
    WEBHOOK_MANAGE = "webhook.manage"
    POLICY_MANAGE = "policy.manage"
    MEMBER_MANAGE = "member.manage"
    TOKEN_MANAGE = "token.manage"
    AUDIT_READ = "audit.read"
    PROJECT_CREATE = "project.create"
    QUOTA_MANAGE = "quota.manage"


@dataclass(frozen=True)
class Grant:
    """The lowest role that has a permission, and what the permission is for."""

    lowest: Role
    meaning: str


TABLE: Mapping[Permission, Grant] = {
    Permission.PROJECT_READ: Grant(Role.VIEWER, "see the project, its members and its quota"),
    Permission.JOB_READ: Grant(Role.VIEWER, "see jobs, events, logs and metrics"),
    Permission.POLICY_READ: Grant(Role.VIEWER, "see the policy, its versions and where a field's value is from"),
    Permission.CLUSTER_READ: Grant(Role.VIEWER, "see what the cluster has"),
    Permission.JOB_SUBMIT: Grant(Role.SUBMITTER, "submit, validate and clone jobs"),
    Permission.JOB_RESUME: Grant(Role.SUBMITTER, "resume a job that failed or was cancelled"),
    Permission.JOB_CANCEL_OWN: Grant(Role.SUBMITTER, "cancel jobs that one submitted oneself"),
    Permission.ARTIFACT_READ: Grant(Role.SUBMITTER, "download models, checkpoints and records"),
    Permission.SECRET_LIST: Grant(Role.SUBMITTER, "see the names of the secrets and who used them, never a value"),
    Permission.JOB_CANCEL_ANY: Grant(Role.EDITOR, "cancel anyone's job"),
    Permission.SECRET_USE: Grant(Role.EDITOR, "name a secret in a job"),
    Permission.SCHEDULE_MANAGE: Grant(Role.EDITOR, "make, change and pause schedules"),
    Permission.WEBHOOK_READ: Grant(Role.EDITOR, "see webhooks and what they were told, never an address or a key"),
    Permission.SECRET_MANAGE: Grant(Role.PROJECT_ADMIN, "store, replace and delete secrets"),
    Permission.WEBHOOK_MANAGE: Grant(Role.PROJECT_ADMIN, "make, change, test and delete webhooks, and send again"),
    Permission.POLICY_MANAGE: Grant(Role.PROJECT_ADMIN, "change the policy"),
    Permission.MEMBER_MANAGE: Grant(Role.PROJECT_ADMIN, "give and take roles"),
    Permission.TOKEN_MANAGE: Grant(Role.PROJECT_ADMIN, "make, list and revoke tokens of the project"),
    Permission.AUDIT_READ: Grant(Role.PROJECT_ADMIN, "read who changed what"),
    Permission.PROJECT_CREATE: Grant(Role.ORG_ADMIN, "create and archive projects"),
    Permission.QUOTA_MANAGE: Grant(Role.ORG_ADMIN, "change quotas"),
}

PROJECT_ROLES: tuple[Role, ...] = tuple(role for role in Role if role is not Role.ORG_ADMIN)

SINGLY: frozenset[Permission] = frozenset(
    {Permission.ARTIFACT_READ, Permission.AUDIT_READ, Permission.SECRET_MANAGE, Permission.SECRET_USE}
)
"""Permissions that a member may be given one by one, besides the role."""

ANYWHERE: frozenset[Permission] = frozenset({Permission.CLUSTER_READ})
"""Permissions that belong to no project: whoever has them in one project has them."""

_ORDER = tuple(Role)


def stronger(one: Role | None, other: Role | None) -> Role | None:
    """The higher of two roles; None is no role."""
    held = [role for role in (one, other) if role is not None]
    return max(held, key=_ORDER.index) if held else None


def allows(role: Role | None, permission: Permission) -> bool:
    """Whether a role has a permission."""
    return role is not None and _ORDER.index(role) >= _ORDER.index(TABLE[permission].lowest)


def roles_with(permission: Permission) -> tuple[Role, ...]:
    """The roles that have a permission, lowest first."""
    return tuple(role for role in Role if allows(role, permission))


def permissions_of(role: Role | None) -> frozenset[Permission]:
    """Everything that a role may do."""
    return frozenset(permission for permission in Permission if allows(role, permission))


def render_table() -> str:
    """The table as Markdown, for the documentation."""
    head = ["permission", "for", *(role.value for role in Role)]
    rows = [
        [f"`{p.value}`", grant.meaning, *("✓" if allows(role, p) else "" for role in Role)]
        for p, grant in TABLE.items()
    ]
    lines = [head, ["---", "---", *(":-:" for _ in Role)], *rows]
    singly = ", ".join(f"`{p.value}`" for p in Permission if p in SINGLY)
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    return f"{table}\n\nGiven to a member one by one, besides the role: {singly}.\n"
