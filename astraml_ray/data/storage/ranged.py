"""A file object over ranged reads: few requests for many small reads, exact ranges for large ones."""

from __future__ import annotations

import io
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

__all__ = ["Footers", "RangedFile", "window_of"]

_WHOLE_BYTES = 1 << 20
_FOOTER_BYTES = 256 << 10
_SMALL_BYTES = 128 << 10
_FIRST_AHEAD_BYTES = 256 << 10
_LONGEST_AHEAD_BYTES = 4 << 20
_MAGIC = b"PAR1"


def window_of(position: int, count: int, size: int, ahead: int) -> tuple[int, int]:
    """The range to read where `count` bytes at `position` are wanted.

    An object of up to a megabyte is read whole. A small read at an object's end is taken for that of a Parquet footer,
    and gets more of it. Other small reads get `ahead` bytes; large ones exactly what they want.
    """
    stop = min(position + count, size)
    if size <= _WHOLE_BYTES:
        return 0, size
    if count > _SMALL_BYTES:
        return position, stop
    if stop == size:
        return max(0, min(position, size - _FOOTER_BYTES)), size
    return position, min(max(stop, position + ahead), size)


class Footers:
    """The Parquet footers that were read last, so that each row group does not read its object's again."""

    def __init__(self, capacity: int = 16 << 20) -> None:
        """
        Args:
            capacity: Bytes of all of them.
        """
        self._capacity = capacity
        self._kept: OrderedDict[Any, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Any) -> bytes:
        """The end of an object; empty if it is not there."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key, b"")

    def put(self, key: Any, end: bytes) -> None:
        """Keeps an object's end, if it is a footer's, and none longer is kept."""
        with self._lock:
            if not end.endswith(_MAGIC) or len(end) > self._capacity // 4 or len(end) <= len(self._kept.get(key, b"")):
                return
            self._kept[key] = end
            self._kept.move_to_end(key)
            while sum(map(len, self._kept.values())) > self._capacity:
                self._kept.popitem(last=False)


class RangedFile(io.RawIOBase):
    """An object as a file that is read and sought in."""

    def __init__(
        self, fetch: Callable[[int, int], bytes], size: int, *, footers: Footers | None = None, key: Any = None
    ) -> None:
        """
        Args:
            fetch: Reads the bytes of [start, stop), all of them or raises.
            size: Bytes of the object.
            footers: Where its footer is kept for the next time.
            key: What tells this version of the object from all others.
        """
        self._fetch = fetch
        self._size = size
        self._footers, self._key = footers, key
        self._position = 0
        self._start, self._buffer = 0, b""
        self._ahead = _FIRST_AHEAD_BYTES

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Offset of the next byte to read."""
        return self._position

    def size(self) -> int:
        """Bytes of the object."""
        return self._size

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Goes to a place; reads nothing."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"there is no place {base + offset}")
        self._position = base + offset
        return self._position

    def read(self, count: int | None = -1) -> bytes:
        """That many bytes, fewer only at the end; all that are left by default."""
        self._check_open()
        left = max(0, self._size - self._position)
        wanted = left if count is None or count < 0 else min(count, left)
        data = self._range(self._position, wanted)
        self._position += len(data)
        return data

    def readall(self) -> bytes:
        """All that is left."""
        return self.read()

    def readinto(self, buffer: Any) -> int:
        """Fills a buffer; returns how far."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readline(self, limit: int | None = -1) -> bytes:
        """Up to the next line end and with it."""
        self._check_open()
        line = bytearray()
        most = self._size if limit is None or limit < 0 else limit
        while len(line) < most and self._position < self._size and not line.endswith(b"\n"):
            piece = self.read(min(most - len(line), 64 << 10))
            cut = piece.find(b"\n") + 1 or len(piece)
            self._position -= len(piece) - cut
            line += piece[:cut]
        return bytes(line)

    def close(self) -> None:
        """Drops what was read ahead."""
        self._buffer = b""
        super().close()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("the file is closed")

    def _range(self, position: int, count: int) -> bytes:
        stop = position + count
        if not count:
            return b""
        if not self._start <= position or not stop <= self._start + len(self._buffer):
            self._load(position, count)
        at = position - self._start
        found = self._buffer if (at, count) == (0, len(self._buffer)) else self._buffer[at : at + count]
        if count > _SMALL_BYTES and self._size > _WHOLE_BYTES:
            self._start, self._buffer = stop, b""  # a large read is its caller's alone
        return found

    def _load(self, position: int, count: int) -> None:
        """Makes the buffer hold a range."""
        footer = self._footers.get(self._key) if self._footers else b""
        if position >= self._size - len(footer):
            self._start, self._buffer = self._size - len(footer), footer
            return
        sequential = bool(self._buffer) and self._start <= position <= self._start + len(self._buffer)
        self._ahead = min(2 * self._ahead, _LONGEST_AHEAD_BYTES) if sequential else _FIRST_AHEAD_BYTES
        start, stop = window_of(position, count, self._size, self._ahead)
        # What is read already is not read again.
        kept = self._buffer[position - self._start :] if start == position and self._start <= position else b""
        self._buffer = kept + self._fetch(start + len(kept), stop) if kept else self._fetch(start, stop)
        self._start = start
        if self._footers and stop == self._size and self._size > _WHOLE_BYTES:
            self._footers.put(self._key, self._buffer)
