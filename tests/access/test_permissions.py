"""The table of permissions and roles: a change of it is a change here too."""

from __future__ import annotations

import pytest

from astraml_ray.access.permissions import (
    SINGLY,
    TABLE,
    Permission,
    Role,
    allows,
    permissions_of,
    render_table,
    roles_with,
    stronger,
)

# A release never widens a role: what is new goes to a new permission.
EXPECTED = {
    "viewer": "cluster.read job.read policy.read project.read",
    "submitter": "artifact.read job.cancel.own job.resume job.submit secret.list",
    "editor": "job.cancel.any schedule.manage secret.use webhook.read",
    "project_admin": "audit.read member.manage policy.manage secret.manage token.manage webhook.manage",
    "org_admin": "project.create quota.manage",
}


def test_each_role_has_exactly_its_permissions_and_those_below() -> None:
    held: set[str] = set()
    for role in Role:
        held |= set(EXPECTED[role.value].split())
        assert {p.value for p in permissions_of(role)} == held


def test_the_table_is_whole_and_every_permission_has_a_role() -> None:
    assert set(TABLE) == set(Permission)
    for permission in Permission:
        roles = roles_with(permission)
        assert roles
        assert roles[-1] is Role.ORG_ADMIN
        assert all(allows(role, permission) == (role in roles) for role in Role)
        assert not allows(None, permission)


def test_nobody_can_read_a_secret_back() -> None:
    assert not any(p.value.startswith("secret.read") for p in Permission)


def test_roles_compare() -> None:
    assert stronger(Role.EDITOR, Role.VIEWER) is Role.EDITOR
    assert stronger(None, Role.VIEWER) is Role.VIEWER
    assert stronger(None, None) is None


def test_what_is_given_singly_is_more_than_a_viewer_has() -> None:
    assert not SINGLY & permissions_of(Role.VIEWER)


@pytest.mark.parametrize("permission", list(Permission))
def test_the_rendered_table_says_the_same(permission: Permission) -> None:
    row = next(line for line in render_table().splitlines() if line.startswith(f"| `{permission.value}` |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1] == TABLE[permission].meaning
    assert [cell == "✓" for cell in cells[2:]] == [allows(role, permission) for role in Role]
