"""Objects and files through fsspec: one way to open, list and read, one way to fail."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import fsspec
import pyarrow as pa
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, ProfileNotFound

from astraml_ray.data.credentials import OWN, Access
from astraml_ray.errors import AstraError, DamagedError, DataError, InfrastructureError

__all__ = ["ObjectInfo", "describe", "join", "list_objects", "open_object", "reading", "resolve"]

_CONNECTION_WORDS = ("connect", "timed out", "timeout", "connection", "unreachable", "resolve")


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
    options = access.options() if uri.startswith(("s3://", "s3a://")) else {}
    try:
        filesystem, path = fsspec.core.url_to_fs(uri, **options)
    except (ValueError, ImportError) as error:
        raise DataError(
            f"cannot be opened: {error}", param=uri, hint="use s3://bucket/key, file:///path or a plain path"
        ) from error
    return filesystem, path


def join(base: str, *parts: str) -> str:
    """Joins URI or path segments with single slashes."""
    return "/".join([base.rstrip("/"), *(part.strip("/") for part in parts)])


@contextmanager
def reading(uri: str, access: Access = OWN) -> Iterator[None]:
    """Turns what filesystems, botocore and Arrow raise into an error that says what to do, and no secret."""
    try:
        with _explained(uri):
            yield
    except AstraError as error:
        error.message = access.hidden(error.message)
        raise


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    try:
        yield
    except AstraError:
        raise
    except FileNotFoundError as error:
        missing = "the bucket does not exist" if "bucket" in str(error).lower() else "does not exist"
        raise DataError(missing, param=uri, hint="check the name, the endpoint and the profile") from error
    except (PermissionError, NoCredentialsError, ProfileNotFound) as error:
        raise DataError(
            f"access is denied: {error}",
            param=uri,
            hint="give this machine credentials that may list and read it (AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE), or name a secret that holds some: dataset.credentials",
        ) from error
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, UnicodeDecodeError) as error:
        raise DamagedError(
            f"is damaged or not what its name says: {_first_line(error)}",
            param=uri,
            hint="write the object again, or take it out of the dataset",
        ) from error
    except (ClientError, BotoCoreError, OSError, asyncio.TimeoutError) as error:
        raise _storage_failure(uri, error) from error


def _storage_failure(uri: str, error: BaseException) -> AstraError:
    text = _first_line(error)
    if "NoSuchBucket" in text:
        return DataError("the bucket does not exist", param=uri, hint="check the bucket's name and the endpoint")
    if any(word in f"{type(error).__name__} {text}".lower() for word in _CONNECTION_WORDS):
        return InfrastructureError(
            f"the storage endpoint does not answer: {text}",
            param=uri,
            hint="check AWS_ENDPOINT_URL (or dataset.endpoint_url) and that the server runs",
        )
    if any(word in text for word in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "403")):
        return DataError(
            f"access is denied: {text}",
            param=uri,
            hint="check the credentials: this machine's, or those of dataset.credentials",
        )
    if "Parquet" in text or "thrift" in text.lower():
        return DamagedError(f"is damaged: {text}", param=uri, hint="write the object again")
    return InfrastructureError(f"reading failed: {text}", param=uri)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def list_objects(uri: str, access: Access = OWN) -> list[ObjectInfo]:
    """All objects under a prefix, or the one object of that name, sorted by URI.

    Hidden files (a name beginning with `.` or `_`) and empty ones are left out.

    Raises:
        DataError: Nothing is there, or access is denied.
    """
    filesystem, path = resolve(uri, access)
    with reading(uri, access):
        filesystem.invalidate_cache()
        found = filesystem.find(path, detail=True)
        if not found and filesystem.protocol in ("s3", ("s3", "s3a")) and not filesystem.exists(path.split("/")[0]):
            raise FileNotFoundError("the bucket does not exist")
    root = path.rstrip("/")
    objects = [
        _object(filesystem, name, info)
        for name, info in sorted(found.items())
        if info["type"] == "file" and info["size"] and not _hidden(name[len(root) :])
    ]
    if not objects:
        hint = "check the prefix" if found else "check the name; a prefix ends at a folder"
        raise DataError("no objects with data are there", param=uri, hint=hint)
    return objects


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
    filesystem, path = resolve(uri, access)
    with reading(uri, access):
        fresh = {"refresh": True} if "s3" in filesystem.protocol else {}
        return _object(filesystem, path, filesystem.info(path, **fresh))


@contextmanager
def open_object(info: ObjectInfo, access: Access = OWN) -> Iterator[IO[bytes]]:
    """Opens an object for ranged reads, after checking that it is still the one of the manifest.

    Raises:
        DataError: It changed or vanished since the manifest was made.
    """
    now = describe(info.uri, access)
    if (now.size, now.etag) != (info.size, info.etag):
        raise DataError(
            f"changed under the run: {info.size} bytes, ETag {info.etag} when the run began; "
            f"{now.size} bytes, ETag {now.etag} now",
            param=info.uri,
            hint="put the object back, or start a new run on the dataset as it is now",
        )
    filesystem, path = resolve(info.uri, access)
    with reading(info.uri, access), filesystem.open(path, "rb", **_ranged(filesystem)) as file:
        yield file


def _ranged(filesystem: Any) -> dict[str, Any]:
    return {"block_size": 4 << 20, "cache_type": "readahead"} if "s3" in filesystem.protocol else {}
