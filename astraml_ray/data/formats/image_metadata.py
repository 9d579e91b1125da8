"""Image folders with a metadata file, as Hugging Face's ImageFolder has them: a row for each image that it names."""

from __future__ import annotations

import json
import posixpath
import threading
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from astraml_ray.data.bad_data.rows import MISSING_IMAGE, BadRow
from astraml_ray.data.formats.delimited import CSV
from astraml_ray.data.formats.fragment import Bounds, FileFormat, Fragment, select_columns, sources_of
from astraml_ray.data.formats.images import images_of
from astraml_ray.data.formats.json_lines import JSON_LINES
from astraml_ray.data.formats.lines import line_format
from astraml_ray.data.formats.mending import Mended
from astraml_ray.data.formats.parquet import PARQUET
from astraml_ray.data.formats.recognise import formats_of, metadata_of
from astraml_ray.data.formats.unify import concat_tables
from astraml_ray.data.storage.credentials import Access
from astraml_ray.data.storage.objects import ObjectInfo
from astraml_ray.errors import DataError

__all__ = ["LISTED_IMAGE", "METADATA", "Listing", "all_there", "listing_of", "objects_of"]

_FILE_NAME = "file_name"
_FILES = {"jsonl": line_format(JSON_LINES), "csv": line_format(CSV), "parquet": PARQUET}


@dataclass(frozen=True)
class Listing:
    """The objects of a split as they are read.

    Attributes:
        objects: Each metadata file is followed by the images that it names, row by row; one that is not there has no
            ETag.
        kinds: The format of each.
        unnamed: Images that no metadata file names, which are left out.
    """

    objects: tuple[ObjectInfo, ...]
    kinds: tuple[str, ...]
    unnamed: int = 0


def listing_of(objects: Sequence[ObjectInfo], wanted: str, access: Access) -> Listing:
    """Brings the objects of a split into the order of their rows, and tells the format of each.

    Args:
        objects: Of the split.
        wanted: The spec's format.
        access: How they are reached.

    Raises:
        DataError: As formats_of; or a metadata file cannot be read, or names no images, or some lie below none.
    """
    kinds = formats_of(objects, wanted, access)
    metadata = [info for info, kind in zip(objects, kinds, strict=True) if kind == "metadata"]
    if not metadata:
        return Listing(tuple(objects), tuple(kinds))
    _check_one_each(metadata)
    images = {info.uri: info for info, kind in zip(objects, kinds, strict=True) if kind == "image-folder"}
    found: list[tuple[ObjectInfo, str]] = []
    for info in metadata:
        uris = _uris_in(info, access)
        found += [(info, "metadata"), *((images.get(uri, ObjectInfo(uri, 0, "")), "listed-image") for uri in uris)]
    unnamed = images.keys() - {info.uri for info, _ in found}
    _check_below(unnamed, metadata)
    others = ("metadata", "image-folder")
    found += [(info, kind) for info, kind in zip(objects, kinds, strict=True) if kind not in others]
    return Listing(tuple(info for info, _ in found), tuple(kind for _, kind in found), len(unnamed))


def objects_of(objects: Sequence[ObjectInfo], wanted: str, access: Access) -> tuple[ObjectInfo, ...]:
    """The objects that listing_of gives; opened is only what tells of images."""
    return listing_of(objects, wanted, access).objects if metadata_of(objects, wanted) else tuple(objects)


def _check_below(unnamed: Collection[str], metadata: Sequence[ObjectInfo]) -> None:
    """What is below no metadata file is no image that someone has left out of one."""
    folders = tuple(f"{info.uri.rpartition('/')[0]}/" for info in metadata)
    for uri in sorted(unnamed):
        if not uri.startswith(folders):
            raise DataError(
                f"is in no folder with a metadata file, and other images of the split are; {metadata[0].uri} is one",
                param=uri,
                hint="write one for these images too, or take that one out: then folders name the classes",
            )


def _check_one_each(metadata: Sequence[ObjectInfo]) -> None:
    folders: set[str] = set()
    for info in metadata:
        folder = info.uri.rpartition("/")[0]
        if folder in folders:
            raise DataError("is a second metadata file of its folder", param=info.uri, hint="leave one of them there")
        folders.add(folder)


def _uris_in(info: ObjectInfo, access: Access) -> list[str]:
    """The images of a metadata file, row by row: names are relative to its folder."""
    folder = info.uri.rpartition("/")[0]
    return [_below(folder, name) for name in _tables.of(info, access)[_FILE_NAME].to_pylist()]


def _below(folder: str, name: str) -> str:
    """A folder stays as the listing writes it, whatever dots and slashes are in it."""
    path = posixpath.normpath(name).lstrip("/")
    while path.startswith("../"):
        folder, path = folder.rpartition("/")[0], path[3:]
    return f"{folder}/{path}"


