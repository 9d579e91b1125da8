"""How encoded rows travel through Ray Data: a table, or an error, packed into one row of its own.

Ray cuts and joins the blocks of a stream by rows and bytes. A parcel is a single row, so it stays whole, and parcels
can be dealt out to workers in turn.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from astraml_ray.errors import AstraError

__all__ = ["pack", "pack_error", "unpacked"]

_SCHEMA = pa.schema([("rows", pa.large_binary()), ("error", pa.binary())])


def pack(table: pa.Table) -> pa.Table:
    """A parcel with a table."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    data = sink.getvalue()
    ends = pa.py_buffer(np.array([0, data.size], np.int64))
    rows = pa.Array.from_buffers(pa.large_binary(), 1, [None, ends, data])
    return pa.table([rows, pa.nulls(1, pa.binary())], schema=_SCHEMA)


def pack_error(error: AstraError) -> pa.Table:
    """A parcel that raises an error where it is unpacked; Ray would hide its class."""
    return pa.table([[None], [pickle.dumps(error)]], schema=_SCHEMA)


def unpacked(parcels: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The tables of parcels; they share the parcels' memory.

    Raises:
        AstraError: Of the first parcel that has one.
    """
    for parcel in parcels:
        for rows, error in zip(*(parcel[name] for name in _SCHEMA.names), strict=True):
            if error.is_valid:
                raised: AstraError = pickle.loads(error.as_py())  # made by pack_error
                raise raised
            yield pa.ipc.open_stream(rows.as_buffer()).read_all()
