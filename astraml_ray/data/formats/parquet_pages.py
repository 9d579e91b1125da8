"""The pages of a Parquet column chunk: which bytes hold which rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from astraml_ray.data.formats.thrift import Struct, parsed

__all__ = ["DAMAGE", "Chunk", "Page", "UnknownPagesError", "pages_of", "values_in"]

_WINDOW = 8 << 20
_HEADER = 1 << 10
_MOST_HEADER = 16 << 20
_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3
_RLE = 3
_CODECS = {1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4_raw"}
DAMAGE = (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError)
"""What comes of a footer or a page's header that is not as it should be."""
Read = Callable[[int, int], bytes]
"""The bytes of an object from one place up to another."""


class UnknownPagesError(Exception):
    """Where the rows of a chunk begin cannot be told; the row group is read as one."""


@dataclass(frozen=True)
class Page:
    """A data page.

    Attributes:
        start: Its first byte, of its header, in the object.
        stop: The byte after it.
        row: The first row of the row group that begins in it, or after it.
        whole: Whether it begins with a row; else with the rest of the one before.
    """

    start: int
    stop: int
    row: int
    whole: bool = True


@dataclass(frozen=True)
class Chunk:
    """A leaf column of a row group, as the footer tells of it.

    Attributes:
        path: Names from the column down to the leaf.
        start: The first byte of its pages, in the object.
        stop: The byte after them.
        values: How many, nulls counted.
        size: Its bytes, decompressed.
        codec: Number of the compression.
        max_repetition: The deepest level at which values repeat; 0 where each row has one.
        index: Where its offset index lies, if it has one.
    """

    path: tuple[str, ...]
    start: int
    stop: int
    values: int
    size: int
    codec: int
    max_repetition: int
    index: tuple[int, int] | None

    @classmethod
    def of(cls, column: Struct, max_repetition: int) -> Chunk:
        """Of a ColumnChunk of the footer.

        Raises:
            UnknownPagesError: It lies in another file, or is encrypted.
        """
        if 3 not in column or 1 in column or 8 in column:
            raise UnknownPagesError
        metadata: Struct = column[3][1]
        data, dictionary = metadata[9][1], metadata.get(11, (0, 0))[1]
        start = dictionary if 0 < dictionary < data else data
        index = (column[4][1], column[4][1] + column[5][1]) if 4 in column and 5 in column else None
        return cls(
            path=tuple(name.decode("utf-8", "surrogateescape") for name in metadata[3][1][1]),
            start=start,
            stop=start + metadata[7][1],
            values=metadata[5][1],
            size=metadata[6][1],
            codec=metadata[4][1],
            max_repetition=max_repetition,
            index=index,
        )


def pages_of(chunk: Chunk, read: Read) -> list[Page]:
    """The data pages of a chunk, in order: from its offset index, else from the headers before them.

    Raises:
        UnknownPagesError: They cannot be told.
    """
    try:
        found = _indexed(chunk, read) if chunk.index else _walked(chunk, read)
    except (*DAMAGE, pa.ArrowException) as error:
        raise UnknownPagesError from error
    except OSError as error:  # Arrow's, of what cannot be decompressed; the storage's has a number
        if type(error) is not OSError or error.errno is not None:
            raise
        raise UnknownPagesError from error
    if not found or found[0].row or not found[0].whole:
        raise UnknownPagesError
    return found


def values_in(pages: bytes) -> int:
    """How many values, nulls counted, some pages have.

    Raises:
        ValueError: They are damaged.
    """
    at = count = 0
    while at < len(pages):
        header, body = parsed(pages, at)
        at = body + _number(header, 3)
        count += _number(_about(header), 1)
    if at != len(pages):
        raise ValueError("a page goes on after its end")
    return count


def _indexed(chunk: Chunk, read: Read) -> list[Page]:
    index, _ = parsed(read(*(chunk.index or (0, 0))))
    locations: list[Struct] = index[1][1][1]
    found = [Page(_number(one, 1), _number(one, 1) + _number(one, 2), _number(one, 3)) for one in locations]
    follow = all(a.stop == b.start and a.row < b.row for a, b in pairwise(found))
    if not follow or not found or found[0].start < chunk.start or found[-1].stop > chunk.stop:
        raise UnknownPagesError
    return found


def _walked(chunk: Chunk, read: Read) -> list[Page]:
    """Bodies are passed over, but where values repeat only they tell the rows."""
    found: list[Page] = []
    row = 0
    for start, body, header in _headers(chunk, read):
        if _number(header, 1) == _DICTIONARY:
            continue
        stop = body + _number(header, 3)
        rows, whole = _rows_of(chunk, header, partial(read, body, stop))
        found.append(Page(start, stop, row, whole))
        row += rows
    return found


def _headers(chunk: Chunk, read: Read) -> Iterator[tuple[int, int, Struct]]:
    """Where each page begins, where its body does, and its header.

    Pages of a megabyte are read with their headers: as many requests as there are pages would take longer.
    """
    window, base, at, values = b"", chunk.start, chunk.start, 0
    while values < chunk.values and at < chunk.stop:
        if not base <= at < base + len(window) - _HEADER:
            base, window = at, read(at, min(at + _WINDOW, chunk.stop))
        try:
            header, body = parsed(window, at - base)
        except ValueError:  # it has statistics of long texts, or is damaged
            base, window = at, read(at, min(at + _MOST_HEADER, chunk.stop))
            header, body = parsed(window)
        yield at, base + body, header
        if _number(header, 1) != _DICTIONARY:
            values += _number(_about(header), 1)
        at = base + body + _number(header, 3)
    if values != chunk.values or at > chunk.stop:
        raise UnknownPagesError


def _rows_of(chunk: Chunk, header: Struct, body: Callable[[], bytes]) -> tuple[int, bool]:
    """How many rows begin in a page, and whether it begins with one."""
    about = _about(header)
    if _number(header, 1) == _DATA_V2:
        return _number(about, 3), True
    values = _number(about, 1)
    if not chunk.max_repetition:
        return values, True
    if _number(about, 4) != _RLE:
        raise UnknownPagesError
    data = body()
    if chunk.codec:
        data = pa.Codec(_CODECS[chunk.codec]).decompress(data, _number(header, 2)).to_pybytes()
    size = int.from_bytes(data[:4], "little")
    begins = _zeros(data[4 : 4 + size], values, chunk.max_repetition.bit_length())
    return int(begins.sum()), bool(begins[0])


def _zeros(data: bytes, count: int, width: int) -> npt.NDArray[np.bool_]:
    """Which of some levels are zero: runs of one value, and values packed into bits."""
    found: list[npt.NDArray[np.bool_]] = []
    at = held = 0
    while held < count:
        run = shift = 0
        while True:
            byte = data[at]
            run, shift, at = run | (byte & 127) << shift, shift + 7, at + 1
            if byte < 128:
                break
        if run & 1:
            size = (run >> 1) * width
            bits = np.unpackbits(np.frombuffer(data[at : at + size], np.uint8), bitorder="little")
            part = np.max(bits.reshape(-1, width), axis=1, initial=0) == 0
        else:
            size = (width + 7) // 8
            part = np.full(min(run >> 1, count - held), not any(data[at : at + size]))
        if not len(part):
            raise ValueError("levels are cut short")
        found.append(part)
        at, held = at + size, held + len(part)
    return np.concatenate(found)[:count]


def _about(header: Struct) -> Struct:
    """What a header says of its data."""
    about: Struct = header[{_DATA: 5, _DATA_V2: 8}[_number(header, 1)]][1]
    return about


def _number(struct: Struct, field: int) -> int:
    return int(struct[field][1])
