"""Changes to projects, members, quotas, policies and tokens: nobody gives away what they do not have."""

from __future__ import annotations

import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from astraml_ray.access.administration import (
    archive_project,
    create_project,
    grant_role,
    require_open,
    revoke_role,
    set_quota,
)
from astraml_ray.access.denials import (
    AccessError,
    AlreadyThereError,
    InlineSecretError,
    LastAdminError,
    MalformedError,
    NotThereError,
    PermissionDeniedError,
    PolicyChangedError,
    PolicyInvalidError,
    ProjectArchivedError,
    ProjectNotFoundError,
)
from astraml_ray.access.effective import InForce
from astraml_ray.access.gate import Gate
from astraml_ray.access.issuing import (
    ensure_admin_token,
    issue_personal_token,
    issue_service_token,
    revoke_token,
    visible_token,
)
from astraml_ray.access.permissions import Permission, Role
from astraml_ray.access.policy_versions import restore_policy, write_policy
from astraml_ray.access.quotas import Quota
from astraml_ray.access.tokens import Principal, id_of
from astraml_ray.errors import StorageError
from astraml_ray.store.engine import Store
from astraml_ray.store.policies import find_policy, list_policies, policies_in_force
from astraml_ray.store.projects import find_member, find_quota, list_members, list_projects
from astraml_ray.store.tokens import find_token, list_tokens
from tests.access.conftest import NOW, ROOT, principal

ADMIN = principal(Role.PROJECT_ADMIN, subject="lead")


def refused(store: Store, kind: type[AccessError], do: Callable[..., Any], *args: Any, **named: Any) -> AccessError:
    with pytest.raises(kind) as caught, store.write() as conn:
        do(conn, *args, **named, now=NOW)
    return caught.value


def done(store: Store, do: Callable[..., Any], *args: Any, **named: Any) -> Any:
    with store.write() as conn:
        return do(conn, *args, **named, now=NOW)


def test_projects(store: Store) -> None:
    done(store, create_project, ROOT, "p3", title="the third")
    refused(store, AlreadyThereError, create_project, ROOT, "p3")
    refused(store, PermissionDeniedError, create_project, ADMIN, "p4")
    for name in ("", "*", "a b", "../x", "a/b", "-a", "a" * 129, "a\n", "é", "a\0"):
        refused(store, MalformedError, create_project, ROOT, name)
    done(store, archive_project, ROOT, "p3")
    with store.read() as conn:
        assert require_open(conn, "p1").id == "p1"
        with pytest.raises(ProjectArchivedError):
            require_open(conn, "p3")
        with pytest.raises(ProjectNotFoundError):
            require_open(conn, "p\0")
        found = list_projects(conn, limit=10)
        assert [project.id for project in found if project.id.startswith("p")] == ["p1", "p2", "p3"]
        assert [project.id for project in list_projects(conn, ids=["p3", "p2"], after_id="p2", limit=10)] == ["p3"]
        assert list_projects(conn, ids=[], limit=10) == []
    done(store, archive_project, ROOT, "p3", archived=False)
    with store.read() as conn:
        require_open(conn, "p3")
    refused(store, ProjectNotFoundError, archive_project, ROOT, "p9")


def test_roles_are_given_replaced_and_taken(store: Store) -> None:
    done(store, grant_role, ADMIN, "p1", "ana@example.org", Role.VIEWER, permissions={Permission.SECRET_USE})
    done(store, grant_role, ADMIN, "p1", "ana@example.org", Role.EDITOR, expires_at=NOW + 60)
    with store.read() as conn:
        (member,) = list_members(conn, "p1")
    assert (member.subject, member.role, member.permissions, member.expires_at) == (
        "ana@example.org",
        "editor",
        (),
        NOW + 60,
    )
    done(store, revoke_role, ADMIN, "p1", "ana@example.org")
    refused(store, NotThereError, revoke_role, ADMIN, "p1", "ana@example.org")


