"""The rows of a fragment, by role: each column checked and brought to its one type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from astraml_ray.data.bad_data.rows import BadRow, CheckImage, find_bad_rows
from astraml_ray.data.columns import Target
from astraml_ray.data.formats import Fragment, Mended, place_of, read_fragment, read_mended
from astraml_ray.data.manifest import Manifest, Split
from astraml_ray.data.values import as_images, as_numbers, as_words, plain_strings
from astraml_ray.errors import DataError

__all__ = ["Checked", "content_hash", "hash_rows", "read_checked", "read_columns", "read_rows", "row_place"]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Checked:
    """A fragment, the bad rows apart.

    Attributes:
        table: The good rows, as read_rows gives them.
        bad: The others.
        raw: All rows that parse, as they are in the file.
    """

    table: pa.Table
    bad: tuple[BadRow, ...]
    raw: Mended


def read_rows(manifest: Manifest, split: Split, index: int) -> pa.Table:
    """The rows of one fragment that belong to a split; those that the manifest leaves out do not.

    Returns:
        A column for each role of the manifest: `text`, `text_pair` (string), `tokens` (list of strings), `image`
        (binary, encoded), and `label` (string, float64 or list of strings); in file order.

    Raises:
        DataError: Naming object and row: a null, a damaged or changed object, a wrong count.
    """
    fragment = split.fragments[index]
    table = read_columns(manifest, fragment, split.left_out[index] if split.left_out else ())
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
    left_out = split.left_out[index] if split.left_out else ()
    if split.side != "all" or left_out:
        table = read_columns(manifest, fragment, left_out)
        numbers = np.setdiff1d(np.arange(table.num_rows + len(left_out)), left_out, assume_unique=True)
        row = int((numbers if split.side == "all" else numbers[_of_side(manifest, split, table)])[row])
    return place_of(manifest.objects, fragment, manifest.formats[fragment.source]), row


def _of_side(manifest: Manifest, split: Split, table: pa.Table) -> npt.NDArray[np.bool_]:
    low: npt.NDArray[np.bool_] = hash_rows(table) < np.uint64(manifest.threshold)
    return low if split.side == "low" else ~low


def read_columns(manifest: Manifest, fragment: Fragment, left_out: Sequence[int] = ()) -> pa.Table:
    """All rows of a fragment but some, as read_rows gives them.

    Raises:
        DataError: A row that is not left out is bad.
    """
    if left_out:
        return _by_role(manifest, fragment, _mended(manifest, fragment).without(left_out))
    kind, names = manifest.formats[fragment.source], list(dict.fromkeys(manifest.columns.values()))
    return _by_role(manifest, fragment, read_fragment(manifest.objects, fragment, kind, names, manifest.access))


def read_checked(manifest: Manifest, fragment: Fragment, check_image: CheckImage | None = None) -> Checked:
    """All rows of a fragment, the bad ones told apart; where the manifest has classes, other labels are bad.

    Raises:
        DamagedError: The fragment as a whole cannot be read.
        DataError: The dataset does not suit the task.
    """
    raw = _mended(manifest, fragment)
    found = find_bad_rows(raw.table, manifest.columns, manifest.target, manifest.labels, check_image)
    valued = raw.placed(replace(one, row=int(raw.origins[one.row])) for one in found)
    bad = tuple(sorted([*raw.bad, *valued]))
    return Checked(_by_role(manifest, fragment, raw.without([one.row for one in bad])), bad, raw)


def _mended(manifest: Manifest, fragment: Fragment) -> Mended:
    kind, names = manifest.formats[fragment.source], list(dict.fromkeys(manifest.columns.values()))
    return read_mended(manifest.objects, fragment, kind, names, manifest.access)


def _by_role(manifest: Manifest, fragment: Fragment, table: pa.Table) -> pa.Table:
    where = place_of(manifest.objects, fragment, manifest.formats[fragment.source])
    if not table.num_rows:
        return pa.table({role: pa.array([], _type(role, manifest.target)) for role in manifest.columns})
    rows = {role: _typed(table[name], role, name, manifest, where) for role, name in manifest.columns.items()}
    if manifest.target == "tags":
        _check_tags(rows["tokens"], rows["label"], manifest.columns["label"], where)
    return pa.table(rows)


def _type(role: str, target: Target | None) -> pa.DataType:
    if role == "tokens" or (role == "label" and target == "tags"):
        return pa.list_(pa.string())
    if role == "label" and target == "number":
        return pa.float64()
    return pa.binary() if role == "image" else pa.string()


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
