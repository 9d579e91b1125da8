"""Arrow streams and files, as `datasets.save_to_disk` writes them: fragments are runs of record batches."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from astraml_ray.data.formats.features import plain_features
from astraml_ray.data.formats.fragment import Bounds, FileFormat, Fragment, damage_named, select_columns
from astraml_ray.data.formats.mending import Mended
from astraml_ray.data.storage.credentials import Access
from astraml_ray.data.storage.objects import ObjectInfo, open_object, read_range, reading
from astraml_ray.errors import DamagedError, DataError

__all__ = ["ARROW"]

_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3
_FILE_MAGIC = b"ARROW1\0\0"
_CHUNK = 1 << 18


@dataclass(frozen=True)
class _Message:
    """An encapsulated message: what it is, where it ends, and the rows of a record batch."""

    kind: int
    stop: int
    rows: int


def _fragments(info: ObjectInfo, access: Access) -> list[Fragment]:
    return list(_batches(info, access))


def _batches(info: ObjectInfo, access: Access) -> Iterator[Fragment]:
    """Record batches together until they fill a fragment, found by the headers alone."""
    messages = _messages(info, access)
    start, rows = next(messages).stop, 0
    stop = start
    for message in messages:
        if message.kind == _DICTIONARY:
            yield _whole(info)
            return
        stop, rows = message.stop, rows + message.rows
        if stop - start >= Bounds.fragment:
            if rows:
                yield Fragment(0, rows, stop - start, start=start, stop=stop)
            start, rows = stop, 0
    if rows:
        yield Fragment(0, rows, stop - start, start=start, stop=stop)


def _whole(info: ObjectInfo) -> Fragment:
    """Dictionaries may be replaced anywhere in a stream, so what follows them is read with all before."""
    if info.size > Bounds.whole:
        raise DataError(
            "has dictionary columns, which in an Arrow file can only be read from one end to the other",
            param=info.uri,
            hint="write it as Parquet, or the column as plain strings",
        )
    return Fragment(0, -1, info.size)


def _messages(info: ObjectInfo, access: Access) -> Iterator[_Message]:
    """All messages; the first is the schema."""
    buffer, base = b"", 0

    def take(start: int, size: int) -> bytes:
        nonlocal buffer, base
        if not base <= start <= start + size <= base + len(buffer):
            base, buffer = start, read_range(info, start, start + max(size, _CHUNK), access)
        return buffer[start - base : start - base + size]

    at = len(_FILE_MAGIC) if take(0, 8) == _FILE_MAGIC else 0
    first = True
    while at < info.size:
        prefix = take(at, 8)
        if len(prefix) < 8 or prefix[:4] != b"\xff\xff\xff\xff":
            raise _damaged(info, at)
        size = int.from_bytes(prefix[4:], "little")
        if not size:
            break
        if at + 8 + size > info.size:
            raise _damaged(info, at)
        try:
            kind, rows, body = _parse(take(at + 8, size))
        except (struct.error, IndexError) as error:
            raise _damaged(info, at) from error
        at += 8 + size + body
        if at > info.size or body < 0 or first != (kind == _SCHEMA):
            raise _damaged(info, at)
        first = False
        yield _Message(kind, at, rows)
    if first:
        raise _damaged(info, at)


def _parse(metadata: bytes) -> tuple[int, int, int]:
    """Kind, rows and body length of a message: a flatbuffer, of which four fields are read."""
    root = struct.unpack_from("<I", metadata)[0]
    kind = struct.unpack_from("<B", metadata, _field(metadata, root, 1))[0]
    body_at = _field(metadata, root, 3)
    body = struct.unpack_from("<q", metadata, body_at)[0] if body_at else 0
    rows = 0
    if kind == _BATCH:
        header_at = _field(metadata, root, 2)
        header = header_at + struct.unpack_from("<I", metadata, header_at)[0]
        rows_at = _field(metadata, header, 0)
        rows = struct.unpack_from("<q", metadata, rows_at)[0] if rows_at else 0
    return kind, rows, body


def _field(metadata: bytes, table: int, number: int) -> int:
    """The offset of a table's field, 0 if it has its default."""
    vtable = table - struct.unpack_from("<i", metadata, table)[0]
    if vtable < 0:
        raise IndexError(vtable)
    size = struct.unpack_from("<H", metadata, vtable)[0]
    if 4 + 2 * number >= size:
        return 0
    offset = struct.unpack_from("<H", metadata, vtable + 4 + 2 * number)[0]
    return table + offset if offset else 0


def _damaged(info: ObjectInfo, at: int) -> DamagedError:
    return DamagedError(
        f"is damaged or cut short at byte {at}", param=info.uri, hint="write the object again, or take it out"
    )


def _schema(info: ObjectInfo, access: Access) -> pa.Schema:
    with reading(info.uri), damage_named(info):
        schema = pa.ipc.read_schema(pa.BufferReader(_schema_bytes(info, access)))
    return plain_features(info, schema.empty_table()).schema


def _schema_bytes(info: ObjectInfo, access: Access) -> bytes:
    stop = next(_messages(info, access)).stop
    data = read_range(info, 0, stop, access)
    return data.removeprefix(_FILE_MAGIC)


def _read(info: ObjectInfo, fragment: Fragment, columns: list[str] | None, access: Access) -> pa.Table:
    return plain_features(info, _record_batches(info, fragment, columns, access))


def _mend(info: ObjectInfo, fragment: Fragment, columns: list[str] | None, access: Access) -> Mended:
    return Mended.whole(plain_features(info, _record_batches(info, fragment, columns, access), mended=True))


def _record_batches(info: ObjectInfo, fragment: Fragment, columns: list[str] | None, access: Access) -> pa.Table:
    schema = _schema_bytes(info, access)
    with open_object(info, access) as file, damage_named(info):
        file.seek(fragment.start)
        data = file.read((fragment.stop or info.size) - fragment.start)
        stream = schema + data if fragment.stop else data.removeprefix(_FILE_MAGIC)
        there = pa.ipc.read_schema(pa.BufferReader(schema))
        select_columns(info, there.empty_table(), columns)
        wanted = [there.get_field_index(name) for name in columns or []]
        with pa.ipc.open_stream(
            pa.BufferReader(stream), options=pa.ipc.IpcReadOptions(included_fields=wanted, use_threads=False)
        ) as reader:
            table = reader.read_all()
    return select_columns(info, table, columns)


ARROW = FileFormat(_fragments, _schema, _read, remembered=lambda size: True, mend=_mend)
