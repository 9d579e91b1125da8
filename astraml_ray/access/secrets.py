"""Secrets at rest: encrypted with AES-256-GCM under a master key, each bound to its project, name and version.

The master keys come from a variable or from a file of this machine (0600, made at the first use), newest first. The
first encrypts; the others only decrypt, until rotation has put everything under the first. A key's id follows from the
key, so a secret says which one it needs, and a lost one is an error that says so.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from astraml_ray.access.denials import SecretInvalidError, SecretKeyError
from astraml_ray.access.inline_secrets import SECRET_NAME

__all__ = [
    "MASTER_KEY_FILE",
    "KeyRing",
    "SecretRef",
    "add_master_key",
    "check_secret",
    "load_keys",
    "new_master_key",
    "write_keys",
]

MASTER_KEY_FILE = "master.key"
"""Under ASTRAML_HOME."""
_MAGIC = b"as1"
_NONCE = 12
_MAX_BYTES = 64 * 1024


@dataclass(frozen=True)
class SecretRef:
    """Which secret; what is encrypted for one cannot be passed off as another."""

    project_id: str
    name: str
    version: int

    def bytes(self) -> bytes:
        """What the encryption is bound to."""
        return json.dumps(["astraml-secret", self.project_id, self.name, self.version]).encode()

    def __str__(self) -> str:
        return f"{self.project_id}/{self.name} v{self.version}"


@dataclass(frozen=True)
class KeyRing:
    """Master keys, the one that encrypts first. Its text never shows them."""

    keys: tuple[bytes, ...] = field(repr=False)

    @property
    def primary_id(self) -> str:
        """The id of the key that encrypts."""
        return _id_of(self.keys[0])

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all keys, in order."""
        return tuple(_id_of(key) for key in self.keys)

    def encrypt(self, value: str, ref: SecretRef) -> bytes:
        """The value under the first key: nobody can read, change or move it without that key."""
        nonce = secrets.token_bytes(_NONCE)
        return _MAGIC + nonce + AESGCM(self.keys[0]).encrypt(nonce, value.encode(), ref.bytes())

    def decrypt(self, blob: bytes, key_id: str | None, ref: SecretRef) -> str:
        """The value.

        Raises:
            SecretKeyError: The key is not on the ring, or what is stored was changed.
        """
        key = self._key(key_id, ref)
        nonce, body = blob[len(_MAGIC) : len(_MAGIC) + _NONCE], blob[len(_MAGIC) + _NONCE :]
        try:
            if not blob.startswith(_MAGIC):
                raise InvalidTag
            return AESGCM(key).decrypt(nonce, body, ref.bytes()).decode()
        except (InvalidTag, ValueError):
            raise SecretKeyError(
                f"secret {ref} is damaged, or was moved from another place in the database",
                hint=f"store it again: `astraml secret set {ref.name} --project {ref.project_id}`",
            ) from None

    def reencrypt(self, blob: bytes, key_id: str | None, ref: SecretRef) -> bytes:
        """The same secret under the first key.

        Raises:
            SecretKeyError: As `decrypt`.
        """
        return self.encrypt(self.decrypt(blob, key_id, ref), ref)

    def missing(self, in_use: Iterable[str]) -> list[str]:
        """The ids of keys that something is encrypted with and that are not here."""
        return sorted(set(in_use) - set(self.ids))

    def _key(self, key_id: str | None, ref: SecretRef) -> bytes:
        for key in self.keys:
            if _id_of(key) == key_id:
                return key
        raise SecretKeyError(
            f"secret {ref} was encrypted with master key {key_id}, which is lost: "
            f"the keys at hand are {', '.join(self.ids)}",
            hint="bring that key back (ASTRAML_MASTER_KEY or the master key file), or store the secret again",
        )


def load_keys(variable: str | None, path: Path, *, create: bool = True) -> KeyRing:
    """The master keys.

    Args:
        variable: ASTRAML_MASTER_KEY: keys of 32 bytes in base64, newest first, separated by commas; it wins.
        path: The file; one key a line, newest first.
        create: Make the file with a new key if there is none. Without it a missing file is an error: for a store that
            has secrets already, a new key would only hide that the old one is lost.

    Raises:
        SecretKeyError: A key is malformed, or the file cannot be read, is open to others, or is missing.
    """
    if variable:
        return KeyRing(_parse(variable.split(","), "ASTRAML_MASTER_KEY"))
    if create and not path.exists():
        _write_new(path, [new_master_key()])
    return _read(path)


