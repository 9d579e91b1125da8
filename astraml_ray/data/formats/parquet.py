"""Parquet: a fragment per row group, known from the footer."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from astraml_ray.data.formats.features import plain_features
from astraml_ray.data.formats.fragment import FileFormat, Fragment, damage_named, select_columns
from astraml_ray.data.formats.mending import Mended
from astraml_ray.data.storage.credentials import Access
from astraml_ray.data.storage.objects import ObjectInfo, open_object

__all__ = ["PARQUET"]


def _fragments(info: ObjectInfo, access: Access) -> list[Fragment]:
    with open_object(info, access) as file, damage_named(info):
        footer = pq.ParquetFile(file).metadata
        groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
    return [Fragment(0, g.num_rows, g.total_byte_size, group=i) for i, g in enumerate(groups) if g.num_rows]


def _schema(info: ObjectInfo, access: Access) -> pa.Schema:
    with open_object(info, access) as file, damage_named(info):
        return plain_features(info, pq.ParquetFile(file).schema_arrow.empty_table()).schema


def _read(info: ObjectInfo, fragment: Fragment, columns: list[str] | None, access: Access) -> pa.Table:
    return plain_features(info, _row_group(info, fragment, columns, access))


def _mend(info: ObjectInfo, fragment: Fragment, columns: list[str] | None, access: Access) -> Mended:
    return Mended.whole(plain_features(info, _row_group(info, fragment, columns, access), mended=True))


def _row_group(info: ObjectInfo, fragment: Fragment, columns: list[str] | None, access: Access) -> pa.Table:
    with open_object(info, access) as file, damage_named(info):
        parquet = pq.ParquetFile(file, pre_buffer=True)
        select_columns(info, parquet.schema_arrow.empty_table(), columns)
        # Names in `columns` are paths with dots to Arrow, so a column whose own name has one is taken by its place.
        table = parquet.read_row_group(fragment.group, columns=columns, use_threads=False)
        if columns and set(columns) != set(table.column_names):
            table = parquet.read_row_group(fragment.group, use_threads=False)
    return select_columns(info, table, columns)


PARQUET = FileFormat(_fragments, _schema, _read, mend=_mend)
