"""Objects and files: one way to open, list and read, one way to fail."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import fsspec

from astraml_ray.data.storage.credentials import OWN, Access
from astraml_ray.data.storage.failures import OtherVersionError, reading
from astraml_ray.data.storage.ranged import Footers, RangedFile
from astraml_ray.errors import DataError, InfrastructureError

__all__ = ["ObjectInfo", "describe", "join", "list_objects", "open_object", "read_range", "reading", "resolve"]

_S3 = ("s3://", "s3a://")
_CHANGED_HINT = "put the object back, or start a new run on the dataset as it is now"

_footers = Footers()


@dataclass(frozen=True)
class ObjectInfo:
    """One object: the manifest pins its size (bytes) and ETag."""

    uri: str
    size: int
    etag: str


def resolve(uri: str, access: Access = OWN) -> tuple[Any, str]:
    """The filesystem of a URI and the path within it.

    Credentials come from the standard AWS variables, profiles and instance roles of this machine, unless `access` has
    others.
    """
    if "://" not in uri:
        uri = str(Path(uri).expanduser().absolute())
    if uri.startswith(_S3):
        from astraml_ray.data.storage.s3 import RetryingS3  # what it stands on takes half a second

        return RetryingS3(**access.options()), RetryingS3._strip_protocol(uri)
    try:
        filesystem, path = fsspec.core.url_to_fs(uri)
    except (ValueError, ImportError) as error:
        raise DataError(
            f"cannot be opened: {error}", param=uri, hint="use s3://bucket/key, file:///path or a plain path"
        ) from error
    return filesystem, path


def join(base: str, *parts: str) -> str:
    """Joins URI or path segments with single slashes."""
    return "/".join([base.rstrip("/"), *(part.strip("/") for part in parts)])


def list_objects(uri: str, access: Access = OWN) -> list[ObjectInfo]:
    """All objects under a prefix, or the one object of that name, sorted by URI.

    Hidden files (a name beginning with `.` or `_`) and empty ones are left out.

    Raises:
        DataError: Nothing is there, or access is denied.
    """
    with reading(uri, access):
        filesystem, path = resolve(uri, access)
        objects, some = _in_bucket(filesystem, path) if uri.startswith(_S3) else _in_folder(filesystem, path)
    if not objects:
        hint = "check the prefix" if some else "check the name; a prefix ends at a folder"
        raise DataError("no objects with data are there", param=uri, hint=hint)
    return sorted(objects, key=lambda info: info.uri)


def _in_bucket(filesystem: Any, path: str) -> tuple[list[ObjectInfo], bool]:
    """The objects with data, and whether there are any others."""
    from astraml_ray.data.storage.listing import list_keys

    bucket, _, key = path.rstrip("/").partition("/")
    prefix = f"{key}/" if key else ""
    some = False

    def take(item: dict[str, Any]) -> ObjectInfo | None:
        nonlocal some
        some = True
        name, size = item["Key"], int(item["Size"])
        if not size or name.endswith("/") or _hidden(name[len(prefix) :]):
            return None
        return ObjectInfo(f"s3://{bucket}/{name}", size, _etag({**item, "size": size}))

    objects = list_keys(filesystem, bucket, prefix, take)
    if some:
        return objects, True
    _check_bucket(filesystem, bucket)
    try:
        info = filesystem.info(path, refresh=True) if key else {"type": "directory", "size": 0}
    except FileNotFoundError:
        return [], False
    one = info["type"] == "file" and info["size"] and not _hidden(key.rsplit("/", 1)[-1])
    return ([_object(filesystem, path, info)] if one else []), True


def _check_bucket(filesystem: Any, bucket: str) -> None:
    try:
        filesystem.call_s3("head_bucket", Bucket=bucket)
    except FileNotFoundError as error:
        raise FileNotFoundError("the bucket does not exist") from error
    except PermissionError:
        return  # it is there


def _in_folder(filesystem: Any, path: str) -> tuple[list[ObjectInfo], bool]:
    filesystem.invalidate_cache()
    found = filesystem.find(path, detail=True)
    root = path.rstrip("/")
    return [
        _object(filesystem, name, info)
        for name, info in found.items()
        if info["type"] == "file" and info["size"] and not _hidden(name[len(root) :])
    ], bool(found)


def _hidden(relative: str) -> bool:
    return any(part.startswith((".", "_")) for part in relative.split("/"))


def _object(filesystem: Any, path: str, info: dict[str, Any]) -> ObjectInfo:
    return ObjectInfo(filesystem.unstrip_protocol(path), int(info["size"]), _etag(info))


def _etag(info: dict[str, Any]) -> str:
    if info.get("ETag"):
        return str(info["ETag"]).strip('"')
    return hashlib.sha256(f"{info.get('mtime', info.get('LastModified', ''))}-{info['size']}".encode()).hexdigest()[:32]


def describe(uri: str, access: Access = OWN) -> ObjectInfo:
    """One object as it is now."""
    with reading(uri, access):
        filesystem, path = resolve(uri, access)
        fresh = {"refresh": True} if "s3" in filesystem.protocol else {}
        return _object(filesystem, path, filesystem.info(path, **fresh))


@contextmanager
def open_object(info: ObjectInfo, access: Access = OWN) -> Iterator[IO[bytes]]:
    """Opens an object for ranged reads, each of which is of the manifest's version of it or fails.

    In a bucket, opening makes no request: every read asks for the pinned ETag. A file on disk is checked when it is
    opened.

    Raises:
        DataError: It changed or vanished since the manifest was made.
    """
    with reading(info.uri, access):
        filesystem, path = resolve(info.uri, access)
        with _opened(info, filesystem, path, access) as file:
            yield file


def read_range(info: ObjectInfo, start: int, stop: int, access: Access = OWN) -> bytes:
    """Bytes of the manifest's version of an object, exactly these and in one request; fewer at its end.

    Raises:
        DataError: It changed or vanished since the manifest was made.
    """
    start = min(start, info.size)
    stop = max(start, min(stop, info.size))
    with reading(info.uri, access):
        filesystem, path = resolve(info.uri, access)
        if "s3" in filesystem.protocol:
            return _fetch(info, filesystem, path, start, stop, access)
        with _opened(info, filesystem, path, access) as file:
            file.seek(start)
            return file.read(stop - start)


def _opened(info: ObjectInfo, filesystem: Any, path: str, access: Access) -> IO[bytes]:
    if "s3" in filesystem.protocol:
        ranged = RangedFile(
            lambda start, stop: _fetch(info, filesystem, path, start, stop, access),
            info.size,
            footers=_footers,
            key=(info.uri, info.etag, access.endpoint_url),
        )
        return cast(IO[bytes], ranged)
    file: IO[bytes] = filesystem.open(path, "rb")
    try:
        now = _object(filesystem, path, _status(file) if "file" in filesystem.protocol else filesystem.info(path))
        if (now.size, now.etag) != (info.size, info.etag):
            raise _changed(info, now)
    except BaseException:
        file.close()
        raise
    return file


def _status(file: Any) -> dict[str, Any]:
    """Of the file that is open, whatever its name leads to by now."""
    status = os.fstat(file.fileno())
    return {"size": status.st_size, "mtime": status.st_mtime}


def _fetch(info: ObjectInfo, filesystem: Any, path: str, start: int, stop: int, access: Access) -> bytes:
    """The bytes of a range of the manifest's version.

    Raises:
        DataError: It changed or vanished.
    """
    try:
        data: bytes = filesystem.fetch(path, start, stop, info.etag, info.size)
    except OtherVersionError as error:
        raise _changed(info, describe(info.uri, access)) from error
    except FileNotFoundError as error:
        if "bucket" in str(error).lower():
            raise
        raise DataError(
            f"vanished under the run: it had {info.size} bytes, ETag {info.etag} when the run began",
            param=info.uri,
            hint=_CHANGED_HINT,
        ) from error
    return data


def _changed(info: ObjectInfo, now: ObjectInfo) -> DataError | InfrastructureError:
    if now == info:
        return InfrastructureError("the storage gave another version of it, and now has the right one", param=info.uri)
    return DataError(
        f"changed under the run: {info.size} bytes, ETag {info.etag} when the run began; "
        f"{now.size} bytes, ETag {now.etag} now",
        param=info.uri,
        hint=_CHANGED_HINT,
    )
