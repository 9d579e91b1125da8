"""Storing, using and rotating secrets. Values go in, and come out only for a worker that has a grant."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sqlalchemy import Connection

from astraml_ray.access.denials import NotThereError, ProjectNotFoundError, SecretNotFoundError
from astraml_ray.access.grants import SecretGrant
from astraml_ray.access.inline_secrets import secret_references
from astraml_ray.access.permissions import Permission
from astraml_ray.access.secrets import KeyRing, SecretRef, check_secret
from astraml_ray.access.tokens import Principal
from astraml_ray.access.webhooks import reseal
from astraml_ray.store import secrets as rows
from astraml_ray.store.audit import Actor, append_audit
from astraml_ray.store.engine import Store
from astraml_ray.store.projects import find_project
from astraml_ray.store.secrets import SecretRecord

__all__ = ["delete_secret", "needs_secret_use", "put_secret", "release_secrets", "require_secrets", "rotate_secrets"]

_BATCH = 100


def put_secret(
    conn: Connection, principal: Principal, ring: KeyRing, project_id: str, name: str, value: str, *, now: float
) -> tuple[SecretRecord, list[str]]:
    """Stores a secret, or a new version of one; jobs that run keep the version that they started with.

    Returns:
        Its row, and warnings.

    Raises:
        PermissionDeniedError: The caller may not.
        ProjectNotFoundError: There is no such project.
        SecretInvalidError: The name or the value cannot be stored.
    """
    _authorize(conn, principal, project_id)
    warnings = check_secret(name, value)
    while True:
        ref = SecretRef(project_id, name, rows.next_version(conn, project_id, name))
        record = rows.add_secret(
            conn,
            project_id,
            name,
            ref.version,
            value=ring.encrypt(value, ref),
            key_id=ring.primary_id,
            size=len(value),
            actor=principal.actor,
            now=now,
        )
        # Another process may have taken the number meanwhile.
        if record is not None:
            return record, warnings


def delete_secret(conn: Connection, principal: Principal, project_id: str, name: str, *, now: float) -> None:
    """Destroys all versions of a secret; jobs that still need one fail with `secret_not_found`.

    Raises:
        PermissionDeniedError: The caller may not.
        ProjectNotFoundError: There is no such project.
        NotThereError: There is no such secret.
    """
    _authorize(conn, principal, project_id)
    if not rows.delete_secret(conn, project_id, name, actor=principal.actor, now=now):
        raise NotThereError(f"there is no secret {name!r}", param="/name")


def needs_secret_use(provenance: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether the submitter named a secret themselves; those that a policy puts in are the policy's to answer for."""
    return any(
        entry["source"] in ("request", "sweep") and path.endswith(".secret") and not path.startswith("labels.")
        for path, entry in provenance.items()
    )


def require_secrets(conn: Connection, project_id: str, document: Mapping[str, Any]) -> tuple[SecretRef, ...]:
    """The newest versions of all secrets that a job names.

    Raises:
        SecretNotFoundError: One is not there.
    """
    refs: dict[str, SecretRef] = {}
    for pointer, name in secret_references(document):
        record = rows.find_secret(conn, project_id, name)
        if record is None:
            raise _missing(project_id, name, pointer)
        refs[name] = SecretRef(project_id, name, record.version)
    return tuple(refs[name] for name in sorted(refs))


def release_secrets(
    conn: Connection, ring: KeyRing, grant: SecretGrant, names: Iterable[str] | None = None, *, now: float
) -> dict[str, str]:
    """The values that a grant covers, by name; each is noted as used by the job, in the same transaction.

    A use by a dry run, which is no job, goes into the audit trail.

    Args:
        conn: A transaction that writes.
        ring: The master keys.
        grant: Opened.
        names: Which; None is all.
        now: Seconds since the epoch.

    Raises:
        SecretGrantError: The grant has expired, or does not cover a name.
        SecretNotFoundError: A secret was deleted meanwhile.
        SecretKeyError: Its master key is lost.
    """
    covered = {ref.name: ref for ref in grant.secrets}
    values: dict[str, str] = {}
    for name in covered if names is None else names:
        ref = covered.get(name, SecretRef("", name, 0))
        grant.require(ref, now=now)
        record = rows.find_secret(conn, ref.project_id, ref.name, ref.version)
        if record is None or record.value is None:
            raise _missing(ref.project_id, name, None)
        values[name] = ring.decrypt(record.value, record.key_id, ref)
        if grant.job_id is not None:
            rows.record_use(conn, record, job_id=grant.job_id, attempt=grant.attempt, subject=grant.subject, now=now)
        else:
            after = {"version": ref.version}
            actor = Actor(grant.subject)
            append_audit(conn, "secret.tried", actor=actor, scope=ref.project_id, target=name, after=after, now=now)
    return values


def rotate_secrets(store: Store, ring: KeyRing) -> int:
    """Encrypts everything again that is not under the first key, webhooks' too; then the other keys can go.

    Returns:
        How many versions it moved.

    Raises:
        SecretKeyError: A key that is needed is lost; what was moved by then stays moved.
        StoreError: The database failed.
    """
    return _moved(store, lambda conn: _move_secrets(conn, ring)) + _moved(
        store, lambda conn: reseal(conn, ring, _BATCH)
    )


def _moved(store: Store, move: Callable[[Connection], int]) -> int:
    """Moves batches, each in a transaction, until one is not full."""
    moved = 0
    while True:
        with store.write() as conn:
            batch = move(conn)
        moved += batch
        if batch < _BATCH:
            return moved


def _move_secrets(conn: Connection, ring: KeyRing) -> int:
    batch = rows.secrets_of_other_keys(conn, ring.primary_id, limit=_BATCH)
    for record in batch:
        ref = SecretRef(record.project_id, record.name, record.version)
        value = ring.reencrypt(record.value or b"", record.key_id, ref)
        rows.replace_value(conn, record, value=value, key_id=ring.primary_id)
    return len(batch)


def _authorize(conn: Connection, principal: Principal, project_id: str) -> None:
    if find_project(conn, project_id) is None:
        raise ProjectNotFoundError(project_id)
    principal.require(Permission.SECRET_MANAGE, project_id)


def _missing(project_id: str, name: str, pointer: str | None) -> SecretNotFoundError:
    hint = f"store it: `astraml secret set {name} --project {project_id}`; secrets are each project's own"
    return SecretNotFoundError(f"project {project_id!r} has no secret {name!r}", param=pointer, hint=hint)
