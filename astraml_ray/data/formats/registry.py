"""Every format by its name, and what is asked of one: fragments, schema, rows."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

import pyarrow as pa

from astraml_ray.data.credentials import Access
from astraml_ray.data.formats.arrow import ARROW
from astraml_ray.data.formats.compressed import compressed_format
from astraml_ray.data.formats.delimited import CSV
from astraml_ray.data.formats.fragment import Bounds, FileFormat, Fragment
from astraml_ray.data.formats.images import IMAGE_FOLDER
from astraml_ray.data.formats.json_lines import JSON_ARRAY, JSON_LINES
from astraml_ray.data.formats.lines import line_format
from astraml_ray.data.formats.parquet import PARQUET
from astraml_ray.data.formats.plain import TEXT
from astraml_ray.data.formats.unify import concat_tables
from astraml_ray.data.formats.webdataset import WEBDATASET, WEBDATASET_GZ
from astraml_ray.data.objects import ObjectInfo
from astraml_ray.errors import DataError

__all__ = ["FORMATS", "fragments_of", "read_fragment", "schema_of"]

_GRAMMARS = {"jsonl": JSON_LINES, "json": JSON_ARRAY, "csv": CSV, "text": TEXT}
FORMATS: dict[str, FileFormat] = {
    "parquet": PARQUET,
    "arrow": ARROW,
    "image-folder": IMAGE_FOLDER,
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
    held = 0
    with ThreadPoolExecutor(_THREADS) as pool:
        remaining = iter(places)
        while window := list(islice(remaining, _THREADS * 16)):
            found = pool.map(lambda i: _fragments(objects[i], kinds[i], access, cache), _opened(objects, kinds, window))
            for place in window:
                kind = _format(kinds[place], objects[place])
                parts = next(found) if kind.opens(objects[place].size) else kind.fragments(objects[place], access)
                own = [replace(part, source=place) for part in parts]
                alone = len(own) != 1 or own[0].group > 0 or objects[place].size > kind.grouped()
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
    return Fragment(group[0].source, rows, sum(part.size for part in group), count=len(group))


def _fragments(info: ObjectInfo, kind: str, access: Access, cache: Path | None) -> list[Fragment]:
    """Of one object; where they are costly to find, they are remembered."""
    file = FORMATS[kind]
    if cache is None or not file.remembered:
        return file.fragments(info, access)
    key = json.dumps([_VERSION, asdict(info), kind, Bounds.fragment])
    path = cache / "fragments" / f"{hashlib.sha256(key.encode()).hexdigest()}.json"
    try:
        return [Fragment(**part) for part in json.loads(path.read_text())]
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
        DataError: An object changed, is damaged, or lacks a column.
    """
    infos = objects[fragment.source : fragment.source + fragment.count]
    file = _format(kind, infos[0])
    if fragment.count == 1:
        return file.read(infos[0], fragment, columns, access)
    if file.read_group is not None:
        return file.read_group(infos, columns, access)
    whole = Fragment(0, -1, 0)
    tables: list[pa.Table] = []
    held = 0
    with ThreadPoolExecutor(_READERS) as pool:
        remaining = iter(infos)
        while window := list(islice(remaining, _READERS * 4)):
            tables += pool.map(lambda info: file.read(info, whole, columns, access), window)
            held += sum(table.nbytes for table in tables[-len(window) :])
            if held > Bounds.frame:
                raise DataError(
                    f"and the small files beside it become over {Bounds.frame >> 20} MiB when they are read",
                    param=infos[0].uri,
                    hint="write fewer rows per compressed file",
                )
    return concat_tables(infos, tables)
