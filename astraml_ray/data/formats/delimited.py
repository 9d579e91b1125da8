"""CSV with any of the usual delimiters."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.csv as pa_csv

from astraml_ray.data.formats.lines import Grammar, first_record
from astraml_ray.data.formats.mending import Record, lines_of
from astraml_ray.data.storage.objects import ObjectInfo

__all__ = ["CSV", "delimiter_of"]

_DELIMITERS = ("\t", ",", ";", "|")


def delimiter_of(header: bytes) -> str | None:
    """The delimiter that stands most often in the first record, outside quotes; None if there is none."""
    outside = b"".join(header.split(b'"')[::2])
    counts = {delimiter: outside.count(delimiter.encode()) for delimiter in _DELIMITERS}
    best = max(_DELIMITERS, key=lambda delimiter: counts[delimiter])
    return best if counts[best] else None


def _read(info: ObjectInfo, data: bytes, header: bytes) -> pa.Table:
    head = header or first_record(data)
    parse = pa_csv.ParseOptions(delimiter=delimiter_of(head) or ",", newlines_in_values=True)
    names = pa_csv.read_csv(io.BytesIO(head.rstrip(b"\r\n") + b"\n"), parse_options=parse).column_names
    return pa_csv.read_csv(
        io.BytesIO(header + data),
        read_options=pa_csv.ReadOptions(use_threads=False, block_size=len(header) + len(data) + 1),
        parse_options=parse,
        # One type for a column in every fragment: text, as it is written.
        convert_options=pa_csv.ConvertOptions(
            column_types={name: pa.string() for name in names}, strings_can_be_null=False
        ),
    )


def _records(data: bytes, start: int) -> Iterator[Record]:
    """Lines; one that ends inside quotes goes on."""
    held: list[bytes] = []
    begin, inside = start, False
    for line in lines_of(data, start, blank=True):
        begin = begin if held else line.start
        held.append(line.data)
        inside ^= line.data.count(b'"') % 2 == 1
        if not inside:
            whole, held = b"".join(held), []
            if whole.strip():
                yield Record(whole, begin)
    if held:
        yield Record(b"".join(held), begin)


CSV = Grammar(_read, _records, quoted=True)
