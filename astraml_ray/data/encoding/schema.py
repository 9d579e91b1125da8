"""Encoded rows as Arrow tables. Every schema begins with the columns of `HEAD`; the rest is the encoder's."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["HEAD", "IGNORED", "RowError", "head"]

IGNORED = -100
"""The label of what is no target, as in torch.nn.functional.cross_entropy."""

HEAD = (pa.field("position", pa.int64()),)
"""The first columns: a row's position in the epoch's global order."""


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
    """The columns of `HEAD`."""
    return [pa.array(positions, pa.int64())]