@pytest.mark.parametrize(
    ("giver", "scope", "role", "permissions", "kind"),
    [
        (principal(Role.EDITOR), "p1", Role.VIEWER, (), PermissionDeniedError),
        (ADMIN, "p2", Role.VIEWER, (), ProjectNotFoundError),
        (ADMIN, "p9", Role.VIEWER, (), ProjectNotFoundError),
        (ADMIN, "*", Role.VIEWER, (), PermissionDeniedError),
        (ADMIN, "p1", Role.ORG_ADMIN, (), MalformedError),
        (ROOT, "p1", Role.ORG_ADMIN, (), MalformedError),
        (ADMIN, "p1", Role.VIEWER, (Permission.POLICY_MANAGE,), MalformedError),
        (principal(org=Role.PROJECT_ADMIN), "*", Role.ORG_ADMIN, (), PermissionDeniedError),
        # A token that may manage members and no more gives no more either.
        (
            principal(Role.PROJECT_ADMIN, scopes={Permission.MEMBER_MANAGE}),
            "p1",
            Role.PROJECT_ADMIN,
            (),
            PermissionDeniedError,
        ),
        (
            principal(Role.PROJECT_ADMIN, scopes={Permission.MEMBER_MANAGE, *list(Permission)[:4]}),
            "p1",
            Role.VIEWER,
            (Permission.SECRET_USE,),
            PermissionDeniedError,
        ),
    ],
)
def test_nobody_gives_what_they_do_not_have(
    store: Store, giver: Principal, scope: str, role: Role, permissions: Any, kind: type[AccessError]
) -> None:
    refused(store, kind, grant_role, giver, scope, "ana", role, permissions=permissions)
    with store.read() as conn:
        assert find_member(conn, scope, "ana") is None


def test_nobody_takes_from_those_above_them(store: Store) -> None:
    done(store, grant_role, ROOT, "*", "boss", Role.ORG_ADMIN)
    done(store, grant_role, ROOT, "*", "boss2", Role.ORG_ADMIN)
    below = principal(org=Role.PROJECT_ADMIN)
    refused(store, PermissionDeniedError, revoke_role, below, "*", "boss")
    refused(store, PermissionDeniedError, grant_role, below, "*", "boss", Role.VIEWER)


def test_the_organisation_keeps_an_admin(store: Store) -> None:
    done(store, grant_role, ROOT, "*", "boss", Role.ORG_ADMIN)
    refused(store, LastAdminError, revoke_role, ROOT, "*", "boss")
    refused(store, LastAdminError, grant_role, ROOT, "*", "boss", Role.VIEWER)
    refused(store, LastAdminError, grant_role, ROOT, "*", "boss", Role.ORG_ADMIN, expires_at=NOW + 60)
    done(store, grant_role, ROOT, "*", "boss2", Role.ORG_ADMIN)
    done(store, revoke_role, ROOT, "*", "boss")


@pytest.mark.parametrize("subject", ["", "a b", "service:ci", "a\n", "*", "x" * 101, "é", "a\0", "../a"])
def test_names_that_nobody_has(store: Store, subject: str) -> None:
    refused(store, MalformedError, grant_role, ADMIN, "p1", subject, Role.VIEWER)
    refused(store, MalformedError, issue_personal_token, ROOT, subject)
    refused(store, MalformedError, issue_service_token, ROOT, subject, Role.VIEWER, project_id="p1")


@pytest.mark.parametrize("expires_at", [NOW, NOW - 1, 0.0, float("nan"), float("inf"), 1e12])
def test_ends_that_cannot_be(store: Store, expires_at: float) -> None:
    refused(store, MalformedError, grant_role, ADMIN, "p1", "ana", Role.VIEWER, expires_at=expires_at)
    refused(store, MalformedError, issue_personal_token, ROOT, "ana", expires_at=expires_at)


def test_quotas(store: Store) -> None:
    bounds: dict[str, Any] = {"gpus_at_once": 4, "jobs_at_once": None, "gpu_hours_per_week": 10.5}
    refused(store, PermissionDeniedError, set_quota, ADMIN, "p1", **bounds)
    done(store, set_quota, ROOT, "p1", **bounds)
    done(store, set_quota, ROOT, "*", **{**bounds, "gpus_at_once": 8})
    done(store, set_quota, ROOT, "p1", **{**bounds, "gpus_at_once": 2})
    refused(store, MalformedError, set_quota, ROOT, "p1", **{**bounds, "gpus_at_once": -1})
    refused(store, MalformedError, set_quota, ROOT, "p1", **{**bounds, "gpu_hours_per_week": float("nan")})
    refused(store, ProjectNotFoundError, set_quota, ROOT, "p9", **bounds)
    with store.read() as conn:
        assert Quota.of(find_quota(conn, "p1")) == Quota("p1", 2, None, 10.5)
        assert Quota.of(find_quota(conn, "*")) == Quota("*", 8, None, 10.5)
        assert Quota.of(find_quota(conn, "p2")) is None


