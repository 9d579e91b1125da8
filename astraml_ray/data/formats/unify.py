"""One type for a column of several files: where theirs differ, texts, as a label or a text of any type becomes one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from astraml_ray.data.storage.objects import ObjectInfo
from astraml_ray.data.values import MOST_WHOLE, whole_as_ints
from astraml_ray.errors import DamagedError, DataError

__all__ = ["concat_tables", "plain_text", "rows_table"]


def plain_text(value: Any) -> str | None:
    """A single value as text: 1, 1.0 and "1" are the same; true is `true`."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        whole = value.is_integer() and abs(value) < MOST_WHOLE
        return str(int(value)) if whole else str(pa.scalar(value).cast(pa.string()).as_py())
    return str(value)


def rows_table(info: ObjectInfo, rows: list[dict[str, Any]], fault: str) -> pa.Table:
    """A table of parsed rows: a column of single values of several types becomes texts."""
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {}
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            columns[name] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            if any(isinstance(value, (dict, list)) for value in values):
                raise DamagedError(
                    f"is damaged or not what its name says: {fault or error}",
                    param=info.uri,
                    hint=f"write column {name!r} in one way in all rows, or leave it out",
                ) from error
            columns[name] = pa.array([plain_text(value) for value in values], pa.string())
    return pa.table(columns)


def concat_tables(infos: Sequence[ObjectInfo], tables: Sequence[pa.Table]) -> pa.Table:
    """The rows of small files, one after the other.

    Returns:
        The columns that all have, in the order of the first.

    Raises:
        DataError: A column's types cannot be made one.
    """
    filled = [(info, table) for info, table in zip(infos, tables, strict=True) if table.num_rows]
    if not filled:
        return tables[0]
    names = [name for name in filled[0][1].column_names if all(name in table.column_names for _, table in filled)]
    columns = {}
    for name in names:
        parts = [(info, table[name]) for info, table in filled]
        kinds = {part.type for _, part in parts if not pa.types.is_null(part.type)}
        if len(kinds) > 1:
            columns[name] = pa.chunked_array([chunk for info, part in parts for chunk in _texts(info, name, part)])
        else:
            kind = next(iter(kinds), pa.null())
            columns[name] = pa.chunked_array([chunk for _, part in parts for chunk in part.cast(kind).chunks], kind)
    return pa.table(columns)


def _texts(info: ObjectInfo, name: str, column: pa.ChunkedArray) -> list[pa.Array]:
    if pa.types.is_nested(column.type) or pa.types.is_binary(column.type):
        raise DataError(
            f"column {name!r} is {column.type}, which it is not in the other files",
            param=info.uri,
            hint="write the column in one way in all files",
        )
    return list(whole_as_ints(column).chunks)
