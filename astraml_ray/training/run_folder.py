"""The folder of a run, on disk or in a bucket: small whole-file reads and atomic writes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from astraml_ray.data.storage.objects import join, resolve
from astraml_ray.errors import AstraError, InfrastructureError, StorageError

__all__ = ["RunFolder"]


_PIECE_BYTES = 8 << 20


class RunFolder:
    """Files of a run, named by relative paths with slashes. Pickles: it holds a URI, no connection."""

    def __init__(self, uri: str) -> None:
        self.uri = uri if "://" in uri else str(Path(uri).expanduser().absolute())
        self.is_local = "://" not in self.uri or self.uri.startswith("file://")

    @property
    def name(self) -> str:
        """Its last part: the run's id."""
        return self.uri.rstrip("/").rsplit("/", 1)[-1]

    def path(self, name: str) -> str:
        """The URI of a file."""
        return join(self.uri, name)

    def write(self, name: str, data: bytes) -> None:
        """Writes a file whole or not at all: temp and rename on disk, one PUT in a bucket.

        Raises:
            StorageError: The disk is full, access is denied, or the endpoint fails.
        """
        with self._guard(name):
            filesystem, path = resolve(self.path(name))
            if self.is_local:
                target = Path(path)
                target.parent.mkdir(parents=True, exist_ok=True)
                temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
                try:
                    with temporary.open("wb") as file:
                        file.write(data)
                        file.flush()
                        os.fsync(file.fileno())
                    temporary.replace(target)
                finally:
                    temporary.unlink(missing_ok=True)
            else:
                filesystem.pipe_file(path, data)

    def copy_from(self, source: RunFolder, name: str) -> str:
        """Copies a file of another run, in pieces, whole or not at all; returns its SHA-256.

        Raises:
            StorageError: It is not there, or this folder cannot be written.
        """
        digest = hashlib.sha256()
        with self._guard(name):
            filesystem, path = resolve(self.path(name))
            place = Path(path).parent if self.is_local else Path(tempfile.gettempdir())
            place.mkdir(parents=True, exist_ok=True)
            temporary = place / f".{name.rsplit('/', 1)[-1]}.{uuid.uuid4().hex[:8]}"
            try:
                with temporary.open("wb") as file:
                    for piece in source.pieces(name):
                        digest.update(piece)
                        file.write(piece)
                    file.flush()
                    os.fsync(file.fileno())
                if self.is_local:
                    temporary.replace(path)
                else:
                    filesystem.put_file(str(temporary), path)
            finally:
                temporary.unlink(missing_ok=True)
        return digest.hexdigest()

    def pieces(self, name: str) -> Iterator[bytes]:
        """A file's bytes, a few megabytes at a time."""
        with self._guard(name):
            filesystem, path = resolve(self.path(name))
            with filesystem.open(path, "rb") as file:
                while piece := file.read(_PIECE_BYTES):
                    yield piece

    def append(self, name: str, data: bytes) -> None:
        """Appends to a file on disk."""
        with self._guard(name), Path(resolve(self.path(name))[1]).open("ab") as file:
            file.write(data)

    def read(self, name: str) -> bytes:
        """A file's bytes.

        Raises:
            StorageError: It is not there, or cannot be read.
        """
        with self._guard(name):
            filesystem, path = resolve(self.path(name))
            data: bytes = filesystem.cat_file(path)
            return data

    def exists(self, name: str) -> bool:
        """Whether a file is there now."""
        with self._guard(name):
            filesystem, path = resolve(self.path(name))
            filesystem.invalidate_cache()
            return bool(filesystem.exists(path))

    def names(self, folder: str) -> list[str]:
        """Names directly below a folder, sorted; none if there is no such folder."""
        with self._guard(folder):
            filesystem, path = resolve(self.path(folder))
            filesystem.invalidate_cache()
            try:
                found = filesystem.ls(path, detail=False)
            except FileNotFoundError:
                return []
            return sorted(str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in found)

    def remove(self, folder: str) -> None:
        """Removes a folder; gone already is as well."""
        with self._guard(folder), contextlib.suppress(FileNotFoundError):
            filesystem, path = resolve(self.path(folder))
            filesystem.rm(path, recursive=True)

    def download(self, folder: str, target: Path) -> None:
        """Copies a folder's files to a local one."""
        target.mkdir(parents=True, exist_ok=True)
        for name in self.names(folder):
            (target / name).write_bytes(self.read(f"{folder}/{name}"))

    def upload(self, source: Path, folder: str) -> None:
        """Copies a local folder's files, each atomically."""
        for file in sorted(p for p in source.rglob("*") if p.is_file()):
            self.write(f"{folder}/{file.relative_to(source).as_posix()}", file.read_bytes())

    @contextlib.contextmanager
    def _guard(self, name: str) -> Iterator[None]:
        try:
            yield
        except AstraError:
            raise
        except FileNotFoundError as error:
            raise StorageError(
                "does not exist", param=self.path(name), hint="check --storage and the run's id"
            ) from error
        except (OSError, ClientError, BotoCoreError) as error:
            raise self._failure(name, error) from error

    def _failure(self, name: str, error: Exception) -> AstraError:
        """What cannot pass is storage's; the rest may, and is tried again from the last checkpoint."""
        where = self.path(name)
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            hint = "free some space, then go on with --resume"
            return StorageError("the disk is full", param=where, hint=hint)
        if isinstance(error, (PermissionError, NotADirectoryError, NoCredentialsError)):
            hint = "choose a --storage that this user may write"
            return StorageError(f"may not be written or read: {error}", param=where, hint=hint)
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        return InfrastructureError(
            f"the storage failed: {text}", param=where, hint="check --storage; go on with --resume"
        )