def test_policies_have_versions_that_stay_and_come_back(store: Store) -> None:
    one, two = ({"rules": {"resources.gpus": {"max": n}}} for n in (1, 2))
    assert done(store, write_policy, ADMIN, "p1", one, expected=0, note="first").version == 1
    assert done(store, write_policy, ADMIN, "p1", two, expected=1).version == 2
    refused(store, PolicyChangedError, write_policy, ADMIN, "p1", one, expected=1)
    restored = done(store, restore_policy, ADMIN, "p1", 1)
    assert (restored.version, restored.restored_from, restored.document, restored.note) == (3, 1, one, "back to v1")
    refused(store, NotThereError, restore_policy, ADMIN, "p1", 9)
    refused(store, NotThereError, restore_policy, ADMIN, "p1", 2**70)
    refused(store, PolicyInvalidError, write_policy, ADMIN, "p1", {"rules": {"nonsense": {"max": 1}}})
    refused(store, PermissionDeniedError, write_policy, ADMIN, "*", one)
    refused(store, PermissionDeniedError, write_policy, principal(Role.EDITOR), "p1", one)
    refused(store, ProjectNotFoundError, write_policy, ADMIN, "p2", one)
    done(store, write_policy, ROOT, "*", two)
    for verb in ("default", "force"):
        literal = {"rules": {"dataset.path": {verb: "s3://bob:open-sesame@bucket/x"}}}
        error = refused(store, InlineSecretError, write_policy, ADMIN, "p1", literal)
        assert "sesame" not in str(error)
    with store.read() as conn:
        organisation, project = (InForce.of(record) for record in policies_in_force(conn, "p1"))
        assert (str(organisation), str(project)) == ("organisation policy v1", "project policy v3")
        assert [record.version for record in list_policies(conn, "p1", limit=2)] == [3, 2]
        assert [record.version for record in list_policies(conn, "p1", before=2, limit=2)] == [1]
        found = find_policy(conn, "p1", 2)
        assert found is not None
        assert found.document == two
        assert policies_in_force(conn, "p2")[1] is None


def test_of_policies_written_at_once_each_gets_a_version_or_an_error(store: Store) -> None:
    versions: list[int] = []
    conflicts: list[PolicyChangedError] = []

    def write(number: int) -> None:
        try:
            with store.write() as conn:
                document = {"rules": {"resources.gpus": {"max": number}}}
                versions.append(write_policy(conn, ADMIN, "p1", document, expected=0, now=NOW).version)
        except PolicyChangedError as error:
            conflicts.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert versions == [1]
    assert len(conflicts) == 5


def test_people_make_their_own_tokens_and_see_only_those(store: Store) -> None:
    ana, bo = principal(Role.VIEWER), principal(Role.VIEWER, subject="bo")
    token, record = done(store, issue_personal_token, ana, "ana", note="laptop")
    assert token not in str(record)
    refused(store, PermissionDeniedError, issue_personal_token, ana, "bo")
    refused(store, PermissionDeniedError, issue_personal_token, ADMIN, "ana")
    done(store, issue_personal_token, ROOT, "ana")
    with store.read() as conn:
        assert visible_token(conn, ana, record.id) == record
        assert len(list_tokens(conn, subject="ana")) == 2
        for other in (bo, ADMIN):
            with pytest.raises(NotThereError):
                visible_token(conn, other, record.id)
        with pytest.raises(NotThereError):
            visible_token(conn, ana, "\0")
    refused(store, NotThereError, revoke_token, bo, record.id)
    done(store, revoke_token, ana, record.id)
    done(store, revoke_token, ana, record.id)
    with store.read() as conn:
        found = find_token(conn, record.id)
    assert found is not None
    assert found.revoked_at == NOW


