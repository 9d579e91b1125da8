"""JSON Lines, and small JSON arrays."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.json as pa_json

from astraml_ray.data.formats.lines import Grammar
from astraml_ray.data.formats.mending import Record, lines_of
from astraml_ray.data.formats.unify import rows_table
from astraml_ray.data.storage.objects import ObjectInfo
from astraml_ray.errors import DamagedError

__all__ = ["JSON_ARRAY", "JSON_LINES"]


def _read_lines(info: ObjectInfo, data: bytes, header: bytes) -> pa.Table:
    if data.lstrip()[:1] == b"[":
        raise DamagedError("is a JSON array, not JSON Lines", param=info.uri, hint="write one JSON object per line")
    try:
        table = _parse(data, None)
        # Arrow takes texts that look like times for times, if all of a fragment do: they stay as they are written.
        times = [field.name for field in table.schema if pa.types.is_temporal(field.type)]
        return _parse(data, pa.schema([(name, pa.string()) for name in times])) if times else table
    except pa.ArrowInvalid as error:
        if "changed from" not in str(error):
            raise
        try:
            rows = [json.loads(line) for line in data.decode().split("\n") if line.strip()]
        except (ValueError, RecursionError):
            raise error from None
        if not all(isinstance(row, dict) for row in rows):
            raise
        return rows_table(info, rows, str(error))


def _parse(data: bytes, known: pa.Schema | None) -> pa.Table:
    return pa_json.read_json(
        io.BytesIO(data),
        read_options=pa_json.ReadOptions(use_threads=False, block_size=len(data) + 1),
        parse_options=pa_json.ParseOptions(explicit_schema=known),
    )


def _read_array(info: ObjectInfo, data: bytes, header: bytes) -> pa.Table:
    try:
        rows = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"is damaged: {error}", param=info.uri, hint="write one JSON object per line") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DamagedError(
            "is a JSON array of other things than objects", param=info.uri, hint="write one JSON object per line"
        )
    return rows_table(info, rows, "")


def _items(data: bytes, start: int) -> Iterator[Record]:
    """The items of an array, which must be JSON as a whole."""
    try:
        items = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"is damaged: {error}") from error
    for item in items if isinstance(items, list) else [items]:
        yield Record(json.dumps(item, ensure_ascii=False).encode("utf-8", "surrogatepass"), -1)


def _array_of(items: Iterable[bytes]) -> bytes:
    return b"[" + b",".join(items) + b"]"


def _of_other_shapes(records: Sequence[Record]) -> dict[int, str]:
    """Objects, lists and single values where most rows have another of the three."""
    rows = [json.loads(record.data) for record in records]
    shapes: dict[str, Counter[str]] = {}
    for row in rows:
        for name, value in row.items():
            if value is not None:
                shapes.setdefault(name, Counter())[_shape(value)] += 1
    usual = {name: counts.most_common(1)[0][0] for name, counts in shapes.items()}
    return {
        index: f"column {name!r} holds a {_shape(value)}, in most rows a {usual[name]}"
        for index, row in enumerate(rows)
        for name, value in row.items()
        if value is not None and _shape(value) != usual[name]
    }


def _shape(value: Any) -> str:
    return "list" if isinstance(value, list) else "structure" if isinstance(value, dict) else "single value"


JSON_LINES = Grammar(_read_lines, lines_of, odd=_of_other_shapes)
JSON_ARRAY = Grammar(_read_array, _items, cut=False, join=_array_of, odd=_of_other_shapes, row_mark=b"{")
