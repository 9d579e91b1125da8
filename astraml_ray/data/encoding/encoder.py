"""What every encoder does, and how one is kept in a run's folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from astraml_ray.data.encoding.images import ImageEncoder
from astraml_ray.data.encoding.text import TextEncoder
from astraml_ray.data.encoding.words import WordEncoder
from astraml_ray.spec.augmentation import Augmentation

__all__ = ["Encoder", "encoder_from_plain", "encoder_to_plain"]


class Encoder(Protocol):
    """Everything needed to encode rows; a frozen dataclass of plain data."""

    @property
    def schema(self) -> pa.Schema:
        """Of the encoded rows: schema.HEAD, then what the task needs."""

    @property
    def row_bytes(self) -> int:
        """Bytes of an encoded row; 0 where that depends on the row, which then takes about what is stored of it."""

    def encode(
        self,
        rows: pa.Table,
        positions: npt.NDArray[np.int64],
        keys: npt.NDArray[np.uint64],
        augmentations: Sequence[Augmentation] = (),
    ) -> pa.Table:
        """Encodes rows, a pure function of them and their keys.

        Args:
            rows: Columns by role, as rows.read_rows gives them; where rows are mixed, `partner_ROLE` beside them.
            positions: Each row's position in the epoch.
            keys: Each row's key: all that is random follows from it.
            augmentations: Of training rows.

        Returns:
            As many rows, of `schema`.

        Raises:
            RowError: A row cannot be encoded.
        """


_KINDS: dict[str, type[Any]] = {"text": TextEncoder, "words": WordEncoder, "images": ImageEncoder}


def encoder_to_plain(encoder: Encoder) -> dict[str, Any]:
    """JSON data."""
    kind = next(name for name, kind in _KINDS.items() if isinstance(encoder, kind))
    return {"kind": kind, **asdict(encoder)}  # type: ignore[call-overload]


def encoder_from_plain(plain: dict[str, Any]) -> Encoder:
    """The reverse of encoder_to_plain."""
    fields = {
        name: tuple(value) if isinstance(value, list) else value for name, value in plain.items() if name != "kind"
    }
    encoder: Encoder = _KINDS[plain["kind"]](**fields)
    return encoder
