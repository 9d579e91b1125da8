"""Metadata files of image folders, as Hugging Face's ImageFolder has them: a row for each image that one names."""

from __future__ import annotations

import posixpath
import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from astraml_ray.data.bad_data.rows import BadRow
from astraml_ray.data.formats.delimited import CSV
from astraml_ray.data.formats.fragment import Bounds, mended_part
from astraml_ray.data.formats.json_lines import JSON_LINES
from astraml_ray.data.formats.lines import line_format
from astraml_ray.data.formats.mending import Mended, joined
from astraml_ray.data.formats.parquet import PARQUET
from astraml_ray.data.formats.recognise import formats_of, metadata_of
from astraml_ray.data.formats.unify import concat_tables
from astraml_ray.data.splits import SplitRows
from astraml_ray.data.storage.credentials import Access
from astraml_ray.data.storage.objects import ObjectInfo
from astraml_ray.errors import DamagedError, DataError

__all__ = ["FILE_NAME", "Listing", "Rows", "listing_of", "objects_of", "row_numbers", "rows_of"]

FILE_NAME = "file_name"
_FILES = {"jsonl": line_format(JSON_LINES), "csv": line_format(CSV), "parquet": PARQUET}


@dataclass(frozen=True)
class Listing:
    """The objects of a split as they are read.

    Attributes:
        objects: Each metadata file is followed by the images that it names, row by row; one that is not there has no
            ETag, and for a row that names none stands the file itself, without its ETag.
        kinds: The format of each.
        unnamed: Images that no metadata file names, which are left out.
    """

    objects: tuple[ObjectInfo, ...]
    kinds: tuple[str, ...]
    unnamed: int = 0


def listing_of(
    objects: Sequence[ObjectInfo], wanted: str, access: Access, of_split: SplitRows | None = None
) -> Listing:
    """Brings the objects of a split into the order of their rows, and tells the format of each.

    Args:
        objects: Of the split.
        wanted: The spec's format.
        access: How they are reached.
        of_split: Which rows of a metadata file above several splits are this one's; None is all.

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
        uris = [uri for uri in _uris_in(info, access) if of_split is None or of_split.has(info.uri, uri)]
        found += [(info, "metadata"), *((images.get(uri, ObjectInfo(uri, 0, "")), "listed-image") for uri in uris)]
    unnamed = images.keys() - {info.uri for info, _ in found}
    _check_below(unnamed, metadata)
    others = ("metadata", "image-folder")
    found += [(info, kind) for info, kind in zip(objects, kinds, strict=True) if kind not in others]
    return Listing(tuple(info for info, _ in found), tuple(kind for _, kind in found), len(unnamed))


def objects_of(
    objects: Sequence[ObjectInfo], wanted: str, access: Access, of_split: SplitRows | None = None
) -> tuple[ObjectInfo, ...]:
    """The objects that listing_of gives; opened is only what tells of images."""
    return listing_of(objects, wanted, access, of_split).objects if metadata_of(objects, wanted) else tuple(objects)


def row_numbers(info: ObjectInfo, images: Sequence[str], access: Access) -> list[int] | None:
    """Which rows of a metadata file some images are of; None where each row has one.

    Args:
        info: The file.
        images: In the order of their rows. Where one is named twice, it is there twice.
        access: How it is reached.
    """
    if rows_of(info, access).table.num_rows == len(images):
        return None
    remaining = iter(enumerate(_uris_in(info, access)))
    return [next(row for row, uri in remaining if uri == image) for image in images]


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
    """The images of a metadata file, row by row: names are relative to its folder. A row without one is its own."""
    folder = info.uri.rpartition("/")[0]
    names = rows_of(info, access).table[FILE_NAME].to_pylist()
    return [_below(folder, name) if name else info.uri for name in names]


def _below(folder: str, name: str) -> str:
    """A folder stays as the listing writes it, whatever dots and slashes are in it."""
    path = posixpath.normpath(name).lstrip("/")
    while path.startswith("../"):
        folder, path = folder.rpartition("/")[0], path[3:]
    return f"{folder}/{path}"


@dataclass(frozen=True)
class Rows:
    """Of a metadata file.

    Attributes:
        table: All its rows; one that does not parse is null.
        faults: What is wrong with rows that name no image.
        written: What stands in the file where a row does not parse.
    """

    table: pa.Table
    faults: Mapping[int, BadRow]
    written: Mapping[int, bytes]

    @property
    def nbytes(self) -> int:
        """About what it takes."""
        return int(self.table.nbytes) + sum(map(len, self.written.values()))


class _Kept:
    """The metadata files that were read last, so that each fragment does not read its own again."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[ObjectInfo, str | None], Rows] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, info: ObjectInfo, access: Access) -> Rows:
        """The rows of a metadata file."""
        key = (info, access.endpoint_url)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = _parsed(info, access)
            self._kept.move_to_end(key)
            while len(self._kept) > 1 and sum(rows.nbytes for rows in self._kept.values()) > Bounds.frame:
                self._kept.popitem(last=False)
            return self._kept[key]


