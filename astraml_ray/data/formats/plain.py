"""Plain text: a row per line that is not blank."""

from __future__ import annotations

import pyarrow as pa

from astraml_ray.data.formats.lines import Grammar
from astraml_ray.data.objects import ObjectInfo

__all__ = ["TEXT"]


def _read(info: ObjectInfo, data: bytes, header: bytes) -> pa.Table:
    lines = data.decode().splitlines()
    return pa.table({"text": pa.array([line for line in lines if line.strip()], pa.string())})


TEXT = Grammar(_read)
