"""Tables kept on this machine by the address of what they follow from, for all of its processes.

A file per table; its last bytes are a checksum, and one that does not match is as if it were not there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import uuid
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import sleep

import pyarrow as pa

__all__ = ["MOST_BYTES", "Keep", "from_bytes", "to_bytes"]

MOST_BYTES = 10 << 30
_MOST_SHARE_OF_FREE = 0.25
_TAIL = struct.Struct("<QI4s")
_MARK = b"AMLT"
_POLL_S = 0.05


@dataclass(frozen=True)
class Keep:
    """A folder of tables.

    Attributes:
        folder: On this machine's disk; shared by its processes.
        suffix: Of its files.
        most_bytes: Beyond it, what was not used for longest is removed.
    """

    folder: Path
    suffix: str
    most_bytes: int = MOST_BYTES

    def has(self, address: str) -> bool:
        """Whether there is a table; it may still be a damaged one."""
        return self._path(address).exists()

    def get(self, address: str) -> pa.Table | None:
        """A table, mapped into memory; None if there is none, or if it is damaged."""
        return _read(self._path(address))

    def get_or_make(self, address: str, make: Callable[[], pa.Table]) -> pa.Table:
        """A table; one process of this machine makes it, the others wait for it."""
        while (found := self.get(address)) is None:
            with self.claimed(address) as mine:
                if mine:
                    found = self.get(address)  # another process has made it meanwhile
                    if found is None:
                        found = make()
                        self.put(address, found)
                    return found
            sleep(_POLL_S)
        return found

    @contextlib.contextmanager
    def claimed(self, address: str) -> Iterator[bool]:
        """Whether this process is the one to make a table. One that is killed lets go."""
        path = self.folder / f".{address}.lock"
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        except OSError:
            yield True  # nothing can be kept here
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            yield False
            return
        try:
            yield True
        finally:
            # Whoever has opened it meanwhile makes the table once more: no harm, and hardly ever.
            with contextlib.suppress(OSError):
                path.unlink()
            os.close(lock)

    def put(self, address: str, table: pa.Table) -> None:
        """Best effort: with a full disk the table is made again."""
        data = to_bytes(table)
        path = self._path(address)
        temporary = path.with_suffix(f".{uuid.uuid4().hex[:8]}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not self._make_room(len(data)):
                return
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(data)
            temporary.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()

    def _path(self, address: str) -> Path:
        return self.folder / f"{address}.{self.suffix}"

    def _make_room(self, size: int) -> bool:
        """Removes the files that were not used for longest; tells whether there is room then."""
        files = []
        with os.scandir(self.folder) as entries:
            for entry in (one for one in entries if not one.name.startswith(".")):
                with contextlib.suppress(OSError):
                    status = entry.stat()
                    files.append((status.st_mtime_ns, status.st_size, entry.path))
        held = sum(size for _, size, _ in files)
        usage = os.statvfs(self.folder)
        bound = min(self.most_bytes, held + usage.f_bavail * usage.f_frsize * _MOST_SHARE_OF_FREE)
        for _, length, path in sorted(files):
            if held + size <= bound:
                break
            with contextlib.suppress(OSError):
                os.unlink(path)
            held -= length
        return held + size <= bound


def to_bytes(table: pa.Table) -> bytes:
    """A table with its checksum."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    data: bytes = sink.getvalue().to_pybytes()
    return data + _TAIL.pack(len(data), zlib.crc32(data), _MARK)


def from_bytes(whole: pa.Buffer) -> pa.Table | None:
    """The reverse of to_bytes, without a copy; None if the bytes are damaged."""
    try:
        size, checksum, mark = _TAIL.unpack(whole[-_TAIL.size :].to_pybytes())
        if mark != _MARK or size + _TAIL.size != whole.size:
            return None
        data = whole.slice(0, size)
        if zlib.crc32(data) != checksum:
            return None
        table: pa.Table = pa.ipc.open_file(pa.BufferReader(data)).read_all()
    except (ValueError, struct.error, pa.ArrowInvalid):
        return None
    return table


def _read(path: Path) -> pa.Table | None:
    """What a file holds, mapped into memory; None if there is none, or if it is damaged."""
    try:
        with pa.memory_map(str(path)) as file:
            table = from_bytes(file.read_buffer())
    except (OSError, ValueError, pa.ArrowInvalid):
        return None
    if table is not None:
        with contextlib.suppress(OSError):  # a file of another user, or of a filesystem that is only read
            os.utime(path)
    return table
