"""The way in: from a header to someone who may do what a route asks for, over both databases."""

from __future__ import annotations

import threading

import pytest

from astraml_ray.access.denials import (
    PermissionDeniedError,
    ProjectNotFoundError,
    TooManyFailuresError,
    UnauthenticatedError,
)
from astraml_ray.access.gate import Gate, TokenCache, require_cancel
from astraml_ray.access.issuing import issue_personal_token, issue_service_token
from astraml_ray.access.limiter import FailureLimiter
from astraml_ray.access.permissions import TABLE, Permission, Role, allows
from astraml_ray.access.tokens import id_of, make_token
from astraml_ray.store.engine import Store
from astraml_ray.store.projects import remove_member, set_member
from astraml_ray.store.tokens import find_token, revoke_token
from tests.access.conftest import NOW, ROOT, principal

HERE = "1.2.3.4"


def bearer(token: str) -> str:
    return f"Bearer {token}"


def person(store: Store, role: Role | None, *, subject: str = "ana", scope: str = "p1") -> str:
    """A token of someone with a role."""
    with store.write() as conn:
        if role is not None:
            set_member(conn, scope, subject, role.value, actor=ROOT.actor, now=NOW)
        return issue_personal_token(conn, ROOT, subject, now=NOW)[0]


def test_every_role_is_let_through_where_the_table_says_so(store: Store) -> None:
    gate = Gate(store)
    for role in Role:
        scope = "*" if role is Role.ORG_ADMIN else "p1"
        header = bearer(person(store, role, subject=f"a-{role.value.replace('_', '-')}", scope=scope))
        for permission in Permission:
            if allows(role, permission):
                found = gate.authorize(header, permission, "p1", now=NOW, source=HERE)
                assert found.role_in("p1") is role
                continue
            with pytest.raises(PermissionDeniedError) as caught:
                gate.authorize(header, permission, "p1", now=NOW, source=HERE)
            assert caught.value.permission == permission.value
            assert TABLE[permission].lowest.value in caught.value.roles


def test_a_refusal_names_those_who_can_help(store: Store) -> None:
    gate = Gate(store)
    person(store, Role.PROJECT_ADMIN, subject="lead")
    person(store, Role.ORG_ADMIN, subject="boss", scope="*")
    viewer = bearer(person(store, Role.VIEWER))
    with pytest.raises(PermissionDeniedError) as caught:
        gate.authorize(viewer, Permission.JOB_SUBMIT, "p1", now=NOW, source=HERE)
    assert "you are viewer; ask lead" in str(caught.value.hint)
    with pytest.raises(PermissionDeniedError) as caught:
        gate.authorize(viewer, Permission.QUOTA_MANAGE, "p1", now=NOW, source=HERE)
    assert "ask boss" in str(caught.value.hint)


def test_other_projects_and_none_look_the_same(store: Store) -> None:
    gate = Gate(store)
    ana = bearer(person(store, Role.PROJECT_ADMIN))
    texts = set()
    for project_id in ("p2", "p9"):
        with pytest.raises(ProjectNotFoundError) as caught:
            gate.authorize(ana, Permission.JOB_READ, project_id, now=NOW, source=HERE)
        texts.add(str(caught.value).replace(project_id, "X"))
    assert len(texts) == 1
    root = bearer(person(store, Role.ORG_ADMIN, subject="boss", scope="*"))
    gate.authorize(root, Permission.JOB_READ, "p2", now=NOW, source=HERE)
    with pytest.raises(ProjectNotFoundError):
        gate.authorize(root, Permission.JOB_READ, "p9", now=NOW, source=HERE)


def test_without_a_token_there_is_no_way_in(store: Store) -> None:
    gate = Gate(store)
    for header in (None, "", "Bearer x", bearer(make_token()), "Basic YTpi"):
        with pytest.raises(UnauthenticatedError) as caught:
            gate.authorize(header, Permission.JOB_READ, "p1", now=NOW, source=HERE)
        assert caught.value.http_status == 401


