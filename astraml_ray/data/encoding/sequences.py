"""Sequences of tokens as Arrow tables, and the tokenizer that makes them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tokenizers import Tokenizer

from astraml_ray.data.encoding.schema import HEAD, head

__all__ = ["SEQUENCES", "lists_of", "sequence_table", "sequences", "tokenizer_of"]


def sequences(labels: pa.DataType, *, segments: bool = False) -> pa.Schema:
    """The schema of rows of sequences.

    Args:
        labels: Type of a label: one class or number, or one id per token.
        segments: With the segment of each token, 0 or 1, where rows are pairs of texts.
    """
    fields = [
        *HEAD,
        ("lengths", pa.list_(pa.int32())),  # tokens of each sequence of the row
        ("input_ids", pa.list_(pa.int32())),  # the sequences, one after the other
        ("labels", pa.list_(labels)),
    ]
    return pa.schema([*fields, ("token_type_ids", pa.list_(pa.int32()))] if segments else fields)


SEQUENCES = sequences(pa.int32())
"""Of one text per row, with classes or ids as labels."""


def sequence_table(
    schema: pa.Schema,
    positions: npt.NDArray[np.int64],
    rows: Sequence[Sequence[Sequence[int]]],
    inputs: Any,
    labels: Any,
    segments: Any = None,
) -> pa.Table:
    """Rows of sequences.

    Args:
        schema: See sequences.
        positions: Of the rows.
        rows: The sequences of each row; only their lengths are kept.
        inputs: Token ids of each row, all its sequences in one.
        labels: Of each row.
        segments: Of each row's tokens, where the schema has them.
    """
    lengths = [[len(part) for part in row] for row in rows]
    values = [lengths, inputs, labels, *([segments] if "token_type_ids" in schema.names else [])]
    columns = [
        lists_of(value, field.type.value_type) for value, field in zip(values, list(schema)[len(HEAD) :], strict=True)
    ]
    return pa.table([*head(positions), *columns], schema=schema)


def lists_of(rows: Sequence[Any], kind: pa.DataType) -> pa.ListArray:
    """One list of numbers per row."""
    offsets = np.zeros(len(rows) + 1, np.int32)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    number = kind.to_pandas_dtype()
    flat = np.concatenate([np.asarray(row, number) for row in rows]) if rows else np.zeros(0, number)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat, kind))


@lru_cache(maxsize=4)
def tokenizer_of(text: str, max_length: int | None) -> Tokenizer:
    """A tokenizer out of its JSON; it cuts at `max_length` tokens, of two texts always the longer one."""
    tokenizer = Tokenizer.from_str(text)
    tokenizer.no_padding()
    if max_length is None:
        tokenizer.no_truncation()
    else:
        tokenizer.enable_truncation(max_length)
    return tokenizer
