"""Parquet: a fragment per row group, known from the footer; a large one in ranges of rows, cut at its pages."""

from __future__ import annotations

from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from astraml_ray.data.formats.features import plain_features
from astraml_ray.data.formats.fragment import Bounds, FileFormat, Fragment, PageRange, damage_named, select_columns
from astraml_ray.data.formats.mending import Mended
from astraml_ray.data.formats.parquet_pages import DAMAGE
from astraml_ray.data.formats.parquet_ranges import ranges_of, rows_of_range
from astraml_ray.data.storage.credentials import Access
from astraml_ray.data.storage.objects import ObjectInfo, open_object
from astraml_ray.errors import DamagedError

__all__ = ["PARQUET"]


def _fragments(info: ObjectInfo, access: Access) -> list[Fragment]:
    with open_object(info, access) as file, damage_named(info):
        footer = pq.ParquetFile(file).metadata
        groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
        return [part for i, group in enumerate(groups) if group.num_rows for part in _parts(file, footer, i, group)]


def _parts(file: IO[bytes], footer: pq.FileMetaData, place: int, group: pq.RowGroupMetaData) -> list[Fragment]:
    whole = Fragment(0, group.num_rows, group.total_byte_size, group=place)
    # Without an index the pages are found by reading the row group once: that has to be worth it.
    indexed = all(group.column(i).has_offset_index for i in range(group.num_columns))
    large = whole.size > (Bounds.whole if indexed else Bounds.frame)
    return ranges_of(file, footer.schema, whole) if large else [whole]


def _schema(info: ObjectInfo, access: Access) -> pa.Schema:
    with open_object(info, access) as file, damage_named(info):
        return plain_features(info, pq.ParquetFile(file).schema_arrow.empty_table()).schema


def _read(info: ObjectInfo, fragment: Fragment, columns: list[str] | None, access: Access) -> pa.Table:
    return plain_features(info, _rows(info, fragment, columns, access))


def _mend(info: ObjectInfo, fragment: Fragment, columns: list[str] | None, access: Access) -> Mended:
    return Mended.whole(plain_features(info, _rows(info, fragment, columns, access), mended=True))


def _rows(info: ObjectInfo, fragment: Fragment, columns: list[str] | None, access: Access) -> pa.Table:
    with open_object(info, access) as file, damage_named(info):
        parquet = pq.ParquetFile(file, pre_buffer=True)
        select_columns(info, parquet.schema_arrow.empty_table(), columns)
        if isinstance(fragment, PageRange):
            return select_columns(info, _range(info, file, parquet, fragment, columns), columns)
        # Names in `columns` are paths with dots to Arrow, so a column whose own name has one is taken by its place.
        table = parquet.read_row_group(fragment.group, columns=columns, use_threads=False)
        if columns and set(columns) != set(table.column_names):
            table = parquet.read_row_group(fragment.group, use_threads=False)
    return select_columns(info, table, columns)


def _range(
    info: ObjectInfo, file: IO[bytes], parquet: pq.ParquetFile, part: PageRange, columns: list[str] | None
) -> pa.Table:
    try:
        return rows_of_range(file, parquet.schema, part, columns)
    except DAMAGE as error:
        raise DamagedError(
            f"is damaged: {str(error).splitlines()[0][:300]}", param=info.uri, hint="write the object again"
        ) from error


PARQUET = FileFormat(_fragments, _schema, _read, remembered=lambda size: size > Bounds.whole, mend=_mend)
