"""Secrets at run time: who is given which, for how long, and what a run's own processes get; and a new master key."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from astraml_ray.access.denials import SecretGrantError, SecretKeyError, SecretNotFoundError, TargetNotAllowedError
from astraml_ray.access.permissions import Role
from astraml_ray.access.secrets import KeyRing, load_keys, write_keys
from astraml_ray.access.tokens import Principal
from astraml_ray.access.vault import delete_secret, put_secret
from astraml_ray.control import secrets_rotation
from astraml_ray.control.outbox import Outbox
from astraml_ray.control.run_secrets import RunSecrets
from astraml_ray.control.secrets import GRANT_S, grant_to_dry_run, grant_to_runner, keys_for, release_to_run
from astraml_ray.control.secrets_rotation import rotate_master_key
from astraml_ray.errors import DataError
from astraml_ray.installation import Installation
from astraml_ray.spec import JobSpec
from astraml_ray.spec.loading import parse_spec
from astraml_ray.store.audit import Actor, list_audit
from astraml_ray.store.projects import create_project
from astraml_ray.store.secrets import find_secret, keys_in_use, list_uses
from tests.control.conftest import World

ROOT = Principal("t" * 12, "root", Role.ORG_ADMIN)
S3 = json.dumps({"access_key_id": "AKIAIOSFODNN7", "secret_access_key": "wJalrXUtnFEMI/K7MDENG"})
HF = "hf-correct-horse"
FIELDS: dict[str, Any] = {
    "project_id": "p1",
    "dataset": {"path": "s3://b/d", "credentials": {"secret": "s3"}},
    "env": {"HF_TOKEN": {"secret": "hf"}, "PLAIN": "v"},
}


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return tmp_path / "master.key"


def put(world: World, key: Path, name: str, value: str) -> None:
    with world.store.write() as conn:
        create_project(conn, "p1", actor=Actor("test"), now=world.now)
        put_secret(conn, ROOT, keys_for(conn, key), "p1", name, value, now=world.now)


@pytest.fixture
def job_id(world: World, key: Path) -> str:
    """A job that runs, whose runner r1 counts."""
    put(world, key, "s3", S3)
    put(world, key, "hf", HF)
    made = world.submit(**FIELDS)
    world.tick()
    assert world.controller.begin(made, "r1")["abandon"] is False
    return made


def grant(world: World, key: Path, job_id: str, *, runner: str = "r1", attempt: int = 1) -> str:
    return grant_to_runner(world.store, key, job_id, runner, attempt, now=world.now)


def release(world: World, key: Path, job_id: str | None, text: str, name: str, *, runner: str = "r1") -> str:
    return release_to_run(world.store, key, job_id, runner, text, name, now=world.now)


def uses(world: World) -> list[tuple[str, int, int]]:
    with world.store.read() as conn:
        return [(use.name, use.version, use.attempt) for use in reversed(list_uses(conn, project_id="p1", limit=99))]


def test_a_runner_is_given_its_jobs_secrets_and_each_use_is_noted(world: World, key: Path, job_id: str) -> None:
    text = grant(world, key, job_id)
    assert (release(world, key, job_id, text, "s3"), release(world, key, job_id, text, "hf")) == (S3, HF)
    assert uses(world) == [("s3", 1, 1), ("hf", 1, 1)]
    with pytest.raises(SecretGrantError):
        release(world, key, job_id, text, "other")


def test_all_attempts_see_the_version_that_the_first_one_saw(world: World, key: Path, job_id: str) -> None:
    release(world, key, job_id, grant(world, key, job_id), "s3")
    for name in ("s3", "hf"):
        put(world, key, name, f"newer value of {name}")
    again = grant(world, key, job_id, attempt=2)
    assert release(world, key, job_id, again, "s3") == S3
    assert release(world, key, job_id, again, "hf") == "newer value of hf"
    assert uses(world) == [("s3", 1, 1), ("s3", 1, 2), ("hf", 2, 2)]


def test_only_the_runner_that_counts_and_only_for_its_own_job(world: World, key: Path, job_id: str) -> None:
    text = grant(world, key, job_id)
    other = world.submit(**FIELDS)
    for call in (
        lambda: grant(world, key, job_id, runner="r0"),
        lambda: grant(world, key, other),
        lambda: grant(world, key, "job-there-is-none"),
        lambda: release(world, key, job_id, text, "s3", runner="r0"),
        lambda: release(world, key, other, text, "s3"),
        lambda: release(world, key, None, text, "s3", runner=""),
        lambda: release(world, key, job_id, text[:-4] + "AAAA", "s3"),
    ):
        with pytest.raises(SecretGrantError):
            call()
    world.report(
        job_id, end={"status": "succeeded", "reason": "completed", "message": None, "result": {}, "error": None}
    )
    with pytest.raises(SecretGrantError):
        release(world, key, job_id, text, "s3")
    assert uses(world) == []


def test_a_grant_expires(world: World, key: Path, job_id: str) -> None:
    text = grant(world, key, job_id)
    world.now += GRANT_S - 1
    assert release(world, key, job_id, text, "hf") == HF
    world.now += 1
    with pytest.raises(SecretGrantError, match="expired"):
        release(world, key, job_id, text, "hf")


def test_a_deleted_secret_and_a_lost_key(world: World, key: Path, job_id: str) -> None:
    text = grant(world, key, job_id)
    with world.store.write() as conn:
        delete_secret(conn, ROOT, "p1", "hf", now=world.now)
    with pytest.raises(SecretNotFoundError):
        release(world, key, job_id, text, "hf")
    with pytest.raises(SecretNotFoundError):
        grant(world, key, job_id, attempt=2)
    key.unlink()
    with pytest.raises(SecretKeyError, match="lost"):
        release(world, key, job_id, text, "s3")
    assert not key.exists()


def test_a_dry_run_is_given_the_credentials_alone(world: World, key: Path, job_id: str) -> None:
    spec = parse_spec({"model": "tiny-bert", **FIELDS})
    text = grant_to_dry_run(world.store, key, spec, "ana", now=world.now)
    assert text is not None
    assert release(world, key, None, text, "s3", runner="") == S3
    for name, job in (("hf", None), ("s3", job_id)):
        with pytest.raises(SecretGrantError):
            release(world, key, job, text, name)
    with world.store.read() as conn:
        (tried,) = list_audit(conn, action="secret.tried", limit=9)
    assert (tried.actor, tried.scope, tried.target, tried.after) == ("ana", "p1", "s3", {"version": 1})
    assert uses(world) == []
    bare = parse_spec({"model": "tiny-bert", **FIELDS, "dataset": "s3://b/d"})
    assert grant_to_dry_run(world.store, None, bare, "ana", now=world.now) is None


# -- in the runner


def run_secrets(fetch: Callable[[int, str], str] | None = None, **fields: Any) -> RunSecrets:
    spec: JobSpec = parse_spec({"model": "tiny-bert", **FIELDS, **fields})
    values = {"s3": S3, "hf": HF}
    return RunSecrets(spec, "astraml-runner-x", "astraml", fetch or (lambda _, name: values[name]))


def test_a_ticket_opens_what_it_is_for() -> None:
    run = run_secrets()
    run.renew(1)
    assert run.source is not None
    whole, rows = run.source.ticket, run._rows.ticket
    assert (run.value(whole, "s3"), run.value(whole, "hf"), run.value(rows, "s3")) == (S3, HF, S3)
    for ticket, name in ((rows, "hf"), (whole, "other"), ("", "s3"), ("ü", "s3"), (whole[:-1], "s3")):
        with pytest.raises(SecretGrantError) as caught:
            run.value(ticket, name)
        assert HF not in str(caught.value)
    assert not [part for part in (whole, rows, HF) if part in repr(run.source)]
    assert run_secrets(dataset="s3://b/d", env={}).source is None


def test_each_attempt_fetches_once() -> None:
    asked: list[tuple[int, str]] = []

    def fetch(attempt: int, name: str) -> str:
        asked.append((attempt, name))
        return {"s3": S3, "hf": HF}[name]

    run = run_secrets(fetch)
    for attempt in (1, 1, 2):
        run.renew(attempt)
    assert asked == [(1, "hf"), (1, "s3"), (2, "hf"), (2, "s3")]
    none = run_secrets(fetch, dataset="s3://b/d", env={"PLAIN": "v"})
    none.renew(1)
    assert len(asked) == 4


def test_an_endpoint_in_a_secret_is_no_way_round_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "ASTRAML_ALLOWED_TARGETS"):
        monkeypatch.delenv(name, raising=False)
    inner = json.dumps({**json.loads(S3), "endpoint_url": "http://169.254.169.254"})
    with pytest.raises(TargetNotAllowedError) as caught:
        run_secrets(lambda *_: inner).renew(1)
    assert caught.value.param == "/dataset/credentials"
    local = json.dumps({**json.loads(S3), "endpoint_url": "http://127.0.0.1:9000"})
    with pytest.raises(TargetNotAllowedError):
        run_secrets(lambda *_: local).renew(1)
    monkeypatch.setenv("ASTRAML_ALLOWED_TARGETS", "127.0.0.1:9000")
    run_secrets(lambda *_: local).renew(1)
    with pytest.raises(DataError):
        run_secrets(lambda *_: HF).renew(1)


def test_a_runner_reports_no_secret() -> None:
    run, outbox = run_secrets(), Outbox()
    run.renew(1)
    outbox.hide(run.masker)
    outbox.add_event("attempt_failed", f"denied: {HF}", {"error": {"message": [HF]}}, at=1.0)
    outbox.set_state(end={"message": f"with {HF}", "error": {"hint": HF}}, warnings=[{"message": HF}])
    report = outbox.next_report()
    assert HF not in json.dumps(report)
    assert report["end"]["message"] == "with ***"
    assert (report["seq"], report["events"][0]["type"]) == (1, "attempt_failed")


# -- a new master key


def installation(world: World, home: Path) -> Installation:
    url = f"sqlite:///{home / 'control.db'}"
    return Installation(home, "http://x", "x:1", None, None, None, str(home), url, None)


def test_a_rotation_while_a_job_runs(world: World, key: Path, job_id: str, tmp_path: Path) -> None:
    old = load_keys(None, key, create=False)
    done = rotate_master_key(installation(world, tmp_path))
    new = load_keys(None, key, create=False)
    assert (done["moved"], done["dropped"], done["key_id"]) == (2, [old.primary_id], new.primary_id)
    assert new.ids == (done["key_id"],)
    with world.store.read() as conn:
        assert keys_in_use(conn) == {new.primary_id}
    assert release(world, key, job_id, grant(world, key, job_id), "s3") == S3
    assert key.stat().st_mode & 0o777 == 0o600


def test_a_secret_that_is_stored_while_the_old_key_goes(
    world: World, key: Path, job_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a process that had read the old key before: it is seen, and moved too."""
    old, late = load_keys(None, key, create=False), threading.Event()

    def write(path: Path, ring: KeyRing) -> None:
        write_keys(path, ring)
        if not late.is_set():
            late.set()
            with world.store.write() as conn:
                put_secret(conn, ROOT, old, "p1", "late", HF, now=world.now)

    monkeypatch.setattr(secrets_rotation, "write_keys", write)
    done = rotate_master_key(installation(world, tmp_path))
    assert done["moved"] == 3
    ring = load_keys(None, key, create=False)
    assert ring.ids == (done["key_id"],)
    with world.store.read() as conn:
        secret = find_secret(conn, "p1", "late")
    assert secret is not None
    assert secret.key_id == ring.primary_id


def test_a_rotation_without_the_key_that_is_needed_drops_nothing(
    world: World, key: Path, job_id: str, tmp_path: Path
) -> None:
    kept = key.read_text()
    write_keys(key, KeyRing((b"x" * 32,)))
    with pytest.raises(SecretKeyError, match="lost"):
        rotate_master_key(installation(world, tmp_path))
    assert len(load_keys(None, key, create=False).keys) == 2
    key.write_text(key.read_text() + kept)
    done = rotate_master_key(installation(world, tmp_path))
    assert (done["moved"], len(done["dropped"])) == (2, 3)
