"""Where the members of a tar lie, from its headers alone."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

from astraml_ray.data.storage.credentials import Access
from astraml_ray.data.storage.objects import ObjectInfo, read_range
from astraml_ray.errors import DamagedError

__all__ = ["Member", "cut_short", "walk"]

_CHUNK = 1 << 18
_MOST_NAME = 1 << 20
_ABOUT_NEXT = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE)


@dataclass(frozen=True)
class Member:
    """A regular file of a tar: its name, and its bytes from the first header about it to the padding's end."""

    name: str
    start: int
    stop: int


def walk(info: ObjectInfo, access: Access) -> Iterator[Member]:
    """The regular files, in order. A quarter MiB is read at a header; bodies that go beyond it are passed over.

    Raises:
        DamagedError: It is damaged or cut short.
    """
    buffer, base = b"", 0
    at = start = 0
    long_name: str | None = None

    def take(position: int, size: int) -> bytes:
        nonlocal buffer, base
        if not base <= position <= position + size <= base + len(buffer):
            base, buffer = position, read_range(info, position, position + max(size, _CHUNK), access)
        return buffer[position - base : position - base + size]

    while at < info.size:
        block = take(at, 512)
        if not block.strip(b"\0"):
            return
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise cut_short(info, at, str(error)) from error
        body = at + 512
        stop = body + (header.size + 511) // 512 * 512
        if body + header.size > info.size:
            raise cut_short(info, at, f"{header.name!r} goes on after its end")
        if header.type in _ABOUT_NEXT:
            if header.type != tarfile.GNUTYPE_LONGLINK:
                long_name = _long_name(header.type, take(body, min(header.size, _MOST_NAME))) or long_name
            at = stop
            continue
        if header.isreg():
            yield Member(long_name or header.name, start, min(stop, info.size))
        at = start = stop
        long_name = None


def _long_name(kind: bytes, data: bytes) -> str | None:
    if kind == tarfile.GNUTYPE_LONGNAME:
        return data.rstrip(b"\0").decode("utf-8", "surrogateescape")
    while data:
        length, _, _ = data.partition(b" ")
        if not length.isdigit() or not int(length):
            return None
        keyword, _, value = data[len(length) + 1 : int(length) - 1].partition(b"=")
        if keyword == b"path":
            return value.decode("utf-8", "surrogateescape")
        data = data[int(length) :]
    return None


def cut_short(info: ObjectInfo, at: int, why: str) -> DamagedError:
    """A tar that ends early, or is none from somewhere on."""
    return DamagedError(
        f"is damaged or cut short at byte {at}: {why}", param=info.uri, hint="write the shard again, or take it out"
    )
