"""WebDataset: tar shards in which consecutive files of one key make a sample."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from astraml_ray.data.bad_data.rows import BadRow
from astraml_ray.data.formats.compressed import Unpacked
from astraml_ray.data.formats.fragment import Bounds, FileFormat, Fragment, select_columns
from astraml_ray.data.formats.mending import Mended
from astraml_ray.data.formats.tar_index import indexed_fragments
from astraml_ray.data.formats.tar_samples import grouped, key_of, walked
from astraml_ray.data.formats.tar_walk import cut_short
from astraml_ray.data.formats.unify import rows_table
from astraml_ray.data.splits import IMAGE_SUFFIXES
from astraml_ray.data.storage.credentials import Access
from astraml_ray.data.storage.objects import ObjectInfo, open_object
from astraml_ray.errors import DamagedError, DataError

__all__ = ["WEBDATASET", "WEBDATASET_GZ"]

_FIRST = ("__key__", "image", "text", "label")


def _fragments(info: ObjectInfo, access: Access) -> list[Fragment]:
    """A shard of a few megabytes has few headers: to look for an index would take as long."""
    found = indexed_fragments(info, access) if info.size > Bounds.fragment else None
    return list(grouped(walked(info, access))) if found is None else found


def _schema(info: ObjectInfo, access: Access) -> pa.Schema:
    first = next(grouped(walked(info, access)), None)
    return _read(info, first, None, access).schema if first else pa.schema([])


def _head(info: ObjectInfo, access: Access) -> Fragment:
    return next(grouped(walked(info, access)), Fragment(0, 0, 0))


def _read(info: ObjectInfo, fragment: Fragment, columns: list[str] | None, access: Access) -> pa.Table:
    samples = _samples_in(info, _bytes_of(info, fragment, access))
    return select_columns(info, _table(info, samples), columns)


def _bytes_of(info: ObjectInfo, fragment: Fragment, access: Access) -> bytes:
    with open_object(info, access) as file:
        file.seek(fragment.start)
        data: bytes = file.read((fragment.stop or info.size) - fragment.start)
    return data


def _mend(info: ObjectInfo, fragment: Fragment, columns: list[str] | None, access: Access) -> Mended:
    """Samples whose texts or JSON cannot be read are told apart."""
    return _mended(info, _bytes_of(info, fragment, access), columns)


def _mended(info: ObjectInfo, data: bytes, columns: list[str] | None) -> Mended:
    samples = _samples_in(info, data)
    rows: list[dict[str, Any]] = []
    origins: list[int] = []
    bad: list[BadRow] = []
    for number, sample in enumerate(samples):
        try:
            rows.append(_row(info, *sample))
            origins.append(number)
        except DamagedError as error:
            bad.append(BadRow(number, "unparsable", error.message))
    none = pa.table({name: pa.array([], pa.string()) for name in columns or []})
    table = select_columns(info, _rows_table(info, rows), columns) if rows else none
    return Mended(table, np.array(origins, np.int64), tuple(bad))


def _table(info: ObjectInfo, samples: list[tuple[str, dict[str, bytes]]]) -> pa.Table:
    return _rows_table(info, [_row(info, key, files) for key, files in samples])


def _samples_in(info: ObjectInfo, data: bytes) -> list[tuple[str, dict[str, bytes]]]:
    """The key of each sample, and its files by their extensions."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            return list(_samples_of(info, tar))
    except tarfile.TarError as error:
        raise cut_short(info, 0, str(error)) from error


def _rows_table(info: ObjectInfo, rows: list[dict[str, Any]]) -> pa.Table:
    names = dict.fromkeys(name for row in rows for name in row)
    return rows_table(info, rows, "").select(sorted(names, key=lambda name: (*_place(name), name)))


def _place(name: str) -> tuple[int]:
    return (_FIRST.index(name) if name in _FIRST else len(_FIRST),)


def _samples_of(info: ObjectInfo, tar: tarfile.TarFile) -> Iterator[tuple[str, dict[str, bytes]]]:
    key: str | None = None
    files: dict[str, bytes] = {}
    for member in tar:
        found = key_of(member.name) if member.isreg() else None
        if found is None:
            continue
        if found[0] != key and files:
            yield str(key), files
            files = {}
        key, extension = found
        if extension in files:
            raise DataError(
                f"has {member.name!r} twice in one sample", param=info.uri, hint="give every sample a key of its own"
            )
        body = tar.extractfile(member)
        files[extension] = body.read() if body else b""
        if len(files[extension]) < member.size:
            raise cut_short(info, member.offset, f"{member.name!r} goes on after its end")
    if files:
        yield str(key), files


def _row(info: ObjectInfo, key: str, files: dict[str, bytes]) -> dict[str, Any]:
    """A sample's values: an image, texts, a label, and the single values of its JSON."""
    row: dict[str, Any] = {"__key__": key}
    try:
        for extension, data in files.items():
            if extension in IMAGE_SUFFIXES:
                row["image"] = data
            elif extension in ("txt", "text"):
                row["text"] = data.decode("utf-8-sig")
            elif extension in ("cls", "label"):
                row["label"] = data.decode().strip()
            elif extension == "json":
                row = {**_scalars(json.loads(data)), **row}
    except ValueError as error:
        raise DamagedError(f"sample {key!r} is damaged: {error}", param=info.uri, hint="write it again") from error
    return row


def _scalars(document: Any) -> dict[str, Any]:
    items: Iterable[tuple[str, Any]] = document.items() if isinstance(document, dict) else ()
    return {name: value for name, value in items if value is None or isinstance(value, (str, bool, int, float))}


def _whole(info: ObjectInfo, access: Access) -> list[Fragment]:
    return [Fragment(0, -1, info.size)]


def _read_gz(info: ObjectInfo, fragment: Fragment, columns: list[str] | None, access: Access) -> pa.Table:
    return select_columns(info, _table(info, _samples_in(info, _unpacked(info, access))), columns)


def _mend_gz(info: ObjectInfo, fragment: Fragment, columns: list[str] | None, access: Access) -> Mended:
    return _mended(info, _unpacked(info, access), columns)


def _unpacked(info: ObjectInfo, access: Access) -> bytes:
    with open_object(info, access) as file:
        data = Unpacked(info, file, "gz").read(Bounds.whole + 1)
    if len(data) > Bounds.whole:
        raise DataError(
            f"is a compressed tar of over {Bounds.whole >> 20} MiB, which cannot be read in parts",
            param=info.uri,
            hint="decompress it: images in it are compressed already",
        )
    return data


def _schema_gz(info: ObjectInfo, access: Access) -> pa.Schema:
    return _read_gz(info, Fragment(0, -1, info.size), None, access).schema


WEBDATASET = FileFormat(_fragments, _schema, _read, remembered=lambda size: True, mend=_mend, head=_head)
WEBDATASET_GZ = FileFormat(_whole, _schema_gz, _read_gz, opens=lambda size: False, grouped=lambda: 0, mend=_mend_gz)
