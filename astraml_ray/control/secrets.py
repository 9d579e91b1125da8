"""The service's side of secrets at run time: who gets a grant, and what a grant is given for.

A grant is made for an attempt of a job, or for a dry run, and covers versions: those that the job began with, whatever
is stored meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection

from astraml_ray.access.denials import SecretGrantError, SecretKeyError
from astraml_ray.access.grants import SecretGrant, open_grant, seal_grant
from astraml_ray.access.secrets import KeyRing, SecretRef, load_keys
from astraml_ray.access.vault import release_secrets, require_secrets, rotate_secrets
from astraml_ray.spec import JobSpec
from astraml_ray.spec.states import JobStatus
from astraml_ray.store.access import submitters_of
from astraml_ray.store.engine import Store
from astraml_ray.store.jobs import JobRecord, find_job
from astraml_ray.store.secrets import keys_in_use, list_uses

__all__ = ["GRANT_S", "grant_to_dry_run", "grant_to_runner", "keys_for", "release_to_run", "seal_with"]

GRANT_S = 900.0
"""A grant is used as soon as it is there; what it gave stays in its attempt's memory."""
_T = TypeVar("_T")


def keys_for(conn: Connection, key_file: Path | None) -> KeyRing:
    """The master keys; a file is made for a store that has no secrets yet, and missed in one that has.

    Raises:
        SecretKeyError: They are lost, or unreadable.
    """
    if key_file is None:
        raise SecretKeyError("this process was started without a place for the master key", hint="astraml up")
    return load_keys(None, key_file, create=not keys_in_use(conn))


def seal_with(store: Store, key_file: Path | None, work: Callable[[Connection, KeyRing], _T]) -> _T:
    """Does something that encrypts under the first of the master keys, and sees to it that this key is not lost.

    Args:
        store: The store.
        key_file: The master keys.
        work: Done once, in a transaction of its own.

    Raises:
        SecretKeyError: The master key is lost.
    """
    with store.write() as conn:
        ring = keys_for(conn, key_file)
        done = work(conn, ring)
    while True:
        with store.read() as conn:
            now = keys_for(conn, key_file)
            lost = ring.primary_id in now.missing(keys_in_use(conn))
        if not lost:
            return done
        # A rotation dropped the key meanwhile, without having seen what was kept just now.
        rotate_secrets(store, KeyRing((*now.keys, *ring.keys)))


def grant_to_runner(store: Store, key_file: Path, job_id: str, runner: str, attempt: int, *, now: float) -> str:
    """A grant for all secrets of a job, for the incarnation of its runner that counts.

    Raises:
        SecretGrantError: It does not count.
        SecretNotFoundError: A secret is not there any more.
        SecretKeyError: The master key is lost.
    """
    with store.read() as conn:
        job = find_job(conn, job_id)
        _require_current(job, runner)
        assert job is not None
        subject = submitters_of(conn, [job_id]).get(job_id, "unknown")
        ring = keys_for(conn, key_file)
        return seal_grant(ring, SecretGrant(job_id, attempt, subject, _versions_of(conn, job), now + GRANT_S))


def grant_to_dry_run(store: Store, key_file: Path | None, spec: JobSpec, subject: str, *, now: float) -> str | None:
    """A grant for what a dry run needs: the dataset's credentials. None if the job names none.

    Raises:
        SecretNotFoundError: A secret that the job names is not there, be it for its workers.
        SecretKeyError: The master key is lost.
    """
    credentials = spec.dataset.credentials
    with store.read() as conn:
        named = require_secrets(conn, spec.project_id, spec.canonical())
        refs = tuple(ref for ref in named if credentials is not None and ref.name == credentials.secret)
        if not refs:
            return None
        return seal_grant(keys_for(conn, key_file), SecretGrant(None, 0, subject, refs, now + GRANT_S))


def release_to_run(
    store: Store, key_file: Path, job_id: str | None, runner: str, grant: str, name: str, *, now: float
) -> str:
    """One value that a grant covers; noted as used.

    Args:
        store: The store.
        key_file: The master keys.
        job_id: Of the run; None for a dry run.
        runner: The incarnation of its runner.
        grant: Sealed.
        name: Of the secret.
        now: Seconds since the epoch.

    Raises:
        SecretGrantError: The grant or the runner does not count, or covers something else.
        SecretNotFoundError: The secret was deleted meanwhile.
        SecretKeyError: The master key is lost.
    """
    with store.write() as conn:
        ring = keys_for(conn, key_file)
        opened = open_grant(ring, grant, now=now)
        if opened.job_id != job_id:
            raise SecretGrantError("the grant is another job's")
        if job_id is not None:
            _require_current(find_job(conn, job_id), runner)
        return release_secrets(conn, ring, opened, [name], now=now)[name]


def _require_current(job: JobRecord | None, runner: str) -> None:
    if job is None or job.runner != runner or job.status not in (JobStatus.STARTING, JobStatus.RUNNING):
        raise SecretGrantError("the job is not run by this runner any more")


def _versions_of(conn: Connection, job: JobRecord) -> tuple[SecretRef, ...]:
    """Those that the job was given before, so that all its attempts see the same; else the newest."""
    refs = []
    for ref in require_secrets(conn, job.project_id, job.spec):
        used = list_uses(conn, project_id=job.project_id, name=ref.name, job_id=job.id, limit=1)
        refs.append(SecretRef(ref.project_id, ref.name, used[0].version) if used else ref)
    return tuple(refs)
