"""The rows of a fragment as they are in the file, and which of them do not parse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from astraml_ray.data.bad_rows import BadRow
from astraml_ray.data.credentials import Access
from astraml_ray.data.formats import (
    LINE_READERS,
    Fragment,
    head_of,
    read_fragment,
    read_lines,
    schema_of,
    select_columns,
)
from astraml_ray.data.manifest import Manifest
from astraml_ray.data.mending import Mended, mend_lines
from astraml_ray.data.objects import ObjectInfo
from astraml_ray.errors import DamagedError

__all__ = ["RawRows", "count_roughly", "mended_schema", "place_of", "read_raw"]


@dataclass(frozen=True)
class RawRows:
    """Rows by the columns' names in the file.

    Attributes:
        table: Those that parse.
        origins: Their numbers in the fragment, from 0, all rows counted.
        bad: Those that do not parse.
        written: Each of those as it stands in the file.
    """

    table: pa.Table
    origins: npt.NDArray[np.int64]
    bad: tuple[BadRow, ...] = ()
    written: Mapping[int, bytes] = field(default_factory=dict)

    def without(self, numbers: Sequence[int]) -> pa.Table:
        """The rows that parse, but those of some numbers."""
        if not len(numbers):
            return self.table
        return self.table.filter(pa.array(~np.isin(self.origins, np.asarray(numbers))))


def place_of(manifest: Manifest, fragment: Fragment) -> str:
    """Where a fragment lies, for an error."""
    uri = manifest.objects[fragment.source].uri
    if manifest.formats[fragment.source] == "parquet":
        return f"{uri}, row group {fragment.group}"
    return f"{uri}, from byte {fragment.start}" if fragment.start else uri


def read_raw(manifest: Manifest, fragment: Fragment, *, tolerant: bool) -> RawRows:
    """Reads the manifest's columns of a fragment.

    Args:
        manifest: Of the dataset.
        fragment: Which.
        tolerant: Lines that do not parse are told apart; else they are an error.

    Raises:
        DamagedError: It cannot be read.
        DataError: It changed, or lacks a column.
    """
    info, kind = manifest.objects[fragment.source], manifest.formats[fragment.source]
    names = list(dict.fromkeys(manifest.columns.values()))
    try:
        table = read_fragment(info, fragment, kind, names, manifest.access)
    except DamagedError:
        if not tolerant or kind not in LINE_READERS:
            raise
    else:
        return RawRows(table, np.arange(table.num_rows))
    mended = _mend(info, fragment, kind, manifest.access)
    table = select_columns(info, mended.table, names) if mended.origins.size else pa.table({n: [] for n in names})
    return RawRows(table, mended.origins, mended.bad, mended.written)


def mended_schema(info: ObjectInfo, kind: str, access: Access) -> pa.Schema:
    """The schema of an object, of which some lines may not parse.

    Raises:
        DamagedError: None does.
    """
    try:
        return schema_of(info, kind, access)
    except DamagedError:
        if kind not in LINE_READERS:
            raise
        schema = _mend(info, head_of(info, kind, access), kind, access).table.schema
        if not len(schema):
            raise
        return schema


def count_roughly(manifest: Manifest, fragment: Fragment) -> int:
    """Lines of a fragment that cannot be read, at least 1: what stands for its rows."""
    info, kind = manifest.objects[fragment.source], manifest.formats[fragment.source]
    if kind not in LINE_READERS:
        return 1
    data, _ = read_lines(info, fragment, kind, manifest.access)
    return max(1, sum(bool(line.strip()) for line in data.split(b"\n")))


def _mend(info: ObjectInfo, fragment: Fragment, kind: str, access: Access) -> Mended:
    data, header = read_lines(info, fragment, kind, access)
    start = fragment.start
    if kind == "csv" and not start:
        header, data = _header_apart(data)
        start = len(header)

    def parse(lines: bytes) -> pa.Table:
        return LINE_READERS[kind](info, lines, header)

    try:
        return mend_lines(kind, data, start, parse)
    except DamagedError as error:
        error.param = error.param or info.uri
        raise


def _header_apart(data: bytes) -> tuple[bytes, bytes]:
    """The first record, which may go on after a line end inside quotes, and the rest."""
    end = 0
    while (end := data.find(b"\n", end) + 1) > 0:
        if data.count(b'"', 0, end) % 2 == 0:
            return data[:end], data[end:]
    return data, b""
