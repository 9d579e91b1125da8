"""Every format by its name, and what is asked of one: fragments, schema, rows."""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from itertools import islice, takewhile
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa

from astraml_ray.data.bad_data.rows import DAMAGED_FILE, BadRow
from astraml_ray.data.formats.arrow import ARROW
from astraml_ray.data.formats.compressed import compressed_format
from astraml_ray.data.formats.delimited import CSV
from astraml_ray.data.formats.fragment import Bounds, FileFormat, Fragment, ListedRows, fragment_of, mended_part
from astraml_ray.data.formats.image_metadata import row_numbers
from astraml_ray.data.formats.images import IMAGE_FOLDER
from astraml_ray.data.formats.json_lines import JSON_ARRAY, JSON_LINES
from astraml_ray.data.formats.lines import line_format
from astraml_ray.data.formats.listed_images import LISTED_IMAGE, METADATA, all_there
from astraml_ray.data.formats.mending import Mended, joined
from astraml_ray.data.formats.parquet import PARQUET
from astraml_ray.data.formats.plain import TEXT
from astraml_ray.data.formats.unify import concat_tables
from astraml_ray.data.formats.webdataset import WEBDATASET, WEBDATASET_GZ
from astraml_ray.data.storage.credentials import Access
from astraml_ray.data.storage.objects import ObjectInfo
from astraml_ray.errors import DamagedError, DataError

__all__ = ["FORMATS", "fragments_of", "mended_schema", "read_fragment", "read_mended", "rows_lost", "schema_of"]

_GRAMMARS = {"jsonl": JSON_LINES, "json": JSON_ARRAY, "csv": CSV, "text": TEXT}
FORMATS: dict[str, FileFormat] = {
    "parquet": PARQUET,
    "arrow": ARROW,
    "image-folder": IMAGE_FOLDER,
    "metadata": METADATA,
    "listed-image": LISTED_IMAGE,
    "webdataset": WEBDATASET,
    "webdataset.gz": WEBDATASET_GZ,
    **{name: line_format(grammar) for name, grammar in _GRAMMARS.items()},
    **{
        f"{name}.{packed}": compressed_format(grammar, packed)
        for name, grammar in _GRAMMARS.items()
        for packed in ("gz", "zst")
    },
}
_VERSION = 1
_THREADS = 16
_READERS = 8
_MOST_LOST = 100_000
_WHOLE = Fragment(0, -1, 0)
_T = TypeVar("_T")


def fragments_of(
    objects: Sequence[ObjectInfo],
    kinds: Sequence[str],
    places: range,
    access: Access,
    cache: Path | None = None,
) -> Iterator[Fragment]:
    """The fragments of consecutive objects, in their order: large ones in parts, small neighbours as one.

    Objects are opened a few hundred ahead, so that a caller who wants only the first rows opens only those.

    Args:
        objects: Of the manifest.
        kinds: The format of each.
        places: Which of them, in order.
        access: How they are reached.
        cache: Folder that remembers, by ETag, what was found by reading.
    """
    group: list[Fragment] = []
    held = index = 0
    numbers: list[int] | None = None
    with ThreadPoolExecutor(_THREADS) as pool:
        remaining = iter(places)
        while window := list(islice(remaining, _THREADS * 16)):
            found = pool.map(lambda i: _fragments(objects[i], kinds[i], access, cache), _opened(objects, kinds, window))
            for place in window:
                kind = _format(kinds[place], objects[place])
                parts = next(found) if kind.opens(objects[place].size) else kind.fragments(objects[place], access)
                if kind is METADATA:
                    index, numbers = place, _numbers(objects, kinds, place, access)
                of_list = kind is LISTED_IMAGE
                own = [
                    _listed(part, place, index, numbers) if of_list else replace(part, source=place) for part in parts
                ]
                alone = len(own) != 1 or (own[0].group > 0 and not of_list) or objects[place].size > kind.grouped()
                if group and (alone or not _fits(group, held + own[0].size, kinds[place], kinds)):
                    yield _as_one(group)
                    group, held = [], 0
                if alone:
                    yield from own
                else:
                    group.append(own[0])
                    held += own[0].size
    if group:
        yield _as_one(group)


def _numbers(objects: Sequence[ObjectInfo], kinds: Sequence[str], place: int, access: Access) -> list[int] | None:
    """The rows of the images behind a metadata file, if it has others."""
    behind = takewhile(lambda i: kinds[i] == "listed-image", range(place + 1, len(kinds)))
    return row_numbers(objects[place], [objects[i].uri for i in behind], access)


def _listed(part: Fragment, place: int, index: int, numbers: Sequence[int] | None) -> Fragment:
    if numbers is None:
        return replace(part, source=place, group=index)
    return ListedRows(place, part.rows, part.size, group=index, numbers=(numbers[place - index - 1],))


def _opened(objects: Sequence[ObjectInfo], kinds: Sequence[str], window: list[int]) -> list[int]:
    return [place for place in window if _format(kinds[place], objects[place]).opens(objects[place].size)]


def _format(kind: str, info: ObjectInfo) -> FileFormat:
    if kind not in FORMATS:
        name, _, packed = kind.partition(".")
        raise DataError(
            f"is {name} compressed as a whole (.{packed}), which is not read",
            param=info.uri,
            hint="decompress it",
        )
    return FORMATS[kind]


def _fits(group: list[Fragment], size: int, kind: str, kinds: Sequence[str]) -> bool:
    most = Bounds.fragment // 8 if "." in kind else Bounds.fragment
    return len(group) < Bounds.group and size <= most and kinds[group[0].source] == kind


