"""The trail: every change leaves its row, in order, and no row can be changed unnoticed."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest
import sqlalchemy as sa

from astraml_ray.access import administration as admin
from astraml_ray.access.issuing import issue_personal_token, issue_service_token, revoke_token
from astraml_ray.access.permissions import Permission, Role
from astraml_ray.access.policy_versions import restore_policy, write_policy
from astraml_ray.access.secrets import KeyRing
from astraml_ray.access.vault import delete_secret, put_secret
from astraml_ray.store.audit import Actor, append_audit, broken_audit, list_audit
from astraml_ray.store.engine import Store
from tests.access.conftest import NOW, ROOT

WHO = Actor("ana", "t1")


def add(store: Store, count: int, **given: Any) -> None:
    fields: dict[str, Any] = {"actor": WHO, "scope": "p1", "target": "x", "now": NOW}
    for _ in range(count):
        with store.write() as conn:
            append_audit(conn, "test.done", **{**fields, **given})


def test_every_change_is_there_with_who_what_and_both_sides(store: Store) -> None:
    ring = KeyRing((os.urandom(32),))
    with store.write() as conn:
        admin.create_project(conn, ROOT, "p3", now=NOW)
        admin.grant_role(conn, ROOT, "p3", "ana", Role.VIEWER, permissions={Permission.SECRET_USE}, now=NOW)
        admin.grant_role(conn, ROOT, "p3", "ana", Role.EDITOR, now=NOW)
        admin.revoke_role(conn, ROOT, "p3", "ana", now=NOW)
        write_policy(conn, ROOT, "p3", {"rules": {"seed": {"max": 1}}}, now=NOW)
        write_policy(conn, ROOT, "p3", {"rules": {"seed": {"max": 2}}}, note="wider", now=NOW)
        restore_policy(conn, ROOT, "p3", 1, now=NOW)
        admin.set_quota(conn, ROOT, "p3", gpus_at_once=1, jobs_at_once=None, gpu_hours_per_week=None, now=NOW)
        put_secret(conn, ROOT, ring, "p3", "s3", "the first value", now=NOW)
        put_secret(conn, ROOT, ring, "p3", "s3", "the second value", now=NOW)
        delete_secret(conn, ROOT, "p3", "s3", now=NOW)
        token, record = issue_service_token(conn, ROOT, "ci", Role.VIEWER, project_id="p3", now=NOW)
        revoke_token(conn, ROOT, record.id, now=NOW)
        revoke_token(conn, ROOT, record.id, now=NOW)  # changes nothing
        admin.archive_project(conn, ROOT, "p3", now=NOW)
        admin.archive_project(conn, ROOT, "p3", now=NOW)  # changes nothing
    with store.read() as conn:
        trail = list_audit(conn, scopes=["p3"], after=0, limit=100)
        assert broken_audit(conn) is None
    assert [record.action for record in trail] == [
        "project.created",
        "member.granted",
        "member.granted",
        "member.revoked",
        "policy.changed",
        "policy.changed",
        "policy.restored",
        "quota.changed",
        "secret.created",
        "secret.replaced",
        "secret.deleted",
        "token.created",
        "token.revoked",
        "project.archived",
    ]
    assert {(record.actor, record.token_id, record.at) for record in trail} == {("root", "t" * 12, NOW)}
    granted = trail[2]
    assert granted.before == {"role": "viewer", "permissions": ["secret.use"], "expires_at": None}
    assert granted.after == {"role": "editor", "permissions": [], "expires_at": None}
    changed = trail[5]
    assert changed.before == {"version": 1, "document": {"rules": {"seed": {"max": 1}}}}
    assert changed.after == {"version": 2, "document": {"rules": {"seed": {"max": 2}}}, "note": "wider"}
    text = str(trail)
    assert "the first value" not in text
    assert token not in text
    assert record.digest not in text


def test_what_is_rolled_back_leaves_no_row_and_no_gap(store: Store) -> None:
    add(store, 1)

    def fail() -> None:
        with store.write() as conn:
            append_audit(conn, "test.done", actor=WHO, scope="p1", target="x", now=NOW)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    add(store, 1)
    with store.read() as conn:
        seqs = [record.seq for record in list_audit(conn, after=0, limit=100)]
    assert seqs == list(range(1, len(seqs) + 1))


def test_pages(store: Store) -> None:
    with store.read() as conn:
        first = len(list_audit(conn, limit=100))
    add(store, 5)
    add(store, 1, scope="p2", actor=Actor("bo"), target="y")
    with store.read() as conn:
        page = list_audit(conn, limit=3)
        assert [record.seq for record in page] == [first + 6, first + 5, first + 4]
        assert [r.seq for r in list_audit(conn, before=page[-1].seq, limit=3)] == [first + 3, first + 2, first + 1]
        assert [r.seq for r in list_audit(conn, after=first + 4, limit=100)] == [first + 5, first + 6]
        assert len(list_audit(conn, scopes=["p2"], action="test", limit=100)) == 1
        assert len(list_audit(conn, actor="bo", limit=100)) == 1
        assert len(list_audit(conn, action="test.done", target="x", limit=100)) == 5
        assert list_audit(conn, action="te%", limit=100) == []
        assert list_audit(conn, scopes=[], limit=100) == []
        assert list_audit(conn, before=-(2**70), after=2**70, target="\0", limit=100) == []


def test_writers_at_once_leave_no_gap_and_a_whole_chain(store: Store) -> None:
    threads = [threading.Thread(target=add, args=(store, 5)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.read() as conn:
        seqs = [record.seq for record in list_audit(conn, after=0, limit=100)]
        assert seqs == list(range(1, len(seqs) + 1))
        assert len(list_audit(conn, action="test", limit=100)) == 20
        assert broken_audit(conn) is None


@pytest.mark.parametrize("statement", ["UPDATE audit SET actor = 'someone else'", "DELETE FROM audit"])
def test_the_database_refuses_to_change_what_was_written(store: Store, statement: str) -> None:
    add(store, 2)
    with pytest.raises(sa.exc.DBAPIError, match="append-only"), store.write() as conn:
        conn.execute(sa.text(statement))
    with store.read() as conn:
        assert {record.actor for record in list_audit(conn, action="test", limit=10)} == {"ana"}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET actor = 'someone else' WHERE seq = {seq}",
        'UPDATE audit SET after = \'{{"role":"viewer"}}\' WHERE seq = {seq}',
        "UPDATE audit SET at = at - 1 WHERE seq = {seq}",
        "DELETE FROM audit WHERE seq = {seq}",
    ],
)
def test_who_changes_a_row_all_the_same_is_noticed(store: Store, statement: str) -> None:
    add(store, 5, after={"role": "editor", "n": 1.5})
    with store.read() as conn:
        assert broken_audit(conn) is None
        seq = list_audit(conn, limit=1)[0].seq - 2
    with store.write() as conn:
        postgres = conn.dialect.name == "postgresql"
        if postgres:
            conn.execute(sa.text("ALTER TABLE audit DISABLE TRIGGER audit_append_only"))
        else:
            conn.execute(sa.text("DROP TRIGGER audit_no_update"))
            conn.execute(sa.text("DROP TRIGGER audit_no_delete"))
        conn.execute(sa.text(statement.format(seq=seq)))
        if postgres:
            conn.execute(sa.text("ALTER TABLE audit ENABLE TRIGGER audit_append_only"))
    with store.read() as conn:
        assert broken_audit(conn) == (seq + 1 if statement.startswith("DELETE") else seq)


def test_odd_texts_do_not_break_the_chain(store: Store) -> None:
    add(store, 1, target="a\0b\ud800" + "x" * 1000, actor=Actor("é\0"), after={"note": "\0\ud800", "n": 1e16})
    with store.read() as conn:
        assert broken_audit(conn) is None
        (record,) = list_audit(conn, action="test", limit=1)
    assert len(record.target) == 300


def test_a_personal_token_is_noted_in_the_organisation(store: Store) -> None:
    with store.write() as conn:
        issue_personal_token(conn, ROOT, "ana", now=NOW)
    with store.read() as conn:
        (record,) = list_audit(conn, scopes=["*"], limit=10)
    assert (record.action, (record.after or {})["subject"]) == ("token.created", "ana")
