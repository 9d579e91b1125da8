"""Plain text: a row per line that is not blank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa

from astraml_ray.data.formats.lines import Grammar
from astraml_ray.data.formats.mending import Record, lines_of
from astraml_ray.data.storage.objects import ObjectInfo

__all__ = ["TEXT"]


def _read(info: ObjectInfo, data: bytes, header: bytes) -> pa.Table:
    lines = data.decode().splitlines()
    return pa.table({"text": pa.array([line for line in lines if line.strip()], pa.string())})


def _records(data: bytes, start: int) -> Iterator[Record]:
    """Lines; what else ends a line in Unicode may make several rows, or none, of one."""
    for line in lines_of(data, start):
        parts = line.data.decode("utf-8", "replace").splitlines()
        yield replace(line, rows=sum(bool(part.strip()) for part in parts))


TEXT = Grammar(_read, _records)
