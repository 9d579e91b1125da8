"""File formats: each lists its fragments cheaply and reads one of them.

A **fragment** is a Parquet row group, or a range of whole lines of a JSON Lines, CSV or text file.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
import pyarrow.parquet as pq

from astraml_ray.data.credentials import Access
from astraml_ray.data.objects import ObjectInfo, open_object, reading
from astraml_ray.errors import DataError

__all__ = [
    "LINE_FRAGMENT_BYTES",
    "LINE_READERS",
    "Fragment",
    "format_of",
    "fragments_of",
    "head_of",
    "read_fragment",
    "read_lines",
    "schema_of",
    "select_columns",
]

LINE_FRAGMENT_BYTES = 8 << 20
_SUFFIXES = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "text",
    ".text": "text",
}


@dataclass(frozen=True)
class Fragment:
    """A part of an object that is read as one.

    Attributes:
        source: Index of the object in the manifest.
        rows: Rows in it; -1 until they are counted.
        size: Its bytes, uncompressed where that is known.
        group: Parquet row group.
        start: First byte of a range of lines.
        stop: Byte after the range.
    """

    source: int
    rows: int
    size: int
    group: int = 0
    start: int = 0
    stop: int = 0


def format_of(info: ObjectInfo, wanted: str) -> str:
    """The format of an object, by the spec or by its name.

    Raises:
        DataError: The name tells nothing.
    """
    if wanted != "auto":
        return wanted
    name = info.uri.rsplit("/", 1)[-1].lower()
    for suffix, kind in _SUFFIXES.items():
        if name.endswith(suffix):
            return kind
    raise DataError(
        "its name does not tell its format",
        param=info.uri,
        hint="set dataset.format to parquet, jsonl, csv or text; compressed files are not read by this version",
    )


def fragments_of(index: int, info: ObjectInfo, kind: str, access: Access) -> list[Fragment]:
    """An object's fragments: Parquet's from its footer, the others' by finding line ends near every 8 MiB."""
    with open_object(info, access) as file:
        if kind == "parquet":
            footer = pq.ParquetFile(file).metadata
            groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
            return [Fragment(index, g.num_rows, g.total_byte_size, group=i) for i, g in enumerate(groups) if g.num_rows]
        cuts = list(_line_cuts(file, info.size, quoted=kind == "csv"))
    return [Fragment(index, -1, stop - start, start=start, stop=stop) for start, stop in cuts]


def _line_cuts(file: Any, size: int, *, quoted: bool) -> Iterator[tuple[int, int]]:
    """Ranges that end at line ends; in CSV at those outside quotes, so the quotes before them are counted."""
    start = position = 0
    inside = False
    while position < size:
        chunk = file.read(LINE_FRAGMENT_BYTES)
        if not chunk:
            break
        cut = _last_line_end(chunk, inside) if quoted else chunk.rfind(b"\n") + 1
        if quoted:
            inside ^= chunk.count(b'"') % 2 == 1
        if cut:
            yield start, position + cut
            start = position + cut
        position += len(chunk)
    if start < size:
        yield start, size


def _last_line_end(chunk: bytes, inside: bool) -> int:
    """Offset after the last newline outside quotes, 0 if there is none."""
    end = len(chunk)
    quotes_before = chunk.count(b'"') + inside
    while (cut := chunk.rfind(b"\n", 0, end)) >= 0:
        quotes_before -= chunk.count(b'"', cut, end)
        if quotes_before % 2 == 0:
            return cut + 1
        end = cut
    return 0


def schema_of(info: ObjectInfo, kind: str, access: Access) -> pa.Schema:
    """The schema of an object, from its footer or its first lines."""
    if kind != "parquet":
        return read_fragment(info, head_of(info, kind, access), kind, None, access).schema
    with open_object(info, access) as file:
        return pq.ParquetFile(file).schema_arrow