def test_a_stolen_id_with_another_secret_is_unknown(store: Store) -> None:
    token = person(store, Role.VIEWER)
    forged = f"astr_{id_of(token)}_{make_token()[-43:]}"
    with pytest.raises(UnauthenticatedError, match="not known"):
        Gate(store).authenticate(bearer(forged), now=NOW, source=HERE)


@pytest.mark.parametrize("cached", [True, False])
def test_a_revocation_counts_within_a_second(store: Store, cached: bool) -> None:
    gate = Gate(store)
    token = person(store, Role.VIEWER)
    if cached:
        gate.authenticate(bearer(token), now=NOW, source=HERE)
    with store.write() as conn:  # by another process: this one's cache does not hear of it
        assert revoke_token(conn, id_of(token) or "", actor=ROOT.actor, now=NOW)
    with pytest.raises(UnauthenticatedError, match="revoked"):
        gate.authenticate(bearer(token), now=NOW + 0.95, source=HERE)


def test_a_revocation_counts_at_once_where_the_cache_is_told(store: Store) -> None:
    gate = Gate(store)
    token = person(store, Role.VIEWER)
    gate.authenticate(bearer(token), now=NOW, source=HERE)
    with store.write() as conn:
        revoke_token(conn, id_of(token) or "", actor=ROOT.actor, now=NOW)
    gate.cache.forget()
    with pytest.raises(UnauthenticatedError, match="revoked"):
        gate.authenticate(bearer(token), now=NOW, source=HERE)


def test_a_role_that_is_taken_is_gone_within_a_second(store: Store) -> None:
    gate = Gate(store)
    token = person(store, Role.EDITOR)
    gate.authorize(bearer(token), Permission.JOB_SUBMIT, "p1", now=NOW, source=HERE)
    with store.write() as conn:
        remove_member(conn, "p1", "ana", actor=ROOT.actor, now=NOW)
    with pytest.raises(ProjectNotFoundError):
        gate.authorize(bearer(token), Permission.JOB_SUBMIT, "p1", now=NOW + 0.95, source=HERE)


def test_an_expired_token_is_refused_also_out_of_the_cache(store: Store) -> None:
    gate = Gate(store)
    with store.write() as conn:
        token, _ = issue_personal_token(conn, ROOT, "ana", expires_at=NOW + 0.1, now=NOW)
    gate.authenticate(bearer(token), now=NOW, source=HERE)
    with pytest.raises(UnauthenticatedError, match="expired"):
        gate.authenticate(bearer(token), now=NOW + 0.1, source=HERE)


def test_a_role_that_expires_ends_by_itself(store: Store) -> None:
    gate = Gate(store)
    with store.write() as conn:
        set_member(conn, "p1", "ana", "editor", expires_at=NOW + 10, actor=ROOT.actor, now=NOW)
        token, _ = issue_personal_token(conn, ROOT, "ana", now=NOW)
    gate.authorize(bearer(token), Permission.JOB_SUBMIT, "p1", now=NOW + 9, source=HERE)
    with pytest.raises(ProjectNotFoundError):
        gate.authorize(bearer(token), Permission.JOB_SUBMIT, "p1", now=NOW + 10, source=HERE)


def test_a_service_token_works_where_it_was_made_for(store: Store) -> None:
    gate = Gate(store)
    with store.write() as conn:
        token, record = issue_service_token(
            conn, ROOT, "ci", Role.SUBMITTER, project_id="p1", permissions={Permission.JOB_SUBMIT}, now=NOW
        )
    assert record.subject == "service:ci"
    gate.authorize(bearer(token), Permission.JOB_SUBMIT, "p1", now=NOW, source=HERE)
    with pytest.raises(PermissionDeniedError, match=r"artifact\.read"):
        gate.authorize(bearer(token), Permission.ARTIFACT_READ, "p1", now=NOW, source=HERE)
    with pytest.raises(ProjectNotFoundError):
        gate.authorize(bearer(token), Permission.JOB_SUBMIT, "p2", now=NOW, source=HERE)


