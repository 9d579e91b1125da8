"""Image folders: a row per file, of the class that its folder names."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from astraml_ray.data.formats.fragment import Bounds, FileFormat, Fragment, select_columns
from astraml_ray.data.splits import split_of
from astraml_ray.data.storage.credentials import Access
from astraml_ray.data.storage.objects import ObjectInfo, open_object
from astraml_ray.errors import DataError

__all__ = ["IMAGE_FOLDER", "class_of", "images_of"]

_READERS = 8
_SCHEMA = pa.schema([("image", pa.binary()), ("label", pa.string()), ("path", pa.string())])


def class_of(uri: str) -> str | None:
    """The name of the folder that a file lies in; a folder that names a split is no class."""
    folders = uri.split("://", 1)[-1].split("/")[:-1]
    return folders[-1] if folders and folders[-1] and split_of(folders[-1]) is None else None


def _fragments(info: ObjectInfo, access: Access) -> list[Fragment]:
    return [Fragment(0, 1, info.size)]


def _schema(info: ObjectInfo, access: Access) -> pa.Schema:
    return _SCHEMA


def _read(info: ObjectInfo, fragment: Fragment, columns: list[str] | None, access: Access) -> pa.Table:
    return _read_group([info], columns, access)


def _read_group(infos: Sequence[ObjectInfo], columns: list[str] | None, access: Access) -> pa.Table:
    """The files are read only where their bytes are wanted."""
    data: Sequence[bytes | None] = [None] * len(infos)
    if columns is None or "image" in columns:
        data = images_of(infos, access)
    uris = [info.uri for info in infos]
    rows = {"image": data, "label": [class_of(uri) for uri in uris], "path": uris}
    return select_columns(infos[0], pa.table(rows, schema=_SCHEMA), columns)


def images_of(infos: Sequence[ObjectInfo], access: Access) -> list[bytes]:
    """The bytes of files, a few read at once.

    Raises:
        DataError: One changed or vanished, or is too large for an image.
    """
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(lambda info: _bytes_of(info, access), infos))


def _bytes_of(info: ObjectInfo, access: Access) -> bytes:
    if info.size > Bounds.whole:
        raise DataError(
            f"is an image file of {info.size >> 20} MiB", param=info.uri, hint="scale it down, or take it out"
        )
    with open_object(info, access) as file:
        return file.read()


IMAGE_FOLDER = FileFormat(
    _fragments,
    _schema,
    _read,
    opens=lambda size: False,
    read_group=_read_group,
    grouped=lambda: Bounds.fragment,
)