def _as_one(group: list[Fragment]) -> Fragment:
    if len(group) == 1:
        return group[0]
    rows = sum(part.rows for part in group) if all(part.rows >= 0 for part in group) else -1
    size = sum(part.size for part in group)
    whole = replace(group[0], rows=rows, size=size, count=len(group))
    if isinstance(whole, ListedRows):
        numbers = (number for part in group if isinstance(part, ListedRows) for number in part.numbers)
        return replace(whole, numbers=tuple(numbers))
    return whole


def _fragments(info: ObjectInfo, kind: str, access: Access, cache: Path | None) -> list[Fragment]:
    """Of one object; where they are costly to find, they are remembered."""
    file = FORMATS[kind]
    if cache is None or not file.remembered(info.size):
        return file.fragments(info, access)
    key = json.dumps([_VERSION, asdict(info), kind, Bounds.fragment])
    path = cache / "fragments" / f"{hashlib.sha256(key.encode()).hexdigest()}.json"
    try:
        return [fragment_of(part) for part in json.loads(path.read_text())]
    except (OSError, ValueError, TypeError):
        parts = file.fragments(info, access)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps([asdict(part) for part in parts]))
        temporary.replace(path)
    except OSError:
        pass  # without a cache, the next run looks again
    return parts


def schema_of(info: ObjectInfo, kind: str, access: Access) -> pa.Schema:
    """The schema of an object, from its footer, its headers or its first rows."""
    return _format(kind, info).schema(info, access)


def read_fragment(
    objects: Sequence[ObjectInfo], fragment: Fragment, kind: str, columns: list[str] | None, access: Access
) -> pa.Table:
    """Reads the wanted columns of a fragment, in the order of the objects and of their rows.

    Args:
        objects: Of the manifest.
        fragment: Of those objects.
        kind: Their format.
        columns: Which; None is all.
        access: How they are reached.

    Raises:
        DamagedError: An object is damaged.
        DataError: An object changed, or lacks a column.
    """
    infos = objects[fragment.source : fragment.source + fragment.count]
    file = _format(kind, infos[0])
    if file.read_listed is not None:
        return all_there(objects, fragment, file.read_listed(objects, fragment, columns, access))
    if fragment.count == 1:
        return file.read(infos[0], fragment, columns, access)
    if file.read_group is not None:
        return file.read_group(infos, columns, access)
    return concat_tables(infos, _of_each(infos, lambda info: file.read(info, _WHOLE, columns, access), _bytes_of))


def read_mended(
    objects: Sequence[ObjectInfo], fragment: Fragment, kind: str, columns: list[str] | None, access: Access
) -> Mended:
    """As read_fragment, what does not parse told apart: lines, samples, or a whole file among small ones.

    Raises:
        DamagedError: The fragment cannot be read at all.
        DataError: An object changed, or lacks a column.
    """
    infos = objects[fragment.source : fragment.source + fragment.count]
    file = _format(kind, infos[0])
    if file.read_listed is not None:
        return file.read_listed(objects, fragment, columns, access)
    if fragment.count == 1:
        return mended_part(file, infos[0], fragment, columns, access)
    if file.read_group is not None:
        return Mended.whole(file.read_group(infos, columns, access), (1,) * len(infos))

    def read(info: ObjectInfo) -> Mended:
        try:
            return mended_part(file, info, _WHOLE, columns, access)
        except DamagedError as error:
            rows = range(min(_MOST_LOST, _rows_lost(file, info, _WHOLE, access)))
            none = pa.table({name: pa.array([], pa.string()) for name in columns or []})
            return Mended(none, np.arange(0), tuple(BadRow(row, DAMAGED_FILE, error.message) for row in rows))

    parts = _of_each(infos, read, lambda part: _bytes_of(part.table))
    return joined(parts, concat_tables(infos, [part.table for part in parts]))


def _of_each(infos: Sequence[ObjectInfo], read: Callable[[ObjectInfo], _T], size: Callable[[_T], int]) -> list[_T]:
    """Several at once, the next one when the first of them is counted."""
    found: list[_T] = []
    held = 0
    remaining = iter(infos)
    with ThreadPoolExecutor(_READERS) as pool:
        pending = deque(pool.submit(read, info) for info in islice(remaining, _READERS))
        while pending:
            found.append(pending.popleft().result())
            held += size(found[-1])
            if held > Bounds.frame:
                raise DataError(
                    f"and the small files beside it become over {Bounds.frame >> 20} MiB when they are read",
                    param=infos[0].uri,
                    hint="write fewer rows per compressed file",
                )
            pending.extend(pool.submit(read, info) for info in islice(remaining, 1))
    return found


def _bytes_of(table: pa.Table) -> int:
    size: int = table.nbytes
    return size


def mended_schema(info: ObjectInfo, kind: str, access: Access) -> pa.Schema:
    """As schema_of, of an object of which some rows may not parse.

    Raises:
        DamagedError: None does.
    """
    file = _format(kind, info)
    try:
        return file.schema(info, access)
    except DamagedError:
        if file.mend is None:
            raise
        schema = file.mend(info, file.head(info, access), None, access).table.schema
        if not len(schema):
            raise
        return schema


def rows_lost(objects: Sequence[ObjectInfo], fragment: Fragment, kind: str, access: Access) -> int:
    """About how many rows a fragment has that cannot be read, at least 1."""
    if fragment.rows >= 0:
        return max(1, fragment.rows)
    infos = objects[fragment.source : fragment.source + fragment.count]
    part = fragment if fragment.count == 1 else _WHOLE
    return sum(_rows_lost(_format(kind, info), info, part, access) for info in infos)


def _rows_lost(file: FileFormat, info: ObjectInfo, fragment: Fragment, access: Access) -> int:
    try:
        if file.rows_lost is not None:
            return file.rows_lost(info, fragment, access)
        return max(1, sum(max(0, part.rows) for part in file.fragments(info, access)))
    except DamagedError:
        return 1