class _Tables:
    """The metadata files that were read last, so that each fragment does not read its own again."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[ObjectInfo, str | None], pa.Table] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, info: ObjectInfo, access: Access) -> pa.Table:
        """The rows of a metadata file."""
        key = (info, access.endpoint_url)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = _parsed(info, access)
            self._kept.move_to_end(key)
            while len(self._kept) > 1 and sum(table.nbytes for table in self._kept.values()) > Bounds.frame:
                self._kept.popitem(last=False)
            return self._kept[key]


_tables = _Tables()


def _parsed(info: ObjectInfo, access: Access) -> pa.Table:
    if info.size > Bounds.whole:
        raise DataError(
            f"has {info.size >> 20} MiB, and a metadata file is read as a whole",
            param=info.uri,
            hint=f"split the folder, so that each file is under {Bounds.whole >> 20} MiB, or write the rows as Parquet "
            "with the images in them",
        )
    file = _FILES[info.uri.rpartition(".")[2].lower()]
    parts = [file.read(info, part, None, access) for part in file.fragments(info, access)]
    table = concat_tables([info] * len(parts), parts) if parts else file.schema(info, access).empty_table()
    _check(info, table)
    return table


def _check(info: ObjectInfo, table: pa.Table) -> None:
    if _FILE_NAME not in table.column_names:
        raise DataError(
            f"lies beside images and has no column {_FILE_NAME!r} that names them; it has "
            f"{', '.join(table.column_names) or 'none'}",
            param=info.uri,
            hint="give each row the image's path, from the folder of this file on; or take the file out",
        )
    if "image" in table.column_names:
        raise DataError("has a column 'image', as its images are called", param=info.uri, hint="rename the column")
    names = table[_FILE_NAME]
    if table.num_rows and not (pa.types.is_string(names.type) or pa.types.is_large_string(names.type)):
        raise DataError(f"column {_FILE_NAME!r} holds {names.type}, no names", param=info.uri, hint="write texts")
    if names.null_count:
        row = pc.index(pc.is_null(names), True).as_py()
        raise DataError(f"column {_FILE_NAME!r} is null in row {row}", param=info.uri, hint="name an image there")


def _values(info: ObjectInfo, access: Access) -> pa.Table:
    return _tables.of(info, access).drop_columns([_FILE_NAME])


def _with_images(values: pa.Table, images: pa.Array, uris: Sequence[str]) -> pa.Table:
    table = values.add_column(0, "image", images)
    return table if "path" in values.column_names else table.append_column("path", pa.array(uris, pa.string()))


def _schema(info: ObjectInfo, access: Access) -> pa.Schema:
    return _with_images(_values(info, access).slice(0, 0), pa.array([], pa.binary()), []).schema


def _read_listed(
    objects: Sequence[ObjectInfo], fragment: Fragment, columns: list[str] | None, access: Access
) -> Mended:
    """The files are read only where their bytes are wanted."""
    metadata, *infos = sources_of(objects, fragment, "listed-image")
    first = fragment.source - fragment.group - 1
    rows = _tables.of(metadata, access).slice(first, len(infos))
    found = [info for info in infos if info.etag]
    data = images_of(found, access) if columns is None or "image" in columns else [None] * len(found)
    there = np.array([bool(info.etag) for info in infos])
    values = rows.drop_columns([_FILE_NAME]).filter(pa.array(there))
    table = _with_images(values, pa.array(data, pa.binary()), [info.uri for info in found])
    why = f"is named in {metadata.uri.rpartition('/')[2]}, and is not there"
    missing = np.flatnonzero(~there).tolist()
    bad = tuple(
        BadRow(row, MISSING_IMAGE, f"{why} (row {first + row} of it)", source=row, before=row) for row in missing
    )
    written = {row: _line(rows.slice(row, 1)) for row in missing}
    return Mended(
        select_columns(metadata, table, columns), np.flatnonzero(there), bad, written, counts=(1,) * len(infos)
    )


def all_there(objects: Sequence[ObjectInfo], fragment: Fragment, found: Mended) -> pa.Table:
    """The rows of images that are all there.

    Raises:
        DataError: One is missing.
    """
    for one in found.bad:
        raise DataError(
            one.message,
            param=objects[fragment.source + one.source].uri,
            hint="put the image there, or take its row out; or leave such rows out: dataset.on_bad_row=quarantine",
        )
    return found.table


def _line(row: pa.Table) -> bytes:
    return json.dumps(row.to_pylist()[0], ensure_ascii=False, default=str).encode("utf-8", "surrogatepass")


def _none(info: ObjectInfo, fragment: Fragment, columns: list[str] | None, access: Access) -> pa.Table:
    return select_columns(info, _schema(info, access).empty_table(), columns)


def _alone(info: ObjectInfo, fragment: Fragment, columns: list[str] | None, access: Access) -> pa.Table:
    raise AssertionError("an image of a metadata file is read with it")


METADATA = FileFormat(lambda info, access: [], _schema, _none, opens=lambda size: False)
LISTED_IMAGE = FileFormat(
    lambda info, access: [Fragment(0, 1, info.size)],
    lambda info, access: pa.schema([]),
    _alone,
    opens=lambda size: False,
    grouped=lambda: Bounds.fragment,
    read_listed=_read_listed,
)
