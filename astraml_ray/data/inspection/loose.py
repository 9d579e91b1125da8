"""Lines that training refuses as they are, read to be counted: some do not parse, or values change their type."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from astraml_ray.data.bad_data.rows import MISSING_IMAGE
from astraml_ray.data.formats import (
    Fragment,
    Mended,
    mended_schema,
    read_fragment,
    read_mended,
    rows_lost,
    schema_of,
)
from astraml_ray.data.formats.unify import plain_text
from astraml_ray.data.storage.credentials import Access
from astraml_ray.data.storage.objects import ObjectInfo
from astraml_ray.errors import DamagedError, DataError

__all__ = ["Refusal", "loose_schema", "read_loosely"]

_LINES = ("jsonl", "json", "csv", "text")


@dataclass(frozen=True)
class Refusal:
    """Why training refuses a file.

    Attributes:
        file: Its URI.
        why: For people.
    """

    file: str
    why: str


def read_loosely(
    objects: Sequence[ObjectInfo], fragment: Fragment, kind: str, columns: list[str], access: Access
) -> tuple[pa.Table, Refusal | None]:
    """The rows of a fragment that can be counted, and why training refuses it.

    Raises:
        DataError: It cannot be read like this either: none of its rows parses, or one of the columns is not there.
    """
    if kind == "listed-image":
        return _there(objects, fragment, read_mended(objects, fragment, kind, columns, access))
    try:
        return read_fragment(objects, fragment, kind, columns, access), None
    except DataError as error:
        if not _of_lines(kind):
            raise
        refused = error
    parts, lost = _parts(objects, fragment, kind, access)
    odd = [_odd_rows(part) if kind.startswith("json") else {} for part in parts]
    table = _together(parts, odd)
    if not table.num_rows or not set(columns) <= set(table.column_names):
        raise refused
    lost += sum(len(part.bad) for part in parts) - sum(map(len, odd))
    told = f"; {lost:,} of {table.num_rows + lost:,} rows there do not parse, and are not counted" if lost else ""
    return table.select(columns), Refusal(refused.param or objects[fragment.source].uri, refused.message + told)


def _there(objects: Sequence[ObjectInfo], fragment: Fragment, found: Mended) -> tuple[pa.Table, Refusal | None]:
    """Of the rows of a metadata file, those whose images are there."""
    if not found.bad:
        return found.table, None
    first = found.bad[0]
    row = "" if first.reason == MISSING_IMAGE else f"row {first.row - first.before}: "
    more = f"; {len(found.bad):,} of {found.rows:,} rows there have no image" if len(found.bad) > 1 else ""
    return found.table, Refusal(objects[fragment.source + first.source].uri, row + first.message + more)


def loose_schema(info: ObjectInfo, kind: str, access: Access) -> pa.Schema:
    """The schema of an object; where some of its lines do not parse or fit, that of the others.

    Raises:
        DataError: None does.
    """
    return mended_schema(info, kind, access) if _of_lines(kind) else schema_of(info, kind, access)


def _of_lines(kind: str) -> bool:
    return kind.partition(".")[0] in _LINES


def _parts(objects: Sequence[ObjectInfo], fragment: Fragment, kind: str, access: Access) -> tuple[list[Mended], int]:
    """Each object's share of a fragment, and about how many rows are in those that cannot be read at all."""
    found, lost = [], 0
    for info in objects[fragment.source : fragment.source + fragment.count]:
        own = replace(fragment, source=0) if fragment.count == 1 else Fragment(0, -1, info.size)
        try:
            found.append(read_mended([info], own, kind, None, access))
        except DamagedError:
            lost += rows_lost([info], own, kind, access)
    return found, lost


def _odd_rows(mended: Mended) -> dict[int, dict[str, Any]]:
    """Rows that parse and do not fit the others, by their numbers."""
    found = {}
    for row, written in mended.written.items():
        try:
            value = json.loads(written)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            found[row] = value
    return found


def _together(parts: Sequence[Mended], odd: Sequence[dict[int, dict[str, Any]]]) -> pa.Table:
    """All rows; every value as text, where they are not of one type."""
    tables = [part.table for part in parts if part.table.num_rows]
    if not any(odd) and len({table.schema.remove_metadata() for table in tables}) == 1:
        return pa.concat_tables(tables)
    rows = [row for part, others in zip(parts, odd, strict=True) for row in _in_order(part, others)]
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: pa.array([_text(row.get(name)) for row in rows], pa.string()) for name in names})


def _in_order(part: Mended, odd: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
    rows = {**dict(zip(part.origins.tolist(), part.table.to_pylist(), strict=True)), **odd}
    return [rows[number] for number in sorted(rows)]


def _text(value: Any) -> str | None:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else plain_text(value)
