"""Tables kept on this machine, so that they need not be made again: whole or not at all, checked, and bounded.

The last bytes of a file are a checksum; a file that does not match is as one that is not there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

__all__ = ["MOST_BYTES", "KeptFolder", "from_bytes", "read_kept", "to_bytes"]

MOST_BYTES = 10 << 30
_MOST_SHARE_OF_FREE = 0.25
_TAIL = struct.Struct("<QI4s")
_MARK = b"AMLT"


@dataclass(frozen=True)
class KeptFolder:
    """A folder of tables, by name.

    Attributes:
        folder: On this machine's disk; shared by its processes.
        most_bytes: Beyond it, what was not used for longest is removed.
    """

    folder: Path
    most_bytes: int = MOST_BYTES

    def read(self, name: str) -> pa.Table | None:
        """What is kept, mapped into memory; None if it is not there, or damaged."""
        return read_kept(self.folder / name)

    def write(self, name: str, table: pa.Table) -> None:
        """Best effort: with a full disk the table is made again."""
        data, path = to_bytes(table), self.folder / name
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

    @contextlib.contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """One process of this machine makes a file, the others wait for it; one that is killed lets go."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self.folder / f".{name[:2]}.lock", os.O_WRONLY | os.O_CREAT, 0o600)
        except OSError:
            yield
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

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


def read_kept(path: Path) -> pa.Table | None:
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