def head_of(info: ObjectInfo, kind: str, access: Access) -> Fragment:
    """The first fragment of a file of lines."""
    with open_object(info, access) as file:
        _, stop = next(_line_cuts(file, info.size, quoted=kind == "csv"), (0, 0))
    return Fragment(0, -1, stop, start=0, stop=stop)


def read_fragment(
    info: ObjectInfo, fragment: Fragment, kind: str, columns: list[str] | None, access: Access
) -> pa.Table:
    """Reads the wanted columns of a fragment, in file order.

    Raises:
        DataError: The object changed, is damaged, or lacks a column.
    """
    if kind == "parquet":
        with open_object(info, access) as file:
            parquet = pq.ParquetFile(file, pre_buffer=True)
            _check_columns(info, parquet.schema_arrow.names, columns)
            return parquet.read_row_group(fragment.group, columns=columns, use_threads=False)
    data, header = read_lines(info, fragment, kind, access)
    with reading(info.uri, access):
        table = LINE_READERS[kind](info, data, header)
    return select_columns(info, table, columns)


def read_lines(info: ObjectInfo, fragment: Fragment, kind: str, access: Access) -> tuple[bytes, bytes]:
    """The bytes of a fragment of lines, and the header that its object has before it."""
    with open_object(info, access) as file:
        file.seek(fragment.start)
        data = file.read(fragment.stop - fragment.start)
        if kind != "csv" or not fragment.start:
            return data, b""
        file.seek(0)
        return data, file.readline()


def select_columns(info: ObjectInfo, table: pa.Table, columns: list[str] | None) -> pa.Table:
    """The wanted columns of a table.

    Raises:
        DataError: One is missing.
    """
    _check_columns(info, table.column_names, columns)
    return table.select(columns) if columns else table


def _check_columns(info: ObjectInfo, there: list[str], wanted: list[str] | None) -> None:
    missing = [name for name in wanted or [] if name not in there]
    if missing:
        raise DataError(
            f"has no column {missing[0]!r}, which other objects of the dataset have; it has {', '.join(there)}",
            param=info.uri,
            hint="write it with the same columns, or take it out of the dataset",
        )


def _read_jsonl(info: ObjectInfo, data: bytes, header: bytes) -> pa.Table:
    if data.lstrip()[:1] == b"[":
        raise DataError("is a JSON array, not JSON Lines", param=info.uri, hint="write one JSON object per line")
    data = data.removeprefix(b"\xef\xbb\xbf")
    options = pa_json.ReadOptions(use_threads=False, block_size=max(len(data) + 1, 1))
    return pa_json.read_json(io.BytesIO(data), read_options=options)


def _read_csv(info: ObjectInfo, data: bytes, header: bytes) -> pa.Table:
    head = header or data.split(b"\n", 1)[0]
    delimiter = "\t" if head.count(b"\t") > head.count(b",") else ","
    types = {name: pa.string() for name in _csv_names(head, delimiter)}
    return pa_csv.read_csv(
        io.BytesIO(header + data),
        read_options=pa_csv.ReadOptions(use_threads=False, block_size=len(header) + len(data) + 1),
        parse_options=pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        # One type for a column in every fragment: text, as it is written.
        convert_options=pa_csv.ConvertOptions(column_types=types, strings_can_be_null=False),
    )


def _csv_names(head: bytes, delimiter: str) -> list[str]:
    table = pa_csv.read_csv(
        io.BytesIO(head.rstrip(b"\r\n") + b"\n"), parse_options=pa_csv.ParseOptions(delimiter=delimiter)
    )
    return list(table.column_names)


def _read_text(info: ObjectInfo, data: bytes, header: bytes) -> pa.Table:
    lines = data.decode("utf-8-sig").splitlines()
    return pa.table({"text": pa.array([line for line in lines if line.strip()], pa.string())})


LINE_READERS: dict[str, Callable[[ObjectInfo, bytes, bytes], pa.Table]] = {
    "jsonl": _read_jsonl,
    "csv": _read_csv,
    "text": _read_text,
}
