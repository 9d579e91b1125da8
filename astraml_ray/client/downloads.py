"""Downloading files of a run folder: whole or not at all, and going on where the last try ended."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import quote

import httpx

from astraml_ray.client.failures import ApiError
from astraml_ray.client.outage import Outage
from astraml_ray.client.transport import Transport
from astraml_ray.errors import AstraError, InfrastructureError, StorageError

__all__ = ["RemoteFile", "download", "select_files"]

_PARTIAL = ".partial"


@dataclass(frozen=True)
class RemoteFile:
    """A file of a run folder.

    Attributes:
        path: In the run folder, with slashes.
        place: In the target, with slashes.
        size: Bytes.
        version: Changes when the file does, as far as the service knows.
    """

    path: str
    place: str
    size: int
    version: str


def select_files(listing: Sequence[dict[str, Any]], path: str) -> list[RemoteFile]:
    """The file of that path, or all files below that folder, placed relative to it. "" is the whole run folder.

    Raises:
        StorageError: There is none, or a path would lead out of the target.
    """
    wanted = path.strip("/")
    chosen = []
    for entry in listing:
        name = str(entry["path"])
        if name == wanted:
            place = PurePosixPath(name).name
        elif not wanted or name.startswith(wanted + "/"):
            place = name[len(wanted) :].lstrip("/")
        else:
            continue
        if "\\" in name or {"", ".", ".."} & set(name.split("/")):
            raise StorageError("the service named a file outside of the run folder", param=name)
        chosen.append(RemoteFile(name, place, int(entry["size"]), str(entry.get("modified_at") or "")))
    if not chosen:
        there = sorted({str(entry["path"]).split("/", 1)[0] for entry in listing})
        known = f"there is {', '.join(there)}" if there else "the run has left nothing yet"
        raise StorageError("the run folder has no such file", param=path, hint=known)
    return chosen


def download(
    transport: Transport,
    base: str,
    path: str,
    place: Callable[[str], Path],
    *,
    patience_s: float,
    on_start: Callable[[int], None],
    on_bytes: Callable[[int], None],
) -> dict[str, Any]:
    """Brings a file or a folder here.

    The files gather in a hidden folder beside the target, and move only when all are there with the right size. What
    an earlier try has left there is used.

    Args:
        base: The path of the artifacts on the service.
        path: Of the file or folder among them.
        place: Names the target folder, from the folder on the service.
        on_start: Takes the bytes in all.
        on_bytes: Takes numbers of bytes as they arrive, those already here included.

    Returns:
        `to`, `files` and `bytes`.

    Raises:
        ApiError: The service refuses a file.
        InfrastructureError: The service is away for longer than `patience_s`, or a file changed meanwhile.
        StorageError: There is no such file; the disk is full or may not be written.
    """
    listing = transport.request("GET", base)
    files = select_files(listing["data"], path)
    is_file = files[0].path == path
    if listing.get("truncated") and not is_file:
        raise StorageError("the run folder has more files than the service lists", hint="name a single file")
    target = place(path.rpartition("/")[0] if is_file else path)
    total = sum(file.size for file in files)
    on_start(total)
    key = json.dumps([transport.endpoint.address, base, *([f.path, f.size, f.version] for f in files)])
    staging = target.parent / f".{target.name}.{hashlib.sha256(key.encode()).hexdigest()[:12]}{_PARTIAL}"
    with _guard(target):
        for file in files:
            _fetch(transport, f"{base}/{quote(file.path)}", file, staging / file.place, patience_s, on_bytes)
        _move(staging, target, files)
    listed = [{"path": str(target / file.place), "size": file.size} for file in files]
    return {"to": str(target), "files": listed, "bytes": total}


def _fetch(
    transport: Transport, url: str, file: RemoteFile, final: Path, patience_s: float, progress: Callable[[int], None]
) -> None:
    if final.is_file() and final.stat().st_size == file.size:
        progress(file.size)
        return
    partial = final.with_name(final.name + _PARTIAL)
    partial.parent.mkdir(parents=True, exist_ok=True)
    partial.touch()
    # Not for appending: two downloads at once then write the same bytes to the same places.
    with partial.open("r+b") as out:
        if out.seek(0, os.SEEK_END) > file.size:
            out.truncate(out.seek(0))
        progress(out.tell())
        _receive_all(_Transfer(transport, url, file, out, progress), patience_s)
        out.flush()
        os.fsync(out.fileno())
    partial.replace(final)


@dataclass
class _Transfer:
    """A file on its way; what is here of it ends where `out` stands."""

    transport: Transport
    url: str
    file: RemoteFile
    out: IO[bytes]
    progress: Callable[[int], None]
    etag: str = ""

    def receive(self) -> None:
        """One connection's worth, from where the last one ended, or from the beginning if the file is another by now.

        Raises:
            httpx.TransportError: The connection failed.
        """
        have = self.out.tell()
        headers = {"Range": f"bytes={have}-"} if have else {}
        if have and self.etag:
            headers["If-Range"] = self.etag
        with self.transport.stream(self.url, headers=headers) as response:
            self.etag = response.headers.get("ETag", "")
            start = _first_byte(response, self.file)
            self.out.seek(start)
            if start < have:
                self.out.truncate()  # it is another file by now
            self.progress(start - have)
            for chunk in response.iter_raw():
                self.out.write(chunk)
                self.progress(len(chunk))


def _receive_all(transfer: _Transfer, patience_s: float) -> None:
    size, out, outage = transfer.file.size, transfer.out, Outage()
    while (before := out.tell()) < size:
        failure: AstraError
        try:
            transfer.receive()
            failure = InfrastructureError(f"ended after {out.tell()} of {size} bytes", param=transfer.file.path)
        except httpx.TransportError as error:
            failure = transfer.transport.lost(error)
        except ApiError as error:
            if error.status < 500 and error.status != 429:
                raise
            failure = error
        if out.tell() > before:
            outage.over()
        else:
            outage.bear(failure, patience_s=transfer.transport.patience(patience_s))
    if out.tell() > size:
        raise _changed(transfer.file, f"it has more than {size} bytes")


def _first_byte(response: httpx.Response, file: RemoteFile) -> int:
    """Where the body begins in the file; a service that does not know ranges begins at 0."""
    if response.status_code != 206:
        return 0
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if match is None:
        raise InfrastructureError("the service sent a part without saying which", param=file.path)
    if match[2] not in ("*", str(file.size)):
        raise _changed(file, f"it has {match[2]} bytes now, not {file.size}")
    return int(match[1])


def _changed(file: RemoteFile, how: str) -> InfrastructureError:
    return InfrastructureError(f"changed while it was downloaded: {how}", param=file.path, hint="download it again")


def _move(staging: Path, target: Path, files: Sequence[RemoteFile]) -> None:
    if not target.exists():
        staging.replace(target)
        return
    for file in files:
        place = target / file.place
        place.parent.mkdir(parents=True, exist_ok=True)
        (staging / file.place).replace(place)
    shutil.rmtree(staging, ignore_errors=True)


@contextlib.contextmanager
def _guard(target: Path) -> Iterator[None]:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise StorageError(
            f"cannot be written: {error.strerror or error}", param=str(target), hint="free some space, or choose --to"
        ) from error
