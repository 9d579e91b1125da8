"""Tokens: what is one, which counts, and whom it stands for."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astraml_ray.access.denials import PermissionDeniedError, ProjectNotFoundError, UnauthenticatedError
from astraml_ray.access.permissions import Permission, Role, permissions_of
from astraml_ray.access.tokens import bearer_of, check_token, digest_of, id_of, make_token, principal_of
from astraml_ray.store.projects import MemberRecord
from astraml_ray.store.tokens import TokenRecord
from tests.access.conftest import NOW, principal

TOKEN = make_token()
RECORD = TokenRecord(
    id=id_of(TOKEN) or "",
    digest=digest_of(TOKEN),
    subject="ana",
    kind="personal",
    scope=None,
    role=None,
    permissions=None,
    note=None,
    created_at=NOW,
    created_by="root",
    expires_at=None,
)


def member(scope: str, role: str, *permissions: str) -> MemberRecord:
    return MemberRecord(scope, "ana", role, permissions, None, NOW, "root")


def test_tokens_are_random_and_name_themselves() -> None:
    tokens = {make_token() for _ in range(100)}
    assert len(tokens) == 100
    assert len({id_of(token) for token in tokens}) == 100
    for token in tokens:
        assert re.fullmatch(r"astr_[0-9a-z]{12}_[A-Za-z0-9_-]{43}", token)  # 43 characters of 6 bits: 256 bits
        assert token.split("_")[1] == id_of(token)
        assert token not in digest_of(token)


def test_only_a_bearer_token_in_the_header_is_one() -> None:
    assert bearer_of(f"Bearer {TOKEN}") == TOKEN
    assert bearer_of(f"  bearer   {TOKEN} ") == TOKEN


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "   ",
        TOKEN,
        f"Basic {TOKEN}",
        "Bearer",
        "Bearer ",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN} {TOKEN}",
        f"Bearer {TOKEN.upper()}",
        "Bearer astr_iiiiiiiiiiii_" + "a" * 43,
        "Bearer " + "é" * 60,
        "Bearer \x00",
    ],
    ids=range(14),  # the token is another one each time
)
def test_what_is_no_token(header: str | None) -> None:
    with pytest.raises(UnauthenticatedError):
        bearer_of(header)


@given(st.text(max_size=120))
def test_any_header_is_a_token_or_unauthenticated(text: str) -> None:
    with pytest.raises(UnauthenticatedError):
        bearer_of(text)
    with pytest.raises(UnauthenticatedError):
        bearer_of(f"Bearer {text}")


def test_a_token_counts_until_it_ends() -> None:
    assert check_token(TOKEN, RECORD, now=NOW) is RECORD
    ending = replace(RECORD, expires_at=NOW)
    assert check_token(TOKEN, ending, now=NOW - 0.001) is ending
    for record, word in [
        (ending, "expired"),
        (replace(RECORD, revoked_at=NOW - 5), "revoked"),
        (None, "not known"),
    ]:
        with pytest.raises(UnauthenticatedError, match=word):
            check_token(TOKEN, record, now=NOW)


def test_only_the_whole_token_learns_why_it_no_longer_counts() -> None:
    other = f"astr_{RECORD.id}_{'A' * 43}"
    for record in (RECORD, replace(RECORD, revoked_at=NOW), replace(RECORD, expires_at=NOW), None):
        with pytest.raises(UnauthenticatedError, match="not known") as caught:
            check_token(other, record, now=NOW)
        assert other not in str(caught.value)


def test_a_person_has_the_roles_of_their_memberships() -> None:
    ana = principal_of(RECORD, [member("p1", "editor"), member("p2", "viewer", "secret.use")])
    assert ana.subject == "ana"
    assert ana.role_in("p1") is Role.EDITOR
    assert ana.role_in("p3") is None
    assert ana.role_in(None) is None
    assert ana.may(Permission.JOB_CANCEL_ANY, "p1")
    assert not ana.may(Permission.JOB_SUBMIT, "p2")
    assert ana.may(Permission.SECRET_USE, "p2")
    assert not ana.knows("p3")
    assert ana.projects_with(Permission.SECRET_USE) == {"p1", "p2"}
    assert ana.projects_with(Permission.JOB_SUBMIT) == {"p1"}


def test_a_role_in_the_organisation_holds_everywhere() -> None:
    root = principal_of(RECORD, [member("*", "org_admin"), member("p1", "viewer")])
    assert root.permissions_in("p1") == frozenset(Permission)
    assert root.permissions_in(None) == frozenset(Permission)
    assert root.projects_with(Permission.JOB_READ) is None


def test_project_roles_give_nothing_in_the_organisation_but_a_look_at_the_cluster() -> None:
    ana = principal_of(RECORD, [member("p1", "project_admin")])
    assert ana.permissions_in(None) == {Permission.CLUSTER_READ}
    assert principal_of(RECORD, []).permissions_in(None) == frozenset()


def test_a_token_of_one_project_counts_there_alone() -> None:
    bound = replace(RECORD, scope="p1")
    ana = principal_of(bound, [member("p1", "editor"), member("p2", "project_admin")])
    assert ana.may(Permission.SECRET_USE, "p1")
    assert not ana.knows("p2")
    root = principal_of(bound, [member("*", "org_admin")])
    assert root.may(Permission.POLICY_MANAGE, "p1")
    assert not root.knows("p2")
    assert not root.may(Permission.PROJECT_CREATE, None)
    assert not principal_of(bound, [member("p2", "viewer")]).knows("p1")


def test_a_narrowed_token_has_no_more_than_its_permissions() -> None:
    narrowed = replace(RECORD, permissions=("job.read", "policy.manage", "of.another.release"))
    ana = principal_of(narrowed, [member("p1", "editor")])
    assert ana.permissions_in("p1") == {Permission.JOB_READ}
    with pytest.raises(PermissionDeniedError, match="made without it"):
        ana.require(Permission.JOB_SUBMIT, "p1")


def test_a_service_has_its_own_role_and_no_other() -> None:
    service = replace(RECORD, kind="service", scope="p1", role="submitter")
    ci = principal_of(service, [member("p1", "project_admin"), member("*", "org_admin")])
    assert ci.permissions_in("p1") == permissions_of(Role.SUBMITTER)
    assert not ci.knows("p2")
    auditor = principal_of(replace(service, scope=None, role="org_admin", permissions=("audit.read",)), [])
    assert auditor.permissions_in("p2") == {Permission.AUDIT_READ}


def test_roles_of_another_release_give_nothing() -> None:
    assert not principal_of(RECORD, [member("p1", "emperor")]).knows("p1")
    assert not principal_of(replace(RECORD, kind="service", scope="p1", role="emperor"), []).knows("p1")


def test_existence_is_private_and_a_missing_permission_is_named() -> None:
    ana = principal(Role.VIEWER)
    ana.require(Permission.JOB_READ, "p1")
    with pytest.raises(ProjectNotFoundError):
        ana.require(Permission.JOB_READ, "p2")
    with pytest.raises(PermissionDeniedError, match=r"job\.submit") as caught:
        ana.require(Permission.JOB_SUBMIT, "p1")
    assert "you are viewer" in str(caught.value.hint)
    with pytest.raises(PermissionDeniedError):
        ana.require(Permission.PROJECT_CREATE, None)