def test_the_last_use_is_noted_once_a_minute(store: Store) -> None:
    gate = Gate(store)
    token = person(store, Role.VIEWER)

    def last_used(now: float) -> float | None:
        gate.authenticate(bearer(token), now=now, source=HERE)
        with store.read() as conn:
            record = find_token(conn, id_of(token) or "")
        assert record is not None
        return record.last_used_at

    assert last_used(NOW) == NOW
    assert last_used(NOW + 30) == NOW
    assert last_used(NOW + 59.9) == NOW
    assert last_used(NOW + 61) == NOW + 61
    assert Gate(store).authenticate(bearer(token), now=NOW + 62, source=HERE).subject == "ana"
    with store.read() as conn:
        record = find_token(conn, id_of(token) or "")
    assert record is not None
    assert record.last_used_at == NOW + 61


def test_failures_from_one_address_are_limited_and_good_tokens_are_not(store: Store) -> None:
    gate = Gate(store, limiter=FailureLimiter(tries=3, per_s=60))
    good, unseen = bearer(person(store, Role.VIEWER)), bearer(person(store, Role.VIEWER, subject="bo"))
    gate.authenticate(good, now=NOW, source=HERE)
    for _ in range(3):
        with pytest.raises(UnauthenticatedError):
            gate.authenticate(bearer(make_token()), now=NOW, source=HERE)
    with pytest.raises(TooManyFailuresError) as caught:
        gate.authenticate(bearer(make_token()), now=NOW, source=HERE)
    assert 0 < (caught.value.retry_after or 0) <= 20
    # Behind the same address, whoever was let in before is let in again; others wait.
    gate.authenticate(good, now=NOW + 1, source=HERE)
    with pytest.raises(TooManyFailuresError):
        gate.authenticate(unseen, now=NOW + 1, source=HERE)
    gate.authenticate(unseen, now=NOW + 1, source="1.2.3.5")
    gate.authenticate(unseen, now=NOW + 30, source=HERE)


def test_a_request_without_a_token_is_no_guess(store: Store) -> None:
    gate = Gate(store, limiter=FailureLimiter(tries=1))
    for _ in range(5):
        with pytest.raises(UnauthenticatedError):
            gate.authenticate(None, now=NOW, source=HERE)
    gate.authenticate(bearer(person(store, Role.VIEWER)), now=NOW, source=HERE)


def test_many_threads_at_once(store: Store) -> None:
    gate = Gate(store)
    header = bearer(person(store, Role.VIEWER))
    found: list[str] = []

    def ask() -> None:
        for step in range(20):
            found.append(gate.authenticate(header, now=NOW + step / 10, source=HERE).subject)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["ana"] * 160


def test_the_cache_is_small_and_short() -> None:
    cache = TokenCache(keep_s=100, size=2)
    record = object()
    for number in range(3):
        cache.put(str(number), record, ROOT, now=NOW)  # type: ignore[arg-type]
    assert cache.fresh("0", now=NOW) is None
    assert cache.fresh("2", now=NOW + 0.89) is not None
    assert cache.fresh("2", now=NOW + 0.91) is None
    assert cache.fresh("2", now=NOW - 1) is None  # the clock was set back
    assert cache.knows("2")
    cache.forget("2")
    assert not cache.knows("2")


@pytest.mark.parametrize(
    ("role", "own", "others"),
    [
        (Role.VIEWER, False, False),
        (Role.SUBMITTER, True, False),
        (Role.EDITOR, True, True),
        (Role.PROJECT_ADMIN, True, True),
    ],
)
def test_who_cancels_whose_jobs(role: Role, own: bool, others: bool) -> None:
    for submitted_by, fine in (("ana", own), ("bo", others), (None, others)):
        if fine:
            require_cancel(principal(role), "p1", submitted_by)
        else:
            with pytest.raises(PermissionDeniedError):
                require_cancel(principal(role), "p1", submitted_by)
    with pytest.raises(ProjectNotFoundError):
        require_cancel(principal(role), "p2", "ana")
