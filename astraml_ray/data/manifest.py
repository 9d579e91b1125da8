"""The manifest: what a run reads, pinned. Objects with sizes and ETags, fragments with row counts, labels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from astraml_ray.data.credentials import Access
from astraml_ray.data.formats import Fragment, place_of, read_fragment
from astraml_ray.data.objects import ObjectInfo
from astraml_ray.errors import DataError

__all__ = ["Manifest", "Split", "content_hash", "plain_strings", "read_rows"]


@dataclass(frozen=True)
class Split:
    """The fragments of a split. `rows` counts the rows that belong to it, fragment by fragment.

    Attributes:
        fragments: Where the rows lie.
        rows: Rows of each fragment that belong to the split.
        side: "low" keeps the rows whose content hash is below the manifest's threshold, "high" the others,
            "all" keeps every row.
    """

    fragments: tuple[Fragment, ...]
    rows: tuple[int, ...]
    side: str = "all"

    @property
    def total_rows(self) -> int:
        return sum(self.rows)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Bytes of each fragment."""
        return tuple(fragment.size for fragment in self.fragments)


@dataclass(frozen=True)
class Manifest:
    """All that a worker needs to read the dataset; plain data, written as JSON into the run's folder.

    Attributes:
        objects: Every object, with size and ETag.
        formats: The format of each object.
        text: Name of the text column.
        label: Name of the label column, if the task has one.
        labels: The classes, in the order of the model's outputs.
        splits: train, validation, and test where there is one.
        threshold: Content hashes below it are validation rows, where those were split off.
        endpoint_url: The S3 endpoint, when the spec names one.
        secret: Gives the dataset's credentials, when the spec names some; no part of what is written.
    """

    objects: tuple[ObjectInfo, ...]
    formats: tuple[str, ...]
    text: str
    label: str | None
    labels: tuple[str, ...]
    splits: dict[str, Split]
    threshold: int = 0
    endpoint_url: str | None = None
    secret: Callable[[], str] | None = field(default=None, repr=False, compare=False)

    @property
    def access(self) -> Access:
        """How the objects are reached."""
        return Access(self.endpoint_url, self.secret)

    def to_json(self) -> str:
        """One JSON document."""
        return json.dumps(self._plain(), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """The reverse of to_json."""
        data: dict[str, Any] = json.loads(text)
        data["objects"] = tuple(ObjectInfo(**info) for info in data["objects"])
        data["formats"], data["labels"] = tuple(data["formats"]), tuple(data["labels"])
        data["splits"] = {
            name: Split(tuple(Fragment(**f) for f in split["fragments"]), tuple(split["rows"]), split["side"])
            for name, split in data["splits"].items()
        }
        return cls(**data)

    def digest(self) -> str:
        """SHA-256 of the manifest."""
        return hashlib.sha256(json.dumps(self._plain(), sort_keys=True).encode()).hexdigest()

    def _plain(self) -> dict[str, Any]:
        plain = asdict(replace(self, secret=None))
        del plain["secret"]
        return plain


def content_hash(texts: pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    """A 64-bit hash of each text, the same on every machine and at every run."""
    values: npt.NDArray[np.uint64] = pd.util.hash_array(np.asarray(texts.to_pylist(), dtype=object))
    return values


def read_rows(manifest: Manifest, split: Split, index: int) -> pa.Table:
    """The rows of one fragment that belong to a split.

    Returns:
        Columns `text` (string) and, if there are labels, `label` (string); in file order.

    Raises:
        DataError: Naming object and row: a null text or label, a damaged or changed object, a wrong count.
    """
    fragment = split.fragments[index]
    table = read_columns(manifest, fragment)
    if split.side != "all":
        low = content_hash(table["text"]) < np.uint64(manifest.threshold)
        table = table.filter(pa.array(low if split.side == "low" else ~low))
    if table.num_rows != split.rows[index]:
        info = manifest.objects[fragment.source]
        raise DataError(
            f"has {table.num_rows} rows where the manifest counted {split.rows[index]}",
            param=info.uri,
            hint="start a new run on the dataset as it is now",
        )
    return table


def read_columns(manifest: Manifest, fragment: Fragment) -> pa.Table:
    """All rows of a fragment, as `text` and `label` strings."""
    columns = [manifest.text] + ([manifest.label] if manifest.label else [])
    kind = manifest.formats[fragment.source]
    table = read_fragment(manifest.objects, fragment, kind, columns, manifest.access)
    where = place_of(manifest.objects, fragment, kind)
    fields = {"text": _as_strings(table[manifest.text], manifest.text, where)}
    if manifest.label:
        fields["label"] = _as_strings(table[manifest.label], manifest.label, where)
    return pa.table(fields)


def _as_strings(column: pa.ChunkedArray, name: str, where: str) -> pa.ChunkedArray:
    if column.null_count:
        row = pc.index(pc.is_null(column), True).as_py()
        raise DataError(
            f"column {name!r} is null in row {row}",
            param=where,
            hint="fill or remove such rows before training",
        )
    return plain_strings(column, name, where)


def plain_strings(column: pa.ChunkedArray, name: str, where: str) -> pa.ChunkedArray:
    """A column as strings, as training takes them: whole numbers have no point. Nulls stay null.

    Raises:
        DataError: It holds no single values.
    """
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_nested(kind):
        raise DataError(f"column {name!r} holds {kind}, not single values", param=where, hint="name another column")
    if pa.types.is_floating(kind) and pc.all(pc.equal(pc.floor(column), column)).as_py():
        column = column.cast(pa.int64())
    try:
        return column.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(
            f"column {name!r} holds {kind} that is no text", param=where, hint="name another column"
        ) from error
