"""Rows of a large Parquet row group: which bytes of each column have them, and those bytes as a file of their own.

Pages of different columns begin at different rows. In the file of a range, what a column lacks of the first rows is
filled up with a page of nulls (or of zeros and empty texts, where there can be no nulls), and these rows are cut off
once they are read.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from astraml_ray.data.formats.fragment import Bounds, Fragment, PageRange
from astraml_ray.data.formats.parquet_pages import DAMAGE, Chunk, Page, Read, UnknownPagesError, pages_of, values_in
from astraml_ray.data.formats.thrift import FALSE, I32, I64, LIST, STRUCT, Struct, parsed, varint, written

__all__ = ["ranges_of", "rows_of_range"]

_MAGIC = b"PAR1"
_WIDTHS = {"INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8, "BYTE_ARRAY": 4}
_DATA_V2 = 3


def ranges_of(file: IO[bytes], schema: pq.ParquetSchema, whole: Fragment) -> list[Fragment]:
    """A row group in ranges of rows that can be read apart; as it is where it cannot be cut.

    Args:
        file: The Parquet file.
        schema: Of it.
        whole: The row group.
    """
    rows, size = whole.rows, whole.size
    try:
        found = _footer(_footer_bytes(file))[4][1][1][whole.group]
        columns = enumerate(found[1][1][1])
        chunks = [Chunk.of(column, schema.column(place).max_repetition_level) for place, column in columns]
        pages: list[Sequence[Page]] = [pages_of(chunk, _reader(file)) for chunk in chunks]
    except (UnknownPagesError, *DAMAGE):
        return [whole]
    cuts = _cuts(chunks, pages, size, rows)
    if len(cuts) < 3:
        return [whole]
    pages = _together(chunks, pages)
    return [
        PageRange(
            0,
            b - a,
            size * (b - a) // rows,
            group=whole.group,
            start=a,
            stop=b,
            pages=tuple(_part(part, a, b) for part in pages),
        )
        for a, b in pairwise(cuts)
    ]


def _cuts(chunks: Sequence[Chunk], pages: Sequence[Sequence[Page]], size: int, rows: int) -> list[int]:
    """Rows at which ranges begin, and where the last one ends: at pages of the column that has the most bytes."""
    # Beside its own pages a range reads about a page of every column, and its dictionary: many make ranges longer.
    beside = sum(_beside(chunk, part) for chunk, part in zip(chunks, pages, strict=True))
    aim = min(Bounds.whole, max(Bounds.fragment, 2 * beside))
    chunk, largest = max(zip(chunks, pages, strict=True), key=lambda pair: pair[0].size)
    per_byte = size / (chunk.stop - chunk.start)
    cuts, begun = [0], largest[0].start
    for page in largest:
        if page.whole and page.row > cuts[-1] and (page.start - begun) * per_byte >= aim:
            cuts.append(page.row)
            begun = page.start
    return [*cuts, rows]


def _beside(chunk: Chunk, pages: Sequence[Page]) -> int:
    dictionary = pages[0].start - chunk.start
    page = (chunk.stop - pages[0].start) // len(pages)
    return chunk.size * (dictionary + page) // (chunk.stop - chunk.start)


def _together(chunks: Sequence[Chunk], pages: Sequence[Sequence[Page]]) -> list[Sequence[Page]]:
    """Lists of structs are read from one row on in all leaves: where a page begins in each, at worst the first."""
    leaves: dict[str, list[int]] = {}
    for place, chunk in enumerate(chunks):
        leaves.setdefault(chunk.path[0], []).append(place)
    found = list(pages)
    for places in leaves.values():
        if len(places) > 1 and any(chunks[place].max_repetition for place in places):
            rows = set.intersection(*({page.row for page in pages[place] if page.whole} for place in places))
            for place in places:
                found[place] = [replace(page, whole=page.whole and page.row in rows) for page in pages[place]]
    return found


def _part(pages: Sequence[Page], start: int, stop: int) -> tuple[int, int, int, int]:
    """As PageRange has it: the pages with some rows."""
    first = bisect.bisect_right(pages, start, key=lambda page: page.row) - 1
    while not pages[first].whole:
        first -= 1
    last = first
    while last + 1 < len(pages) and _has_row_before(pages[last + 1], stop):
        last += 1
    return pages[0].start, pages[first].start, pages[last].stop, pages[first].row


def _has_row_before(page: Page, stop: int) -> bool:
    return page.row < stop or (not page.whole and page.row == stop)


@dataclass(frozen=True)
class _Leaf:
    """A wanted leaf of a range.

    Attributes:
        place: Among all leaves.
        column: As the footer has it.
        row: The first row of its pages.
        data: Its dictionary, if it has one, and its pages.
        dictionary: Bytes of the first.
    """

    place: int
    column: Struct
    row: int
    data: bytes
    dictionary: int


def rows_of_range(file: IO[bytes], schema: pq.ParquetSchema, part: PageRange, columns: list[str] | None) -> pa.Table:
    """The rows of a range.

    Args:
        file: The Parquet file.
        schema: Of it.
        part: The range.
        columns: Which, by names; None is all.

    Raises:
        ValueError: It is damaged.
    """
    footer = _footer(_footer_bytes(file))
    # Arrow takes a dot in a name for a path, so with one all columns are read.
    wanted = columns if columns and not any("." in name for name in columns) else None
    leaves = list(_leaves(file, footer, part, wanted))
    base = min((leaf.row for leaf in leaves), default=part.start)
    data = pa.BufferReader(_file_of(footer, schema, part, leaves, base))
    batches = pq.ParquetFile(data).iter_batches(part.stop - base, columns=wanted, use_threads=False)
    table = pa.Table.from_batches(list(batches))
    if table.num_rows != part.stop - base:
        raise ValueError(f"has {table.num_rows + base - part.start} rows where {part.rows} were counted")
    return table.slice(part.start - base)


def _leaves(file: IO[bytes], footer: Struct, part: PageRange, wanted: Sequence[str] | None) -> Iterator[_Leaf]:
    read = _reader(file)
    columns: list[Struct] = footer[4][1][1][part.group][1][1][1]
    for place, (column, (first, start, stop, row)) in enumerate(zip(columns, part.pages, strict=True)):
        chunk = Chunk.of(column, 0)
        if wanted is None or chunk.path[0] in wanted:
            dictionary = read(chunk.start, first)
            yield _Leaf(place, column, row, dictionary + read(start, stop), len(dictionary))


def _file_of(footer: Struct, schema: pq.ParquetSchema, part: PageRange, leaves: Sequence[_Leaf], base: int) -> bytes:
    """A file with these leaves alone; its footer has the others too, and nobody reads them."""
    group: Struct = footer[4][1][1][part.group]
    columns = list(group[1][1][1])
    body = bytearray(_MAGIC)
    for leaf in leaves:
        filling = _filling(schema.column(leaf.place), leaf.row - base) if leaf.row > base else b""
        pages = filling + leaf.data[leaf.dictionary :]
        columns[leaf.place] = _column(leaf, len(body), pages)
        body += leaf.data[: leaf.dictionary]
        body += pages
    own = {1: (LIST, (STRUCT, columns)), 2: group[2], 3: (I64, part.stop - base)}
    end = written({**footer, 3: (I64, part.stop - base), 4: (LIST, (STRUCT, [own]))})
    body += end + len(end).to_bytes(4, "little") + _MAGIC
    return bytes(body)


def _column(leaf: _Leaf, at: int, pages: bytes) -> Struct:
    old: Struct = leaf.column[3][1]
    size = leaf.dictionary + len(pages)
    new = {number: old[number] for number in (1, 2, 3, 4)}
    new |= {5: (I64, values_in(pages)), 6: old[6], 7: (I64, size), 9: (I64, at + leaf.dictionary)}
    if leaf.dictionary:
        new[11] = I64, at
    return {2: (I64, at), 3: (STRUCT, new)}


def _filling(column: pq.ColumnSchema, rows: int) -> bytes:
    """A page of rows with nothing in them."""
    repetition, definition = column.max_repetition_level, column.max_definition_level
    run = varint(rows << 1) + b"\0"
    levels = [run if most else b"" for most in (repetition, definition)]
    values = b"" if definition else bytes(_width(column) * rows if column.physical_type != "BOOLEAN" else -(-rows // 8))
    size = sum(map(len, levels)) + len(values)
    about = {
        1: (I32, rows),
        2: (I32, rows if definition else 0),
        3: (I32, rows),
        4: (I32, 0),
        5: (I32, len(levels[1])),
        6: (I32, len(levels[0])),
        7: (FALSE, False),
    }
    return written({1: (I32, _DATA_V2), 2: (I32, size), 3: (I32, size), 8: (STRUCT, about)}) + b"".join(levels) + values


def _width(column: pq.ColumnSchema) -> int:
    return _WIDTHS.get(column.physical_type) or int(column.length)


def _reader(file: IO[bytes]) -> Read:
    def read(start: int, stop: int) -> bytes:
        file.seek(start)
        return file.read(stop - start)

    return read


def _footer_bytes(file: IO[bytes]) -> bytes:
    end = file.seek(-8, 2)
    size = int.from_bytes(file.read(8)[:4], "little")
    file.seek(end - size)
    return file.read(size)


@lru_cache(maxsize=4)
def _footer(data: bytes) -> Struct:
    """What a file says of itself. Shared: it is never changed."""
    return parsed(data)[0]
