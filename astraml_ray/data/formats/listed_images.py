"""The images that a metadata file names: their bytes beside its rows, and what is told of those that are not there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from astraml_ray.data.bad_data.rows import MISSING_IMAGE, BadRow
from astraml_ray.data.formats.fragment import Bounds, FileFormat, Fragment, ListedRows, select_columns, sources_of
from astraml_ray.data.formats.image_metadata import FILE_NAME, Rows, rows_of
from astraml_ray.data.formats.images import images_of
from astraml_ray.data.formats.mending import Mended
from astraml_ray.data.storage.credentials import Access
from astraml_ray.data.storage.objects import ObjectInfo
from astraml_ray.errors import DataError

__all__ = ["LISTED_IMAGE", "METADATA", "all_there"]


def _values(info: ObjectInfo, access: Access) -> pa.Table:
    return rows_of(info, access).table.drop_columns([FILE_NAME])


def _with_images(values: pa.Table, images: pa.Array, uris: Sequence[str]) -> pa.Table:
    table = values.add_column(0, "image", images)
    return table if "path" in values.column_names else table.append_column("path", pa.array(uris, pa.string()))


def _schema(info: ObjectInfo, access: Access) -> pa.Schema:
    return _with_images(_values(info, access).slice(0, 0), pa.array([], pa.binary()), []).schema


def _read_listed(
    objects: Sequence[ObjectInfo], fragment: Fragment, columns: list[str] | None, access: Access
) -> Mended:
    """The files are read only where their bytes are wanted."""
    metadata, *infos = sources_of(objects, fragment, "listed-image")
    listed = rows_of(metadata, access)
    numbers = _numbers(fragment)
    rows = listed.table.take(pa.array(numbers, pa.int64()))
    found = [info for info in infos if info.etag]
    data = images_of(found, access) if columns is None or "image" in columns else [None] * len(found)
    there = np.array([bool(info.etag) for info in infos])
    values = rows.drop_columns([FILE_NAME]).filter(pa.array(there))
    table = _with_images(values, pa.array(data, pa.binary()), [info.uri for info in found])
    missing = np.flatnonzero(~there).tolist()
    bad = tuple(_bad_row(metadata, listed, row, numbers[row]) for row in missing)
    written = {row: listed.written.get(numbers[row]) or _line(rows.slice(row, 1)) for row in missing}
    return Mended(
        select_columns(metadata, table, columns), np.flatnonzero(there), bad, written, counts=(1,) * len(infos)
    )


def _numbers(fragment: Fragment) -> Sequence[int]:
    """Of the rows in the file, which has all of them as a rule."""
    if isinstance(fragment, ListedRows):
        return fragment.numbers
    first = fragment.source - fragment.group - 1
    return range(first, first + fragment.count)


def _bad_row(metadata: ObjectInfo, listed: Rows, row: int, number: int) -> BadRow:
    """Of a row without an image.

    Args:
        metadata: Its file.
        listed: The rows of that.
        row: Its number in the fragment.
        number: Its number in the file.
    """
    fault = listed.faults.get(number)
    if fault is not None:  # its object is the file itself, in which it has another number
        return replace(fault, row=row, source=row, before=row - number)
    why = f"is named in {metadata.uri.rpartition('/')[2]}, and is not there, empty or hidden (row {number} of it)"
    return BadRow(row, MISSING_IMAGE, why, source=row, before=row)


def all_there(objects: Sequence[ObjectInfo], fragment: Fragment, found: Mended) -> pa.Table:
    """The rows of images that are all there.

    Raises:
        DataError: One is missing, or a row names none.
    """
    for one in found.bad:
        missing = one.reason == MISSING_IMAGE
        repair = "put the image there, or take its row out" if missing else "correct the row"
        raise DataError(
            one.message if missing else f"row {one.row - one.before}: {one.message}",
            param=objects[fragment.source + one.source].uri,
            hint=f"{repair}; or leave such rows out: dataset.on_bad_row=quarantine",
        )
    return found.table


def _line(row: pa.Table) -> bytes:
    return json.dumps(row.to_pylist()[0], ensure_ascii=False, default=str).encode("utf-8", "surrogatepass")


def _none(info: ObjectInfo, fragment: Fragment, columns: list[str] | None, access: Access) -> pa.Table:
    return select_columns(info, _schema(info, access).empty_table(), columns)


def _alone(info: ObjectInfo, fragment: Fragment, columns: list[str] | None, access: Access) -> pa.Table:
    raise AssertionError("an image of a metadata file is read with it")


METADATA = FileFormat(lambda info, access: [], _schema, _none, opens=lambda size: False)
LISTED_IMAGE = FileFormat(
    lambda info, access: [Fragment(0, 1, info.size)],
    lambda info, access: pa.schema([]),
    _alone,
    opens=lambda size: False,
    grouped=lambda: Bounds.fragment,
    read_listed=_read_listed,
)
