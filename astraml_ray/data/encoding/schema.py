"""Encoded rows as Arrow tables. Every schema begins with the columns of `HEAD`; the rest is the encoder's."""

from __future__ import annotations

import pickle

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from astraml_ray.errors import AstraError

__all__ = ["HEAD", "IGNORED", "PADDING", "RowError", "error_table", "head", "padding_rows", "raise_reported"]

IGNORED = -100
"""The label of what is no target, as in torch.nn.functional.cross_entropy."""

HEAD = (
    pa.field("position", pa.int64()),  # in the epoch's global order; PADDING fills a block up
    pa.field("error", pa.binary()),  # null, but in a table that stands for an error
)
PADDING, _ERROR = -1, -2


class RowError(ValueError):
    """A row that cannot be encoded; who reads the rows knows where it lies.

    Args:
        row: Its index in what was given to encode.
        reason: What is wrong with it.
        partner: It is the partner of that row which cannot be encoded.
    """

    def __init__(self, row: int, reason: str, *, partner: bool = False) -> None:
        super().__init__(reason)
        self.row = row
        self.reason = reason
        self.partner = partner


def head(positions: npt.NDArray[np.int64]) -> list[pa.Array]:
    """The columns of `HEAD`, of rows that are none of these."""
    return [pa.array(positions, pa.int64()), pa.nulls(len(positions), pa.binary())]


def padding_rows(schema: pa.Schema, count: int) -> pa.Table:
    """Rows without content, which fill a block up."""
    return _blank(schema, [PADDING] * count, [None] * count)


def error_table(error: AstraError, schema: pa.Schema) -> pa.Table:
    """A table that raises an error where it is consumed: one row, with the error's bytes."""
    return _blank(schema, [_ERROR], [pickle.dumps(error)])


def raise_reported(table: pa.Table) -> None:
    """Raises the error that a table stands for, if it does."""
    if table.num_rows and table["position"][0].as_py() == _ERROR:
        error: AstraError = pickle.loads(table["error"][0].as_py())  # made by error_table
        raise error


def _blank(schema: pa.Schema, positions: list[int], errors: list[bytes | None]) -> pa.Table:
    first = [pa.array(positions, pa.int64()), pa.array(errors, pa.binary())]
    return pa.table(
        [*first, *(pa.nulls(len(positions), field.type) for field in list(schema)[len(HEAD) :])], schema=schema
    )
