"""The files of a run, on disk or in a bucket: listed, and read in parts. Nothing outside of the run's folder."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import anyio

from astraml_ray.api.answers import iso_time
from astraml_ray.api.errors import ArtifactNotFoundError, RangeNotSatisfiableError
from astraml_ray.data.storage.objects import join, reading, resolve

__all__ = ["MAX_LISTED", "ArtifactFile", "byte_range", "disposition", "find_artifact", "list_artifacts", "read_part"]

MAX_LISTED = 10_000
_CHUNK = 1 << 20
_LONGEST_NAME = 255  # bytes
_LONGEST_PATH = 900
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


@dataclass(frozen=True)
class ArtifactFile:
    """A file that can be read.

    Attributes:
        uri: Where it is.
        name: Its last part.
        size: Bytes.
        etag: Changes with its content.
    """

    uri: str
    name: str
    size: int
    etag: str


def list_artifacts(run_path: str | None) -> tuple[list[dict[str, Any]], bool]:
    """The files of a run by path, and whether some were left out. A run that has not begun has none.

    Raises:
        AstraError: The storage fails.
    """
    if run_path is None:
        return [], False
    root = _local(run_path)
    with reading(run_path):
        found = _walk(root) if root is not None else _find(run_path)
        listed = list(islice(found, MAX_LISTED + 1))
    return listed[:MAX_LISTED], len(listed) > MAX_LISTED


def find_artifact(run_path: str | None, path: str) -> ArtifactFile:
    """A file of a run.

    Raises:
        ArtifactNotFoundError: There is none, or the path leads out of the run's folder.
        AstraError: The storage fails.
    """
    missing = ArtifactNotFoundError(f"the run has no file {path[:200]!r}", param=path[:200])
    if run_path is None or not _is_plain(path):
        raise missing
    root = _local(run_path)
    if root is not None:
        with reading(run_path):
            file = Path(os.path.realpath(root / path))
            if not file.is_relative_to(os.path.realpath(root)) or not file.is_file():
                raise missing
            info = file.stat()
        return ArtifactFile(str(file), file.name, info.st_size, f"{info.st_mtime_ns:x}-{info.st_size:x}")
    uri = join(run_path, path)
    filesystem, inner = resolve(uri)
    with reading(uri):
        filesystem.invalidate_cache()
        try:
            info = filesystem.info(inner)
        except FileNotFoundError:
            raise missing from None
    if info["type"] != "file":
        raise missing
    etag = str(info.get("ETag") or info["size"]).strip('"')
    return ArtifactFile(uri, path.rsplit("/", 1)[-1], int(info["size"]), etag)


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """First byte and the one after the last; None if the whole file is to be sent, as several ranges are.

    Raises:
        RangeNotSatisfiableError: The range begins after the file's end.
    """
    match = _RANGE.fullmatch((header or "").replace(" ", ""))
    if match is None or match[0] == "bytes=-":
        return None
    first, last = match.groups()
    begin = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    if first and last and int(last) < int(first):
        return None
    if begin >= size:
        raise RangeNotSatisfiableError(
            f"the file has {size} bytes", param="Range", headers={"Content-Range": f"bytes */{size}"}
        )
    return begin, end


async def read_part(file: ArtifactFile, begin: int, end: int, limiter: anyio.CapacityLimiter) -> AsyncIterator[bytes]:
    """The bytes from `begin` to before `end`, in chunks that are read in threads."""
    stream = await anyio.to_thread.run_sync(_open, file.uri, begin, limiter=limiter)
    try:
        left = end - begin
        while left > 0:
            chunk = await anyio.to_thread.run_sync(stream.read, min(left, _CHUNK), limiter=limiter)
            if not chunk:
                raise OSError(f"{file.uri} became shorter while it was read")
            left -= len(chunk)
            yield chunk
    finally:
        stream.close()


def disposition(name: str) -> str:
    """A header that makes browsers save the file, and never show it."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _local(run_path: str) -> Path | None:
    if run_path.startswith("file://") or "://" not in run_path:
        return Path(resolve(run_path)[1])
    return None


def _is_plain(path: str) -> bool:
    """Whether it can name a file, on a disk or in a bucket, and leads downwards only."""
    parts = path.split("/")
    if "\0" in path or "\\" in path or len(path.encode()) > _LONGEST_PATH:
        return False
    return all(part not in ("", ".", "..") and len(part.encode()) <= _LONGEST_NAME for part in parts)


def _walk(root: Path) -> Iterator[dict[str, Any]]:
    # Links are left out: they may lead anywhere, and back.
    for folder, folders, names in os.walk(root, onerror=_unless_missing, followlinks=False):
        folders.sort()
        for name in sorted(names):
            file = Path(folder, name)
            if name.startswith(".") or file.is_symlink():
                continue
            try:
                info = file.stat()
            except FileNotFoundError:
                continue
            yield _entry(file.relative_to(root).as_posix(), info.st_size, info.st_mtime)


def _unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _find(run_path: str) -> Iterator[dict[str, Any]]:
    filesystem, root = resolve(run_path)
    filesystem.invalidate_cache()
    found = filesystem.find(root, detail=True)
    if not found and not filesystem.exists(root.split("/")[0]):
        raise FileNotFoundError("the bucket does not exist")
    for path, info in sorted(found.items()):
        relative = path[len(root.rstrip("/")) + 1 :]
        if relative and info["type"] == "file" and not relative.rsplit("/", 1)[-1].startswith("."):
            yield _entry(relative, int(info["size"]), info.get("LastModified"))


def _entry(path: str, size: int, modified: float | datetime | None) -> dict[str, Any]:
    at = modified.timestamp() if isinstance(modified, datetime) else modified
    return {"path": path, "size": size, "modified_at": iso_time(at)}


def _open(uri: str, begin: int) -> IO[bytes]:
    filesystem, path = resolve(uri)
    options = {"block_size": 4 << 20, "cache_type": "readahead"} if "s3" in filesystem.protocol else {}
    with reading(uri):
        stream: IO[bytes] = filesystem.open(path, "rb", **options)
        stream.seek(begin)
        return stream
