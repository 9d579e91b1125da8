"""A column as the one type that training takes, whatever type its file has."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from astraml_ray.errors import DataError

__all__ = ["MOST_WHOLE", "as_images", "as_numbers", "as_words", "plain_strings", "whole_as_ints"]

MOST_WHOLE = 2.0**63
"""Whole numbers from here on are written as other numbers are."""


def plain_strings(column: pa.ChunkedArray, name: str, where: str) -> pa.ChunkedArray:
    """A column as strings: whole numbers have no point. Nulls stay null.

    Raises:
        DataError: It holds no single values.
    """
    kind = _value_type(column)
    if pa.types.is_nested(kind):
        raise DataError(f"column {name!r} holds {kind}, not single values", param=where, hint="name another column")
    try:
        return whole_as_ints(column)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(
            f"column {name!r} holds {kind} that is no text", param=where, hint="name another column"
        ) from error


def whole_as_ints(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Single values as strings: a whole number below 2**63 has no point and no exponent, whatever stands beside it.

    Raises:
        pa.ArrowInvalid: One is no text.
        pa.ArrowNotImplementedError: None of this type is.
    """
    texts = column.cast(pa.string())
    if not pa.types.is_floating(_value_type(column)):
        return texts
    numbers = column.cast(pa.float64())
    whole = pc.and_(pc.equal(pc.floor(numbers), numbers), pc.less(pc.abs(numbers), MOST_WHOLE))
    return pc.if_else(whole, pc.if_else(whole, numbers, 0.0).cast(pa.int64()).cast(pa.string()), texts)


def as_numbers(column: pa.ChunkedArray, name: str, where: str) -> pa.ChunkedArray:
    """A column as finite float64.

    Raises:
        DataError: A value is no finite number.
    """
    try:
        numbers = plain_strings(column, name, where) if _is_text(_value_type(column)) else column
        numbers = numbers.cast(pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(
            f"column {name!r} holds what is no number: {str(error).splitlines()[0][:200]}",
            param=where,
            hint="name the column of numbers, or choose task text-classification",
        ) from error
    if (row := pc.index(pc.is_finite(numbers), False).as_py()) >= 0:
        raise DataError(f"column {name!r} is not finite in row {row}", param=where, hint="fill or remove such rows")
    return numbers


def as_words(column: pa.ChunkedArray, name: str, where: str) -> pa.ChunkedArray:
    """A column of lists, each value of them as a string.

    Raises:
        DataError: It holds no lists of single values, or a null in one.
    """
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or pa.types.is_nested(kind.value_type):
        raise DataError(
            f"column {name!r} holds {kind}, not lists of words", param=where, hint="name the column of lists"
        )
    lists = column.combine_chunks()
    lists = pa.concat_arrays(lists.chunks) if isinstance(lists, pa.ChunkedArray) else lists
    values = plain_strings(pa.chunked_array([lists.flatten()]), name, where)
    if values.null_count:
        raise DataError(f"column {name!r} has a null in a list", param=where, hint="fill or remove such rows")
    lengths = pc.list_value_length(lists).cast(pa.int32())
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), pc.cumulative_sum(lengths)])
    return pa.chunked_array([pa.ListArray.from_arrays(offsets, pa.concat_arrays(values.chunks))])


def as_images(column: pa.ChunkedArray, name: str, where: str) -> pa.ChunkedArray:
    """A column of encoded images as binary; a struct of `bytes` and `path`, as Hugging Face writes it, gives its bytes.

    Raises:
        DataError: It holds no bytes.
    """
    kind = column.type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        column = pc.struct_field(column, "bytes")
        if column.null_count:
            raise DataError(
                f"column {name!r} has only paths, not the images themselves",
                param=where,
                hint="write the dataset with its images embedded",
            )
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        raise DataError(f"column {name!r} holds {kind}, not encoded images", param=where, hint="name another column")
    return column.cast(pa.binary())


def _value_type(column: pa.ChunkedArray) -> pa.DataType:
    return column.type.value_type if pa.types.is_dictionary(column.type) else column.type


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