_kept = _Kept()


def rows_of(info: ObjectInfo, access: Access) -> Rows:
    """The rows of a metadata file.

    Raises:
        DataError: It cannot be read, is too large to be read as a whole, or does not name images.
    """
    return _kept.of(info, access)


def _parsed(info: ObjectInfo, access: Access) -> Rows:
    if info.size > Bounds.whole:
        raise DataError(
            f"has {info.size >> 20} MiB, and a metadata file is read as a whole",
            param=info.uri,
            hint=f"split the folder, so that each file is under {Bounds.whole >> 20} MiB, or write the rows as Parquet "
            "with the images in them",
        )
    file = _FILES[info.uri.rpartition(".")[2].lower()]
    file = replace(file, mend=None) if file is PARQUET else file
    parts = [mended_part(file, info, part, None, access) for part in file.fragments(info, access)]
    if not parts:
        parts = [Mended.whole(file.schema(info, access).empty_table())]
    found = joined(parts, concat_tables([info] * len(parts), [part.table for part in parts]))
    _check(info, found)
    return _with_faults(found)


def _with_faults(found: Mended) -> Rows:
    """All rows, those that do not parse with them, each in its place."""
    places = np.zeros(found.rows, np.int64)
    places[found.origins] = np.arange(len(found.origins))
    lost = np.ones(found.rows, bool)
    lost[found.origins] = False
    table = found.table.take(pa.array(places, mask=lost)) if lost.any() else found.table
    faults = {one.row: one for one in found.bad}
    for row in np.flatnonzero(np.asarray(pc.equal(pc.fill_null(table[FILE_NAME], ""), ""))).tolist():
        faults.setdefault(row, BadRow(row, "null", f"column {FILE_NAME!r} is null or empty"))
    return Rows(table, faults, found.written)


def _check(info: ObjectInfo, found: Mended) -> None:
    table = found.table
    if found.bad and not table.num_rows:
        raise DamagedError(f"is damaged: {found.bad[0].message}", param=info.uri, hint="write the object again")
    if FILE_NAME not in table.column_names:
        raise DataError(
            f"lies beside images and has no column {FILE_NAME!r} that names them; it has "
            f"{', '.join(table.column_names) or 'none'}",
            param=info.uri,
            hint="give each row the image's path, from the folder of this file on; or take the file out",
        )
    if "image" in table.column_names:
        raise DataError("has a column 'image', as its images are called", param=info.uri, hint="rename the column")
    names = table[FILE_NAME]
    if table.num_rows and not (pa.types.is_string(names.type) or pa.types.is_large_string(names.type)):
        raise DataError(f"column {FILE_NAME!r} holds {names.type}, no names", param=info.uri, hint="write texts")
