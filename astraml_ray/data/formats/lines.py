"""Files of lines: cut into ranges of whole lines, which are read and parsed one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise

import pyarrow as pa

from astraml_ray.data.formats.fragment import Bounds, FileFormat, Fragment, select_columns
from astraml_ray.data.formats.mending import Mended, Record, mend
from astraml_ray.data.storage.credentials import Access
from astraml_ray.data.storage.objects import ObjectInfo, open_object, read_range, reading
from astraml_ray.errors import DamagedError, DataError

__all__ = ["Grammar", "cut_in_turn", "first_record", "last_line_end", "line_format", "mend_lines", "parse_lines"]

_MARK = b"\xef\xbb\xbf"
_PROBE = 1 << 16
_PROBES = 8


@dataclass(frozen=True)
class Grammar:
    """How lines become rows.

    Attributes:
        parse: From an object, lines of it, and its first record if they are not its first lines.
        records: What makes a row each, of lines that begin at a byte.
        quoted: Whether a line end may stand inside quotes, and the first record names the columns.
        cut: Whether it may be cut at all.
        join: From records to what `parse` takes.
        odd: See mending.mend.
        row_mark: What stands once in most rows.
    """

    parse: Callable[[ObjectInfo, bytes, bytes], pa.Table]
    records: Callable[[bytes, int], Iterator[Record]]
    quoted: bool = False
    cut: bool = True
    join: Callable[[Iterable[bytes]], bytes] = b"".join
    odd: Callable[[Sequence[Record]], Mapping[int, str]] | None = None
    row_mark: bytes = b"\n"


def line_format(grammar: Grammar) -> FileFormat:
    """The format of uncompressed files of such lines."""

    def fragments(info: ObjectInfo, access: Access) -> list[Fragment]:
        if not grammar.cut:
            _check_whole(info)
            return [Fragment(0, -1, info.size)]
        return [Fragment(0, -1, stop - start, start=start, stop=stop) for start, stop in _cuts(info, grammar, access)]

    def lines(info: ObjectInfo, fragment: Fragment, access: Access) -> tuple[bytes, bytes]:
        with open_object(info, access) as file:
            file.seek(fragment.start)
            data = file.read((fragment.stop or info.size) - fragment.start)
            if not grammar.quoted or not fragment.start:
                return data, b""
            file.seek(0)
            return data, first_record(file.read(_PROBE))

    def read(info: ObjectInfo, fragment: Fragment, columns: list[str] | None, access: Access) -> pa.Table:
        return parse_lines(grammar, info, *lines(info, fragment, access), columns)

    def mended(info: ObjectInfo, fragment: Fragment, columns: list[str] | None, access: Access) -> Mended:
        return mend_lines(grammar, info, *lines(info, fragment, access), columns, start=fragment.start)

    def head(info: ObjectInfo, access: Access) -> Fragment:
        if not grammar.cut:
            return Fragment(0, -1, info.size)
        start, stop = _first_cut(info, grammar, access)
        return Fragment(0, -1, stop, start=start, stop=stop)

    def schema(info: ObjectInfo, access: Access) -> pa.Schema:
        return read(info, head(info, access), None, access).schema

    def rows_lost(info: ObjectInfo, fragment: Fragment, access: Access) -> int:
        return max(1, lines(info, fragment, access)[0].count(grammar.row_mark))

    def opens(size: int) -> bool:
        return size > Bounds.fragment

    return FileFormat(
        fragments, schema, read, opens=opens, remembered=lambda size: True, mend=mended, head=head, rows_lost=rows_lost
    )


def parse_lines(grammar: Grammar, info: ObjectInfo, data: bytes, header: bytes, columns: list[str] | None) -> pa.Table:
    """The rows of whole lines, which are UTF-8; blank lines are none.

    Raises:
        DataError: They are damaged, or lack a column.
    """
    if not header:
        data = data.removeprefix(_MARK)
    if not data.strip():
        return pa.table({name: pa.array([], pa.string()) for name in columns or []})
    with reading(info.uri):
        return select_columns(info, grammar.parse(info, data, header), columns)


def mend_lines(
    grammar: Grammar, info: ObjectInfo, data: bytes, header: bytes, columns: list[str] | None, *, start: int
) -> Mended:
    """As parse_lines, what does not parse told apart.

    Args:
        grammar: Of the lines.
        info: The object.
        data: The lines.
        header: The first record, if they are not the first lines.
        columns: Which; None is all.
        start: The byte of the object that they begin at.

    Raises:
        DamagedError: What parses one by one does not do so together.
        DataError: They lack a column.
    """
    if not header and data.startswith(_MARK):
        data, start = data.removeprefix(_MARK), start + len(_MARK)
    if grammar.quoted and not header:
        header = first_record(data)
        data, start = data[len(header) :], start + len(header)
    try:
        found = mend(
            list(grammar.records(data, start)),
            lambda records: grammar.parse(info, grammar.join(records), header),
            odd=grammar.odd,
            by_lines=grammar.quoted,
        )
    except DamagedError as error:
        error.param = error.param or info.uri
        raise
    none = {name: pa.array([], pa.string()) for name in columns or []}
    table = select_columns(info, found.table, columns) if found.origins.size else pa.table(none)
    return replace(found, table=table)


def first_record(head: bytes) -> bytes:
    """The first line; one that ends inside quotes goes on."""
    head = head.removeprefix(_MARK)
    end = 0
    while (end := head.find(b"\n", end) + 1) > 0:
        if head.count(b'"', 0, end) % 2 == 0:
            return head[:end]
    return head


def _cuts(info: ObjectInfo, grammar: Grammar, access: Access) -> list[tuple[int, int]]:
    if info.size <= Bounds.fragment:
        return [(0, info.size)]
    if grammar.quoted:
        with open_object(info, access) as file:
            return list(cut_in_turn(info, lambda: file.read(Bounds.fragment), quoted=True))
    with ThreadPoolExecutor(_PROBES) as pool:
        places = range(Bounds.fragment, info.size, Bounds.fragment)
        ends = set(pool.map(lambda place: _line_end_after(info, place, access), places))
    return list(pairwise(sorted({0, info.size} | ends)))


def _first_cut(info: ObjectInfo, grammar: Grammar, access: Access) -> tuple[int, int]:
    if info.size <= Bounds.fragment:
        return 0, info.size
    if not grammar.quoted:
        return 0, _line_end_after(info, Bounds.fragment, access)
    with open_object(info, access) as file:
        return next(cut_in_turn(info, lambda: file.read(Bounds.fragment), quoted=True))


def _line_end_after(info: ObjectInfo, position: int, access: Access) -> int:
    """The byte after the first line end from a position on, found by small reads there."""
    at, step = position - 1, _PROBE
    while at < info.size:
        if at - position > Bounds.line:
            raise _long_line(info, position)
        piece = read_range(info, at, at + step, access)
        found = piece.find(b"\n")
        if found >= 0:
            return at + found + 1
        if not piece:
            break
        at, step = at + len(piece), min(step * 2, Bounds.fragment)
    return info.size


def cut_in_turn(info: ObjectInfo, read: Callable[[], bytes], *, quoted: bool) -> Iterator[tuple[int, int]]:
    """Ranges of whole lines, of a stream that is read from end to end.

    Args:
        info: What is read.
        read: Gives the next bytes, none at the end.
        quoted: Line ends inside quotes are none, so the quotes before them are counted.
    """
    start = position = 0
    inside = False
    while chunk := read():
        cut = last_line_end(chunk, inside) if quoted else chunk.rfind(b"\n") + 1
        if quoted:
            inside ^= chunk.count(b'"') % 2 == 1
        if cut:
            yield start, position + cut
            start = position + cut
        position += len(chunk)
        if position - start > Bounds.line:
            raise _long_line(info, start)
    if start < position:
        yield start, position


def last_line_end(chunk: bytes, inside: bool) -> int:
    """Offset after the last newline outside quotes, 0 if there is none."""
    end = len(chunk)
    quotes_before = chunk.count(b'"') + inside
    while (cut := chunk.rfind(b"\n", 0, end)) >= 0:
        quotes_before -= chunk.count(b'"', cut, end)
        if quotes_before % 2 == 0:
            return cut + 1
        end = cut
    return 0


def _long_line(info: ObjectInfo, position: int) -> DataError:
    return DataError(
        f"has a row of over {Bounds.line >> 20} MiB at byte {position}",
        param=info.uri,
        hint="is it lines of text at all, or is a quote not closed? Split the row, or set dataset.format",
    )


def _check_whole(info: ObjectInfo) -> None:
    if info.size > Bounds.whole:
        raise DataError(
            f"is one JSON array of {info.size >> 20} MiB, which cannot be read in parts",
            param=info.uri,
            hint=f"write one JSON object per line (JSON Lines); arrays are read up to {Bounds.whole >> 20} MiB",
        )
