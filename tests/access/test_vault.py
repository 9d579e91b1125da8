"""Secrets in the database: stored, used, rotated, deleted; a value is nowhere but in its own row, encrypted."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from astraml_ray.access.denials import (
    NotThereError,
    PermissionDeniedError,
    ProjectNotFoundError,
    SecretGrantError,
    SecretInvalidError,
    SecretKeyError,
    SecretNotFoundError,
)
from astraml_ray.access.effective import InForce, apply_policies
from astraml_ray.access.grants import SecretGrant
from astraml_ray.access.permissions import Role
from astraml_ray.access.policies import parse_policy
from astraml_ray.access.secrets import KeyRing, SecretRef
from astraml_ray.access.vault import (
    delete_secret,
    needs_secret_use,
    put_secret,
    release_secrets,
    require_secrets,
    rotate_secrets,
)
from astraml_ray.store.access_tables import secrets as table
from astraml_ray.store.audit import list_audit
from astraml_ray.store.engine import Store
from astraml_ray.store.secrets import find_secret, keys_in_use, list_secrets, list_uses
from tests.access.conftest import NOW, ROOT, principal

RING = KeyRing((os.urandom(32),))
ADMIN = principal(Role.PROJECT_ADMIN, subject="lead")
VALUE = "correct-horse-battery-staple"


def put(store: Store, name: str = "s3", value: str = VALUE, *, project: str = "p1", ring: KeyRing = RING) -> int:
    with store.write() as conn:
        record, _ = put_secret(conn, ROOT, ring, project, name, value, now=NOW)
    return record.version


def release(store: Store, job_id: str, *refs: SecretRef, ring: KeyRing = RING, **named: Any) -> dict[str, str]:
    grant = SecretGrant(job_id, 1, "ana", refs, NOW + 60)
    with store.write() as conn:
        return release_secrets(conn, ring, grant, now=NOW, **named)


def test_a_worker_with_a_grant_gets_the_value_and_the_use_is_noted(store: Store, make_job: Callable[[], str]) -> None:
    put(store)
    job_id = make_job()
    with store.read() as conn:
        refs = require_secrets(conn, "p1", {"dataset": {"credentials": {"secret": "s3"}}})
    assert refs == (SecretRef("p1", "s3", 1),)
    assert release(store, job_id, *refs) == {"s3": VALUE}
    with store.read() as conn:
        (use,) = list_uses(conn, project_id="p1", limit=10)
    assert (use.name, use.version, use.job_id, use.attempt, use.subject, use.at) == ("s3", 1, job_id, 1, "ana", NOW)


def test_a_running_job_keeps_its_version(store: Store, make_job: Callable[[], str]) -> None:
    job_id = make_job()
    put(store)
    assert put(store, value="a newer value") == 2
    assert release(store, job_id, SecretRef("p1", "s3", 1)) == {"s3": VALUE}
    assert release(store, job_id, SecretRef("p1", "s3", 2)) == {"s3": "a newer value"}


def test_a_grant_opens_nothing_else(store: Store, make_job: Callable[[], str]) -> None:
    job_id = make_job()
    put(store)
    put(store, "hf")
    with pytest.raises(SecretGrantError):
        release(store, job_id, SecretRef("p1", "s3", 1), names=["hf"])
    with pytest.raises(SecretNotFoundError):
        release(store, job_id, SecretRef("p2", "s3", 1))
    with store.read() as conn:
        assert list_uses(conn, project_id="p1", limit=10) == []


def test_secrets_are_each_projects_own(store: Store) -> None:
    put(store)
    with store.read() as conn, pytest.raises(SecretNotFoundError) as caught:
        require_secrets(conn, "p2", {"env": {"X": {"secret": "s3"}}})
    assert caught.value.param == "/env/X"
    assert "astraml secret set s3 --project p2" in str(caught.value.hint)


def test_who_may_store(store: Store) -> None:
    for who, project, kind in [
        (principal(Role.EDITOR), "p1", PermissionDeniedError),
        (ADMIN, "p2", ProjectNotFoundError),
        (ROOT, "p9", ProjectNotFoundError),
    ]:
        with pytest.raises(kind), store.write() as conn:
            put_secret(conn, who, RING, project, "s3", VALUE, now=NOW)
        with pytest.raises(kind), store.write() as conn:
            delete_secret(conn, who, project, "s3", now=NOW)
    with store.write() as conn:
        record, warnings = put_secret(conn, ADMIN, RING, "p1", "pin", "1234", now=NOW)
        assert (record.size, len(warnings)) == (4, 1)
        with pytest.raises(SecretInvalidError):
            put_secret(conn, ADMIN, RING, "p1", "a b", VALUE, now=NOW)


def test_listings_have_no_values(store: Store) -> None:
    put(store)
    put(store, value="a newer value")
    put(store, "hf")
    with store.read() as conn:
        found = list_secrets(conn, "p1")
        assert [(record.name, record.version, record.value) for record in found] == [("hf", 1, None), ("s3", 2, None)]
        assert list_secrets(conn, "p2") == []
        whole = find_secret(conn, "p1", "s3")
    assert whole is not None
    assert VALUE not in repr(whole)
    assert "value" not in repr(whole)


def test_a_deleted_secret_is_destroyed_and_its_numbers_are_not_given_again(
    store: Store, make_job: Callable[[], str]
) -> None:
    job_id = make_job()
    put(store)
    put(store)
    with store.write() as conn:
        delete_secret(conn, ADMIN, "p1", "s3", now=NOW)
        with pytest.raises(NotThereError):
            delete_secret(conn, ADMIN, "p1", "s3", now=NOW)
    with store.read() as conn:
        assert [row.value for row in conn.execute(table.select())] == [None, None]
        assert keys_in_use(conn) == set()
        assert find_secret(conn, "p1", "s3", 1) is None
    with pytest.raises(SecretNotFoundError):
        release(store, job_id, SecretRef("p1", "s3", 1))
    assert put(store) == 3


def test_rotation_moves_everything_and_then_the_old_key_can_go(store: Store, make_job: Callable[[], str]) -> None:
    job_id = make_job()
    for number in range(5):
        put(store, f"s{number}", f"{VALUE}-{number}")
    put(store, "s0", "second version")
    both = KeyRing((os.urandom(32), *RING.keys))
    assert rotate_secrets(store, both) == 6
    assert rotate_secrets(store, both) == 0
    alone = KeyRing(both.keys[:1])
    with store.read() as conn:
        assert keys_in_use(conn) == {alone.primary_id}
    refs = [SecretRef("p1", "s0", 1), SecretRef("p1", "s3", 1)]
    assert release(store, job_id, refs[0], ring=alone) == {"s0": f"{VALUE}-0"}
    assert release(store, job_id, refs[1], ring=alone) == {"s3": f"{VALUE}-3"}


def test_a_lost_key_is_an_error_that_says_so(store: Store, make_job: Callable[[], str]) -> None:
    put(store)
    other = KeyRing((os.urandom(32),))
    with store.read() as conn:
        assert other.missing(keys_in_use(conn)) == [RING.primary_id]
    with pytest.raises(SecretKeyError, match="lost"):
        rotate_secrets(store, other)
    with pytest.raises(SecretKeyError, match="lost"):
        release(store, make_job(), SecretRef("p1", "s3", 1), ring=other)


def test_a_row_that_is_moved_in_the_database_does_not_open(store: Store, make_job: Callable[[], str]) -> None:
    put(store)
    put(store, "s3", "of the other project", project="p2")
    with store.write() as conn:
        stolen = conn.execute(table.select().where(table.c.project_id == "p2")).one().value
        conn.execute(table.update().where(table.c.project_id == "p1").values(value=stolen))
    with pytest.raises(SecretKeyError, match="moved"):
        release(store, make_job(), SecretRef("p1", "s3", 1))


def test_secrets_stored_at_once_get_a_version_each(store: Store) -> None:
    versions: list[int] = []
    threads = [threading.Thread(target=lambda: versions.append(put(store))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(versions) == [1, 2, 3, 4, 5, 6]


def test_the_value_is_nowhere_in_the_database_file(
    store: Store, url: str, make_job: Callable[[], str], tmp_path: Path
) -> None:
    put(store)
    release(store, make_job(), SecretRef("p1", "s3", 1))
    with store.write() as conn:
        delete_secret(conn, ROOT, "p1", "s3", now=NOW)
    with store.read() as conn:
        trail = list_audit(conn, action="secret", limit=10)
    assert [record.action for record in trail] == ["secret.deleted", "secret.created"]
    assert VALUE not in str(trail)
    if url.startswith("sqlite"):
        files = [file for file in tmp_path.iterdir() if file.name.startswith("astraml.db")]
        assert files
        assert not any(VALUE.encode() in file.read_bytes() for file in files)


def test_a_secret_that_a_policy_puts_in_is_the_policys_to_answer_for() -> None:
    provenance = {
        "dataset.credentials.secret": {"value": "s3", "source": "project force", "policy_version": 1},
        "model.name": {"value": "m", "source": "request", "policy_version": None},
    }
    assert not needs_secret_use(provenance)
    assert needs_secret_use({**provenance, "env.HF_TOKEN.secret": {"value": "hf", "source": "request"}})
    assert not needs_secret_use({"labels.secret": {"value": "x", "source": "request"}})
    policy = InForce("project", 1, parse_policy({"rules": {"seed": {"force": 1}}}))
    assert not needs_secret_use(apply_policies({"dataset": "d", "model": "m"}, project=policy).provenance)
