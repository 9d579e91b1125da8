"""JSON Lines whose values change their type, which Arrow refuses and so training too, read as texts to be counted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from astraml_ray.data.formats import Bounds, Fragment, read_fragment, schema_of
from astraml_ray.data.formats.unify import plain_text
from astraml_ray.data.storage.credentials import Access
from astraml_ray.data.storage.objects import ObjectInfo, open_object
from astraml_ray.errors import DataError

__all__ = ["loose_schema", "read_loosely"]


def read_loosely(
    objects: Sequence[ObjectInfo], fragment: Fragment, kind: str, columns: list[str], access: Access
) -> tuple[pa.Table, str | None]:
    """A fragment, and why training refuses it.

    Raises:
        DataError: It cannot be read like this either.
    """
    try:
        return read_fragment(objects, fragment, kind, columns, access), None
    except DataError as error:
        if kind != "jsonl":
            raise
        infos = objects[fragment.source : fragment.source + fragment.count]
        table = _as_texts(infos, fragment, access)
        if table is None or not set(columns) <= set(table.column_names):
            raise
        return table.select(columns), error.message


def loose_schema(info: ObjectInfo, kind: str, access: Access) -> pa.Schema:
    """The schema of an object; where the types change, every column is of texts.

    Raises:
        DataError: It cannot be read like this either.
    """
    try:
        return schema_of(info, kind, access)
    except DataError:
        if kind != "jsonl":
            raise
        table = _as_texts([info], Fragment(0, -1, info.size, stop=min(info.size, Bounds.fragment)), access)
        if table is None:
            raise
        return table.schema


def _as_texts(infos: Sequence[ObjectInfo], fragment: Fragment, access: Access) -> pa.Table | None:
    """Every value as text; a last line that is cut short is left out. None if it is no JSON Lines."""
    rows: list[Any] = []
    for info in infos:
        stop = fragment.stop or info.size
        with open_object(info, access) as file:
            file.seek(fragment.start)
            data = file.read(stop - fragment.start)
        if stop < info.size:
            data = data[: data.rfind(b"\n") + 1]
        try:
            rows += [json.loads(line) for line in data.decode("utf-8-sig").split("\n") if line.strip()]
        except (ValueError, RecursionError):
            return None
    if not rows or not all(isinstance(row, dict) for row in rows):
        return None
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: pa.array([_text(row.get(name)) for row in rows], pa.string()) for name in names})


def _text(value: Any) -> str | None:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else plain_text(value)
