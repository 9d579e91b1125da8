"""Secrets at rest: unreadable, unmovable, and an error that says so when the key is lost."""

from __future__ import annotations

import base64
import os
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astraml_ray.access.denials import SecretGrantError, SecretInvalidError, SecretKeyError
from astraml_ray.access.grants import SecretGrant, open_grant, seal_grant
from astraml_ray.access.secrets import KeyRing, SecretRef, add_master_key, check_secret, load_keys, new_master_key
from tests.access.conftest import NOW

REF = SecretRef("p1", "s3", 1)
RING = KeyRing((os.urandom(32),))
VALUE = "hunter2-hunter2"


@given(st.text(min_size=1))
def test_what_goes_in_comes_out(value: str) -> None:
    blob = RING.encrypt(value, REF)
    assert RING.decrypt(blob, RING.primary_id, REF) == value


def test_the_same_secret_never_looks_the_same_and_never_shows() -> None:
    blobs = {RING.encrypt(VALUE, REF) for _ in range(50)}
    assert len(blobs) == 50
    assert not any(VALUE.encode() in blob for blob in blobs)
    assert base64.b64encode(RING.keys[0]).decode() not in repr(RING)
    assert RING.keys[0].hex() not in repr(RING)


@pytest.mark.parametrize(
    "other", [SecretRef("p2", "s3", 1), SecretRef("p1", "s4", 1), SecretRef("p1", "s3", 2), SecretRef("p1s", "3", 1)]
)
def test_a_secret_cannot_be_passed_off_as_another(other: SecretRef) -> None:
    with pytest.raises(SecretKeyError, match="damaged, or was moved"):
        RING.decrypt(RING.encrypt(VALUE, REF), RING.primary_id, other)


@given(st.integers(0, 40), st.integers(1, 255))
def test_a_changed_byte_is_noticed(place: int, change: int) -> None:
    blob = bytearray(RING.encrypt(VALUE, REF))
    blob[place % len(blob)] ^= change
    with pytest.raises(SecretKeyError):
        RING.decrypt(bytes(blob), RING.primary_id, REF)


@pytest.mark.parametrize("blob", [b"", b"as1", b"as1" + b"0" * 12, b"x" * 100])
def test_what_is_no_secret_is_noticed(blob: bytes) -> None:
    with pytest.raises(SecretKeyError):
        RING.decrypt(blob, RING.primary_id, REF)


def test_rotation_keeps_every_secret() -> None:
    old = RING.encrypt(VALUE, REF)
    both = KeyRing((os.urandom(32), *RING.keys))
    assert both.decrypt(old, RING.primary_id, REF) == VALUE
    moved = both.reencrypt(old, RING.primary_id, REF)
    alone = KeyRing(both.keys[:1])
    assert alone.decrypt(moved, both.primary_id, REF) == VALUE
    assert both.missing({RING.primary_id, both.primary_id, "f" * 16}) == ["f" * 16]


def test_a_lost_key_says_so() -> None:
    blob = RING.encrypt(VALUE, REF)
    with pytest.raises(SecretKeyError, match=f"{RING.primary_id}, which is lost") as caught:
        KeyRing((os.urandom(32),)).decrypt(blob, RING.primary_id, REF)
    assert "p1/s3 v1" in str(caught.value)
    assert "bring that key back" in str(caught.value.hint)
    assert caught.value.http_status == 503