@pytest.mark.parametrize(
    ("maker", "named"),
    [
        (principal(Role.EDITOR, scopes={Permission.JOB_READ}), {}),
        (principal(Role.EDITOR, scopes={Permission.JOB_READ}), {"permissions": {Permission.JOB_SUBMIT}}),
        (principal(Role.EDITOR, bound="p1"), {}),
        (principal(Role.EDITOR, bound="p1"), {"project_id": "p2"}),
        (principal(Role.EDITOR), {"project_id": "p2"}),
        (principal(Role.EDITOR), {"project_id": "p9"}),
    ],
)
def test_a_token_makes_none_that_can_do_more(store: Store, maker: Principal, named: dict[str, Any]) -> None:
    refused(store, AccessError, issue_personal_token, maker, "ana", **named)


def test_a_token_makes_none_that_outlives_it(store: Store) -> None:
    ending = principal(Role.VIEWER, expires_at=NOW + 60)
    for asked in (None, NOW + 3600):
        _, record = done(store, issue_personal_token, ending, "ana", expires_at=asked)
        assert record.expires_at == NOW + 60
    _, shorter = done(store, issue_personal_token, ending, "ana", expires_at=NOW + 30)
    assert shorter.expires_at == NOW + 30


def test_a_narrowed_org_admin_makes_no_whole_one(store: Store) -> None:
    narrowed = principal(org=Role.ORG_ADMIN, scopes={Permission.TOKEN_MANAGE})
    refused(store, PermissionDeniedError, issue_personal_token, narrowed, "boss")
    refused(store, PermissionDeniedError, issue_service_token, narrowed, "ci", Role.ORG_ADMIN, project_id=None)
    below = principal(org=Role.PROJECT_ADMIN)
    refused(store, PermissionDeniedError, issue_personal_token, below, "boss")


def test_service_tokens_belong_to_their_project(store: Store) -> None:
    _, record = done(
        store,
        issue_service_token,
        ADMIN,
        "ci",
        Role.SUBMITTER,
        project_id="p1",
        permissions={Permission.JOB_SUBMIT, Permission.JOB_READ},
        expires_at=NOW + 60,
    )
    assert (record.scope, record.role, record.permissions) == ("p1", "submitter", ("job.read", "job.submit"))
    refused(store, MalformedError, issue_service_token, ADMIN, "ci", Role.ORG_ADMIN, project_id="p1")
    refused(store, PermissionDeniedError, issue_service_token, ADMIN, "ci", Role.VIEWER, project_id=None)
    refused(store, ProjectNotFoundError, issue_service_token, ADMIN, "ci", Role.VIEWER, project_id="p2")
    refused(
        store, PermissionDeniedError, issue_service_token, principal(Role.EDITOR), "x", Role.VIEWER, project_id="p1"
    )
    refused(
        store,
        MalformedError,
        issue_service_token,
        ADMIN,
        "ci",
        Role.VIEWER,
        project_id="p1",
        permissions={Permission.JOB_SUBMIT},
    )
    with store.read() as conn:
        assert [token.id for token in list_tokens(conn, scope="p1")] == [record.id]
        assert visible_token(conn, ADMIN, record.id).id == record.id
        with pytest.raises(NotThereError):
            visible_token(conn, principal(Role.EDITOR), record.id)


def test_the_first_admin_token_stays_with_this_user(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "home" / "token"
    token = ensure_admin_token(store, path, subject="me", now=NOW)
    assert path.read_text() == f"{token}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ensure_admin_token(store, path, subject="me", now=NOW) == token
    gate = Gate(store)
    assert gate.authenticate(f"Bearer {token}", now=NOW, source="::1").org_role is Role.ORG_ADMIN
    with store.read() as conn:
        assert len(list_tokens(conn)) == 1
    with store.write() as conn:
        revoke_token(conn, ROOT, id_of(token) or "", now=NOW)
    assert ensure_admin_token(store, path, subject="me", now=NOW) != token
    path.write_text("nonsense")
    assert id_of(ensure_admin_token(store, path, subject="me", now=NOW))
    assert sorted(p.name for p in path.parent.iterdir()) == ["token"]


def test_a_token_that_cannot_be_kept_is_not_made(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        ensure_admin_token(store, tmp_path / "file" / "token", subject="me", now=NOW)
    with store.read() as conn:
        assert list_tokens(conn) == []
