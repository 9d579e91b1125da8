"""JSON Lines, and small JSON arrays."""

from __future__ import annotations

import io
import json

import pyarrow as pa
import pyarrow.json as pa_json

from astraml_ray.data.formats.lines import Grammar
from astraml_ray.data.formats.unify import rows_table
from astraml_ray.data.objects import ObjectInfo
from astraml_ray.errors import DataError

__all__ = ["JSON_ARRAY", "JSON_LINES"]


def _read_lines(info: ObjectInfo, data: bytes, header: bytes) -> pa.Table:
    if data.lstrip()[:1] == b"[":
        raise DataError("is a JSON array, not JSON Lines", param=info.uri, hint="write one JSON object per line")
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
        raise DataError(f"is damaged: {error}", param=info.uri, hint="write one JSON object per line") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(
            "is a JSON array of other things than objects", param=info.uri, hint="write one JSON object per line"
        )
    return rows_table(info, rows, "")


JSON_LINES = Grammar(_read_lines)
JSON_ARRAY = Grammar(_read_array, cut=False)
