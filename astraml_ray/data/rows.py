"""The rows of a fragment, by role: each column checked and brought to its one type."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from astraml_ray.data.formats import Fragment, place_of, read_fragment
from astraml_ray.data.manifest import Manifest, Split
from astraml_ray.data.values import as_images, as_numbers, as_words, plain_strings
from astraml_ray.errors import DataError

__all__ = ["content_hash", "hash_rows", "read_columns", "read_rows", "row_place"]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def read_rows(manifest: Manifest, split: Split, index: int) -> pa.Table:
    """The rows of one fragment that belong to a split.

    Returns:
        A column for each role of the manifest: `text`, `text_pair` (string), `tokens` (list of strings), `image`
        (binary, encoded), and `label` (string, float64 or list of strings); in file order.

    Raises:
        DataError: Naming object and row: a null, a damaged or changed object, a wrong count.
    """
    fragment = split.fragments[index]
    table = read_columns(manifest, fragment)
    if split.side != "all":
        table = table.filter(pa.array(_of_side(manifest, split, table)))
    if table.num_rows != split.rows[index]:
        info = manifest.objects[fragment.source]
        raise DataError(
            f"has {table.num_rows} rows where the manifest counted {split.rows[index]}",
            param=info.uri,
            hint="start a new run on the dataset as it is now",
        )
    return table


def row_place(manifest: Manifest, split: Split, index: int, row: int) -> tuple[str, int]:
    """Where a row of read_rows lies: the object's part, and the row in it. For errors: reads the fragment again."""
    fragment = split.fragments[index]
    if split.side != "all":
        row = int(np.flatnonzero(_of_side(manifest, split, read_columns(manifest, fragment)))[row])
    return place_of(manifest.objects, fragment, manifest.formats[fragment.source]), row


def _of_side(manifest: Manifest, split: Split, table: pa.Table) -> npt.NDArray[np.bool_]:
    low: npt.NDArray[np.bool_] = hash_rows(table) < np.uint64(manifest.threshold)
    return low if split.side == "low" else ~low


def read_columns(manifest: Manifest, fragment: Fragment) -> pa.Table:
    """All rows of a fragment, as read_rows gives them."""
    kind = manifest.formats[fragment.source]
    names = list(dict.fromkeys(manifest.columns.values()))
    table = read_fragment(manifest.objects, fragment, kind, names, manifest.access)
    where = place_of(manifest.objects, fragment, kind)
    rows = {role: _typed(table[name], role, name, manifest, where) for role, name in manifest.columns.items()}
    if manifest.target == "tags":
        _check_tags(rows["tokens"], rows["label"], manifest.columns["label"], where)
    return pa.table(rows)


def _typed(column: pa.ChunkedArray, role: str, name: str, manifest: Manifest, where: str) -> pa.ChunkedArray:
    if column.null_count:
        row = pc.index(pc.is_null(column), True).as_py()
        raise DataError(
            f"column {name!r} is null in row {row}",
            param=where,
            hint="fill or remove such rows before training",
        )
    if role == "image":
        return as_images(column, name, where)
    if role == "tokens" or (role == "label" and manifest.target == "tags"):
        return as_words(column, name, where)
    if role == "label" and manifest.target == "number":
        return as_numbers(column, name, where)
    return plain_strings(column, name, where)


def _check_tags(words: pa.ChunkedArray, tags: pa.ChunkedArray, name: str, where: str) -> None:
    unequal = pc.not_equal(pc.list_value_length(words), pc.list_value_length(tags))
    if (row := pc.index(unequal, True).as_py()) >= 0:
        raise DataError(
            f"column {name!r} has {len(tags[row])} tags for {len(words[row])} words in row {row}",
            param=where,
            hint="give each word one tag",
        )


def hash_rows(rows: pa.Table) -> npt.NDArray[np.uint64]:
    """A 64-bit hash of what each row is, its label apart: the same on every machine and at every run."""
    if "tokens" in rows.column_names:
        return content_hash(pc.binary_join(rows["tokens"].combine_chunks(), "\x1f"))
    if "image" in rows.column_names:
        return content_hash(rows["image"])
    hashes = content_hash(rows["text"])
    if "text_pair" in rows.column_names:
        with np.errstate(over="ignore"):
            hashes = hashes * _GAMMA + content_hash(rows["text_pair"])
    return hashes


def content_hash(values: pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    """A 64-bit hash of each text, or of each value's bytes."""
    hashes: npt.NDArray[np.uint64] = pd.util.hash_array(np.asarray(values.to_pylist(), dtype=object))
    return hashes