def add_master_key(path: Path) -> KeyRing:
    """Puts a new key before those of the file; afterwards everything has to be encrypted again.

    Raises:
        SecretKeyError: The file cannot be read or written.
    """
    with _locked(path):
        ring = _read(path)
        _replace(path, KeyRing((base64.b64decode(new_master_key()), *ring.keys)))
        return _read(path)


def write_keys(path: Path, ring: KeyRing) -> None:
    """Puts these keys in place of those of the file.

    Raises:
        SecretKeyError: The file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _locked(path):
        _replace(path, ring)


def new_master_key() -> str:
    """32 random bytes in base64."""
    return base64.b64encode(secrets.token_bytes(32)).decode()


def check_secret(name: str, value: str) -> list[str]:
    """Warnings about a secret that can be stored.

    Raises:
        SecretInvalidError: Its name or value cannot be stored.
    """
    if not SECRET_NAME.fullmatch(name):
        hint = "letters, digits, `.`, `_` and `-`, at most 128, beginning with a letter or digit"
        raise SecretInvalidError("this is no name of a secret", param="/name", hint=hint)
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise SecretInvalidError("the value is not text", param="/value", hint="encode it in base64") from None
    if not value.strip() or "\0" in value or size > _MAX_BYTES:
        reason = "is empty" if not value.strip() else "has a NUL in it" if "\0" in value else "is over 64 KiB"
        raise SecretInvalidError(f"the value {reason}", param="/value")
    warnings = []
    if len(value) < 8:
        warnings.append(f"{name} has {len(value)} characters: values under 8 are not masked in logs")
    if value != value.strip():
        warnings.append(f"{name} begins or ends with white space, which is part of the value")
    return warnings


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One rotation at a time: of two at once, the second would write over the first one's key."""
    try:
        descriptor = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise SecretKeyError(f"the master key file {path} cannot be written: {error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read(path: Path) -> KeyRing:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text()
    except FileNotFoundError:
        raise SecretKeyError(
            f"the master key file {path} is lost, and secrets are encrypted with it",
            hint="bring it back from a backup, or set ASTRAML_MASTER_KEY; without the key, store the secrets again",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SecretKeyError(f"the master key file {path} cannot be read: {error}") from error
    if mode & 0o077:
        raise SecretKeyError(f"the master key file {path} is open to other users", hint=f"chmod 600 {path}")
    return KeyRing(_parse(text.split(), str(path)))


def _replace(path: Path, ring: KeyRing) -> None:
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    _write_new(fresh, [base64.b64encode(key).decode() for key in ring.keys])
    os.replace(fresh, path)


def _write_new(path: Path, lines: list[str]) -> None:
    """Writes a file that only this user can read; where two processes do so at once, the first one's stays."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write("".join(f"{line}\n" for line in lines))
                file.flush()
                os.fsync(file.fileno())
            os.link(draft, path)
        finally:
            draft.unlink(missing_ok=True)
    except FileExistsError:
        return
    except OSError as error:
        raise SecretKeyError(f"the master key file {path} cannot be written: {error}") from error


def _parse(texts: Iterable[str], where: str) -> tuple[bytes, ...]:
    keys: dict[bytes, None] = {}
    for text in texts:
        if not text.strip():
            continue
        try:
            key = base64.b64decode(text.strip(), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != 32:
            hint = "make one with `astraml secret new-key`"
            raise SecretKeyError(f"{where} holds what is no key of 32 bytes in base64", hint=hint)
        keys[key] = None
    if not keys:
        raise SecretKeyError(f"{where} holds no key", hint="make one with `astraml secret new-key`")
    return tuple(keys)


def _id_of(key: bytes) -> str:
    return hashlib.sha256(b"astraml-key-id" + key).hexdigest()[:16]