def test_the_key_file_is_made_once_for_this_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "home" / "master.key"
    ring = load_keys(None, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_keys(None, path) == ring
    assert load_keys(None, path, create=False) == ring
    assert sorted(p.name for p in path.parent.iterdir()) == ["master.key"]


def test_processes_that_make_the_file_at_once_agree(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    rings: list[KeyRing] = []
    threads = [threading.Thread(target=lambda: rings.append(load_keys(None, path))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(rings) == 16
    assert len(set(rings)) == 1


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    load_keys(None, path)
    path.chmod(0o640)
    with pytest.raises(SecretKeyError, match="open to other users") as caught:
        load_keys(None, path)
    assert f"chmod 600 {path}" in str(caught.value)


def test_a_file_that_is_gone_is_not_made_anew_where_secrets_need_it(tmp_path: Path) -> None:
    with pytest.raises(SecretKeyError, match="lost"):
        load_keys(None, tmp_path / "master.key", create=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "short", "!" * 44, base64.b64encode(b"x" * 31).decode(), "\x00"])
def test_malformed_keys_are_errors_that_do_not_show_them(tmp_path: Path, text: str) -> None:
    path = tmp_path / "master.key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(SecretKeyError) as caught:
        load_keys(None, path)
    assert not text or text not in str(caught.value).replace(str(path), "")


def test_the_variable_wins_and_holds_several_keys(tmp_path: Path) -> None:
    keys = [new_master_key() for _ in range(2)]
    ring = load_keys(f"{keys[0]}, {keys[1]}", tmp_path / "master.key")
    assert [base64.b64encode(key).decode() for key in ring.keys] == keys
    assert not list(tmp_path.iterdir())


def test_a_new_key_goes_before_the_others(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    before = load_keys(None, path)
    after = add_master_key(path)
    assert after.keys[1:] == before.keys
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    threads = [threading.Thread(target=add_master_key, args=(path,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(load_keys(None, path).keys) == 10  # none of them written over


def test_what_can_be_stored() -> None:
    assert check_secret("hf", "a" * 40) == []
    assert "under 8 are not masked" in check_secret("hf", "LIVE")[0]
    assert "white space" in check_secret("hf", "a" * 40 + "\n")[0]
    for name, value in [
        ("", "a" * 8),
        ("a b", "a" * 8),
        ("-x", "a" * 8),
        ("a" * 129, "a" * 8),
        ("a\n", "a" * 8),
        ("../x", "a" * 8),
        ("ok", ""),
        ("ok", "  \n"),
        ("ok", "a\0b"),
        ("ok", "a" * 70_000),
        ("ok", "secret\ud800value"),
    ]:
        with pytest.raises(SecretInvalidError) as caught:
            check_secret(name, value)
        assert "secret\ud800value" not in str(caught.value)


GRANT = SecretGrant("job-1", 2, "ana", (REF, SecretRef("p1", "hf", 3)), NOW + 60)


def test_a_grant_opens_as_it_was_sealed() -> None:
    text = seal_grant(RING, GRANT)
    assert open_grant(RING, text, now=NOW) == GRANT
    rotated = KeyRing((os.urandom(32), *RING.keys))
    assert open_grant(rotated, text, now=NOW) == GRANT


def test_a_grant_covers_its_secrets_for_its_time() -> None:
    GRANT.require(REF, now=NOW)
    for ref in (SecretRef("p1", "s3", 2), SecretRef("p2", "s3", 1), SecretRef("p1", "other", 1)):
        with pytest.raises(SecretGrantError, match="does not cover"):
            GRANT.require(ref, now=NOW)
    with pytest.raises(SecretGrantError, match="expired"):
        GRANT.require(REF, now=NOW + 60)
    with pytest.raises(SecretGrantError, match="expired"):
        open_grant(RING, seal_grant(RING, GRANT), now=NOW + 60)


@given(st.data())
def test_a_grant_cannot_be_changed(data: st.DataObject) -> None:
    text = seal_grant(RING, GRANT)
    place = data.draw(st.integers(0, len(text) - 5))
    other = data.draw(st.sampled_from("ABCDEFGHabcdefgh0123-_").filter(lambda c: c != text[place]))
    with pytest.raises(SecretGrantError):
        open_grant(RING, text[:place] + other + text[place + 1 :], now=NOW)


@pytest.mark.parametrize("text", ["", "x", "é", "A" * 200, "=" * 10])
def test_what_is_no_grant(text: str) -> None:
    with pytest.raises(SecretGrantError):
        open_grant(RING, text, now=NOW)
    with pytest.raises(SecretGrantError):
        open_grant(KeyRing((os.urandom(32),)), seal_grant(RING, GRANT), now=NOW)
