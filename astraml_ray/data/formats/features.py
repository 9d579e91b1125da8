"""Columns as training takes them: the types of Hugging Face features, images in structs, dictionaries."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from astraml_ray.data.storage.objects import ObjectInfo, reading
from astraml_ray.errors import DamagedError, DataError

__all__ = ["plain_features"]


def plain_features(info: ObjectInfo, table: pa.Table, *, mended: bool = False) -> pa.Table:
    """Class ids as class names, structs of image bytes and path as the bytes, dictionaries as their values.

    Args:
        info: The object.
        table: Of its rows.
        mended: Texts that are no UTF-8 stay as they are, and rows without an image have a null.

    Raises:
        DamagedError: An image is not in the file (mended: none is), or the bytes are no such values.
        DataError: A class id has no name.
    """
    with reading(info.uri):
        # Damage that decodes, such as texts that are no UTF-8.
        (_texts_as_bytes(table) if mended else table).validate(full=True)
    features = _features(table.schema)
    columns = {
        field.name: _plain(info, field.name, table[field.name], features.get(field.name), mended)
        for field in table.schema
    }
    return pa.table(columns) if columns else table


def _texts_as_bytes(table: pa.Table) -> pa.Table:
    return table.cast(pa.schema([(field.name, _bytes_of(field.type)) for field in table.schema]))


def _bytes_of(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_list(kind):
        return pa.list_(_bytes_of(kind.value_type))
    if pa.types.is_large_list(kind):
        return pa.large_list(_bytes_of(kind.value_type))
    return {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}.get(kind, kind)


def _features(schema: pa.Schema) -> dict[str, Any]:
    """What Hugging Face's libraries write into the schema about each column."""
    try:
        found = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _plain(info: ObjectInfo, name: str, column: pa.ChunkedArray, feature: Any, mended: bool) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_dictionary(kind):
        return column.cast(kind.value_type)
    if _holds_images(kind):
        return _image_bytes(info, name, column, mended)
    names = feature.get("names") if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" else None
    if names and pa.types.is_integer(kind):
        return _class_names(info, name, column, [str(one) for one in names])
    return column


def _holds_images(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind):
        return False
    kinds = {field.name: field.type for field in kind}
    return set(kinds) in ({"bytes"}, {"bytes", "path"}) and (
        pa.types.is_binary(kinds["bytes"]) or pa.types.is_large_binary(kinds["bytes"])
    )


def _image_bytes(info: ObjectInfo, name: str, column: pa.ChunkedArray, mended: bool) -> pa.ChunkedArray:
    data = pc.struct_field(column, "bytes")
    if data.null_count > column.null_count and not (mended and data.null_count < len(data)):
        raise DamagedError(
            f"column {name!r} names image files that are not in the dataset",
            param=info.uri,
            hint="write the images' bytes into it: save_to_disk and push_to_hub do",
        )
    return data


def _class_names(info: ObjectInfo, name: str, column: pa.ChunkedArray, names: list[str]) -> pa.ChunkedArray:
    """-1 stands for no label."""
    known = pc.if_else(pc.equal(column, -1), None, column)
    bounds = pc.min_max(known).as_py()
    if bounds["min"] is not None and not 0 <= bounds["min"] <= bounds["max"] < len(names):
        wrong = bounds["min"] if bounds["min"] < 0 else bounds["max"]
        raise DataError(
            f"column {name!r} holds class {wrong}, and there are {len(names)} class names",
            param=info.uri,
            hint="write the dataset again with all class names",
        )
    chunks = [pa.array(names, pa.string()).take(chunk) for chunk in known.chunks]
    return pa.chunked_array(chunks, pa.string())
