"""Compressed lines: decompressed as a stream, in bounded memory, from the last restart point before a fragment."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import IO, Any

import pyarrow as pa
import zstandard

from astraml_ray.data.formats.fragment import Bounds, FileFormat, Fragment
from astraml_ray.data.formats.lines import Grammar, cut_in_turn, first_record, mend_lines, parse_lines
from astraml_ray.data.formats.mending import Mended
from astraml_ray.data.storage.credentials import Access
from astraml_ray.data.storage.objects import ObjectInfo, open_object
from astraml_ray.errors import DamagedError, DataError

__all__ = ["Unpacked", "compressed_format"]

_PIECE = 1 << 18
_WINDOW = 1 << 27


class Unpacked:
    """The decompressed bytes of an object from a restart point on; as little as is asked for is held.

    Attributes:
        produced: Decompressed bytes so far.
        starts: Restart points met so far, as (compressed, decompressed) offsets: ends of gzip members or zstd frames.
    """

    def __init__(self, info: ObjectInfo, file: IO[bytes], packed: str, begin: int = 0) -> None:
        self._info, self._file = info, file
        start, most = _CODECS[packed]
        self._pieces = _pieces(self, begin, start, most)
        self._held = b""
        self.produced = 0
        self.starts = deque([(begin, 0)])

    def read(self, size: int) -> bytes:
        """The next bytes; fewer only at the end.

        Raises:
            DamagedError: They are damaged or cut short.
        """
        parts, length = [self._held], len(self._held)
        with _explained(self._info):
            while length < size and (piece := next(self._pieces, b"")):
                parts.append(piece)
                length += len(piece)
        whole = b"".join(parts)
        self._held = whole[size:]
        return whole[:size]

    def skip(self, size: int) -> None:
        """Goes on without keeping anything."""
        while size > 0 and (got := len(self.read(min(size, _PIECE)))):
            size -= got

    def count(self, mark: bytes) -> int:
        """How often a byte follows, up to the end or to damage; nothing is kept."""
        found = 0
        with suppress(DamagedError), _explained(self._info):
            while piece := next(self._pieces, b""):
                found += piece.count(mark)
        return found

    def compressed_at(self, offset: int, size: int) -> bytes:
        """Bytes of the object itself."""
        self._file.seek(offset)
        return self._file.read(size)

    def restart(self, offset: int) -> None:
        """Notes that a member or frame begins at a compressed offset."""
        if self.produced > self.starts[-1][1]:
            self.starts.append((offset, self.produced))


@contextmanager
def _explained(info: ObjectInfo) -> Iterator[None]:
    try:
        yield
    except (zlib.error, zstandard.ZstdError, EOFError) as error:
        raise DamagedError(
            f"is damaged or cut short: {error}", param=info.uri, hint="write the object again, or take it out"
        ) from error


def _pieces(stream: Unpacked, begin: int, start: Callable[[], Any], most: int) -> Iterator[bytes]:
    """Member by member, or frame by frame.

    Args:
        stream: Is told where each begins.
        begin: Where the first does.
        start: Makes a decompressor of one.
        most: Compressed bytes it is given at once, which bounds what they become.
    """
    read, data = begin, memoryview(b"")
    inflate = start()
    while True:
        if not data:
            data = memoryview(stream.compressed_at(read, _PIECE))
            read += len(data)
            if not data:
                break
        if inflate.eof:
            if not bytes(data).strip(b"\0"):  # padding after the last member
                data = data[:0]
                continue
            stream.restart(read - len(data))
            inflate = start()
        given = data[:most]
        piece = inflate.decompress(given)
        data = data[len(given) - len(inflate.unused_data) :]
        stream.produced += len(piece)
        if piece:
            yield piece
    if not inflate.eof:
        raise EOFError("the compressed data end early")


def _gzip() -> Any:
    return zlib.decompressobj(31)


def _zstd() -> Any:
    return zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompressobj()


# A byte becomes at most 1032 in deflate, and a block of 4 bytes 128 KiB in zstd.
_CODECS = {"gz": (_gzip, 1 << 14), "zst": (_zstd, 1 << 10)}


def compressed_format(grammar: Grammar, packed: str) -> FileFormat:
    """The format of compressed files of lines.

    A fragment's `group` is the restart point that it is decompressed from, and `start` and `stop` are counted from
    there, in decompressed bytes.
    """

    def fragments(info: ObjectInfo, access: Access) -> list[Fragment]:
        if not grammar.cut or info.size <= _small():
            return [Fragment(0, -1, info.size)]
        with open_object(info, access) as file:
            return list(_located(info, Unpacked(info, file, packed), grammar))

    def lines(info: ObjectInfo, fragment: Fragment, access: Access) -> tuple[bytes, bytes]:
        with open_object(info, access) as file:
            stream = Unpacked(info, file, packed, fragment.group)
            if not fragment.stop:
                return _whole(info, stream), b""
            stream.skip(fragment.start)
            data = stream.read(fragment.stop - fragment.start)
            if not grammar.quoted or not (fragment.start or fragment.group):
                return data, b""
            return data, first_record(Unpacked(info, file, packed).read(1 << 16))

    def read(info: ObjectInfo, fragment: Fragment, columns: list[str] | None, access: Access) -> pa.Table:
        return parse_lines(grammar, info, *lines(info, fragment, access), columns)

    def mended(info: ObjectInfo, fragment: Fragment, columns: list[str] | None, access: Access) -> Mended:
        found = mend_lines(grammar, info, *lines(info, fragment, access), columns, start=fragment.start)
        where = f"decompressed from byte {fragment.group} on" if fragment.group else "decompressed"
        return replace(found, bad=tuple(replace(one, message=f"{where}, {one.message}") for one in found.bad))

    def head(info: ObjectInfo, access: Access) -> Fragment:
        if not grammar.cut:
            return Fragment(0, -1, info.size)
        with open_object(info, access) as file:
            stream = Unpacked(info, file, packed)
            cuts = cut_in_turn(info, lambda: stream.read(Bounds.fragment), quoted=grammar.quoted)
            start, stop = next(cuts, (0, 0))
        return Fragment(0, -1, stop, start=start, stop=stop)

    def schema(info: ObjectInfo, access: Access) -> pa.Schema:
        return read(info, head(info, access), None, access).schema

    def rows_lost(info: ObjectInfo, fragment: Fragment, access: Access) -> int:
        with open_object(info, access) as file:
            return max(1, Unpacked(info, file, packed, fragment.group).count(grammar.row_mark))

    return FileFormat(
        fragments,
        schema,
        read,
        opens=lambda size: size > _small(),
        remembered=lambda size: True,
        grouped=_small,
        mend=mended,
        head=head,
        rows_lost=rows_lost,
    )


def _small() -> int:
    """Texts shrink to a tenth or so."""
    return Bounds.fragment // 64


def _whole(info: ObjectInfo, stream: Unpacked) -> bytes:
    data = stream.read(Bounds.whole + 1)
    if len(data) > Bounds.whole:
        raise DataError(
            f"is over {Bounds.whole >> 20} MiB when decompressed, {info.size >> 10} KiB as it is",
            param=info.uri,
            hint="write it as JSON Lines, in several files, or not compressed",
        )
    return data


def _located(info: ObjectInfo, stream: Unpacked, grammar: Grammar) -> Iterator[Fragment]:
    """Each range of lines, from the last restart point before it."""
    for start, stop in cut_in_turn(info, lambda: stream.read(Bounds.fragment), quoted=grammar.quoted):
        while len(stream.starts) > 1 and stream.starts[1][1] <= start:
            stream.starts.popleft()
        begin, skipped = stream.starts[0]
        if stop - skipped > Bounds.frame:
            raise _not_cut(info, begin)
        yield Fragment(0, -1, stop - start, group=begin, start=start - skipped, stop=stop - skipped)


def _not_cut(info: ObjectInfo, begin: int) -> DataError:
    where = f" from byte {begin} on" if begin else ""
    return DataError(
        f"has over {Bounds.frame >> 20} MiB, decompressed, that can only be read from one end to the other{where}",
        param=info.uri,
        hint="split it into smaller files, compress it in many frames or members (zstd: one of each 8 MiB or so; "
        "gzip: bgzip), or leave it uncompressed",
    )
