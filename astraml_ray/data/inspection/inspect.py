"""What a dataset holds, read once from end to end; nothing is refused that can be counted instead."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from astraml_ray.data.columns import TEXT_NAMES, find_columns
from astraml_ray.data.formats import format_names, fragments_of
from astraml_ray.data.inspection.counts import SplitTally
from astraml_ray.data.inspection.findings import find_faults
from astraml_ray.data.inspection.loose import Refusal, loose_schema, read_loosely
from astraml_ray.data.inspection.repeats import MOST_HASHED, RowHashes
from astraml_ray.data.prepare import listings_by_split, of_no_split
from astraml_ray.data.rows import content_hash
from astraml_ray.data.storage.credentials import Access
from astraml_ray.data.storage.objects import ObjectInfo
from astraml_ray.data.values import as_words, plain_strings
from astraml_ray.spec.dataset import Columns, DatasetSpec

__all__ = ["Progress", "inspect_dataset"]

_MOST_REFUSED = 10
Kind = Literal["texts", "images", "words"]
_KINDS: dict[str, Kind] = {"image": "images", "tokens": "words", "text": "texts"}


@dataclass(frozen=True)
class Progress:
    """How far an inspection is."""

    rows: int
    bytes: int
    total_bytes: int


def inspect_dataset(
    spec: DatasetSpec,
    *,
    limit: int | None = None,
    secret: Callable[[], str] | None = None,
    most_hashed: int = MOST_HASHED,
    progress: Callable[[Progress], None] | None = None,
) -> dict[str, Any]:
    """Reads a dataset, and tells what is in it. The memory it takes does not grow with the rows.

    Args:
        spec: The dataset.
        limit: Rows of each split to read, in the order of the files; None is all.
        secret: Gives the dataset's credentials; None is this machine's own.
        most_hashed: Different rows whose hashes are kept; beyond it, repeats are sought in a sample of the texts.
        progress: Told after each fragment.

    Returns:
        JSON data with these keys, which stay:

        * `rows_are`: `texts`, `images`, or `words` that have tags.
        * `columns`: of the first training file; each with `name`, `type`, `role` (`text`, `text_pair`, `image`,
          `tokens`, `label` or null) and `why` (`named`, `usual_name`, `only_text` or null).
        * `splits`: by name, train first, each with `files`, `bytes`, `formats`, `rows` (null where the limit cut it
          short), `rows_read`, `unnamed_images` (which no metadata file names: left out), `refused` (the first 10 files
          that training cannot read: `file`, `why`), and:
          `text` (of images, `null` only): `null`, `blank`, and `characters` and `words`, each with `p50`, `p95`, `p99`,
          `max` and `histogram` (`from`, `to`, `rows`);
          `image`, null where there are none: `unreadable` (no image, or too large a one), `formats` (images by `JPEG`,
          `PNG` ...), and `width`, `height` (pixels) and `bytes`, each as the lengths of texts;
          `label`, of words of their tags, null where there is no label column:
          `null`, `blank`, `types` (rows by `number`, `text`, `boolean` or
          `other`), `classes` (rows by class), `more_classes` (whether there are over 10,000, which are not counted),
          `largest` (`class`, `share`; null without labels), `missing` (classes of other splits), `untrained` (classes
          of no training row);
          `duplicates`: `hashed`, `rows` whose text an earlier row has, `texts` that more than one row has,
          `conflicting` (texts of rows with different labels). Null and blank texts are no duplicates.
        * `leakage`: for validation and test: `split`, `hashed`, `rows` whose text is a training row's too, and the
          `train_rows` that they repeat.
        * `hashing`: `share` of the texts that duplicates and leakage were sought in, all if 1; `most_rows`.
        * `limit`: rows of each split read; null is all.
        * `split_off`: the share of the training rows that becomes the validation set, null where there are files of it.
        * `findings`: what matters, worst first: `level` (`error`: training refuses it; `warning`; `note`), `code`,
          `split` or null, `message` and `hint`.

    Raises:
        DataError: It cannot be read, or has no text column.
    """
    access = Access(spec.endpoint_url, secret)
    listings = listings_by_split(spec, access)
    by_split = {name: listing.objects for name, listing in listings.items()}
    first = by_split["train"][0]
    schema = loose_schema(first, listings["train"].kinds[0], access)
    roles = _roles(schema, spec.columns, first.uri)
    reading = _Reading(roles, RowHashes(most_hashed), {name: SplitTally() for name in by_split})
    total = sum(info.size for objects in by_split.values() for info in objects)
    before = 0
    for name, objects in by_split.items():
        for part in _parts(objects, listings[name].kinds, reading.columns, access):
            reading.add(name, part, limit)
            if progress is not None:
                progress(Progress(reading.rows, before + part.read, total))
            if name in reading.cut:
                break
        before += sum(info.size for info in objects)
    found = {
        "rows_are": roles.rows_are,
        "columns": _columns(schema, spec.columns, roles),
        "splits": {
            name: {
                "files": sum(bool(info.etag) for info in set(objects)),
                "bytes": sum(info.size for info in set(objects)),
                "formats": format_names(listings[name].kinds),
                "unnamed_images": listings[name].unnamed,
                **reading.facts(name),
            }
            for name, objects in by_split.items()
        },
        "leakage": [{"split": name, **vars(reading.hashes.overlap(name))} for name in by_split if name != "train"],
        "hashing": {"share": reading.hashes.share, "most_rows": most_hashed},
        "limit": limit,
        "split_off": None if "validation" in by_split else spec.validation_fraction,
    }
    return {**found, "findings": find_faults(found, unread=of_no_split(spec, access), read=by_split["train"])}


@dataclass(frozen=True)
class _Roles:
    """Of a dataset's columns.

    Attributes:
        rows_are: What they are.
        content: The column of texts, images or words.
        pair: The column of second texts, if rows are pairs.
        label: The column of labels or tags, if there is one.
    """

    rows_are: Kind
    content: str
    pair: str | None
    label: str | None


@dataclass
class _Reading:
    """What is known so far.

    Attributes:
        roles: Of the columns.
        hashes: Of all splits.
        tallies: By split.
        cut: Splits that the limit cut short.
    """

    roles: _Roles
    hashes: RowHashes
    tallies: dict[str, SplitTally]
    cut: set[str] = field(default_factory=set)

    @property
    def columns(self) -> list[str]:
        return [name for name in (self.roles.content, self.roles.pair, self.roles.label) if name is not None]

    @property
    def rows(self) -> int:
        return sum(tally.rows for tally in self.tallies.values())

    def add(self, split: str, part: _Part, limit: int | None) -> None:
        """Takes a fragment, or what of it is within the limit."""
        tally, table = self.tallies[split], part.table
        if part.refusal is not None and len(tally.refused) < _MOST_REFUSED:
            tally.refused.setdefault(part.refusal.file, part.refusal.why)
        if limit is not None and tally.rows + table.num_rows > limit:
            table = table.slice(0, limit - tally.rows)
            self.cut.add(split)
        labels, marks, kind = self._labels(table, part.uri)
        name = self.roles.content
        contents = table[name]
        if self.roles.rows_are == "images":
            tally.add_images(contents, labels, kind)
            self._hash(split, contents, marks, contents.is_valid())
            return
        if self.roles.rows_are == "words":
            contents = _joined(contents, name, part.uri)
        texts = plain_strings(contents, name, part.uri)
        words = np.fromiter((len((value or "").split()) for value in texts.to_pylist()), np.int64, len(texts))
        tally.add(texts, words, labels, kind)
        self._hash(split, self._whole(texts, table, part.uri), marks, pa.array(words > 0))

    def _whole(self, texts: pa.ChunkedArray, table: pa.Table, uri: str) -> pa.ChunkedArray:
        """What makes a row the same as another: both of its texts, if it has two."""
        if self.roles.pair is None:
            return texts
        others = pc.fill_null(plain_strings(table[self.roles.pair], self.roles.pair, uri), "")
        return pc.binary_join_element_wise(texts, others, "\x1f")

    def _labels(self, table: pa.Table, uri: str) -> tuple[pa.ChunkedArray | None, pa.ChunkedArray | None, Any]:
        """The labels that are counted, one mark for each row, and the labels' type."""
        name = self.roles.label
        if name is None:
            return None, None, None
        column = table[name]
        if self.roles.rows_are != "words":
            labels = plain_strings(column, name, uri)
            return labels, labels, column.type
        tags = pc.list_flatten(as_words(column.drop_null(), name, uri))
        counted = pa.chunked_array([*tags.chunks, pa.nulls(column.null_count, pa.string())])
        return counted, _joined(column, name, uri), column.type.value_type

    def _hash(self, split: str, contents: pa.ChunkedArray, labels: pa.ChunkedArray | None, said: pa.Array) -> None:
        """Of the rows that hold something."""
        marks = pc.fill_null(labels, "") if labels is not None else pa.array([""] * len(contents), pa.string())
        self.hashes.add(split, content_hash(contents.filter(said)), content_hash(marks.filter(said)))

    def facts(self, split: str) -> dict[str, Any]:
        """What is told of the rows of a split."""
        tally, trained = self.tallies[split], set(self.tallies["train"].classes)
        everywhere = {name for one in self.tallies.values() for name in one.classes}
        return {
            "rows": None if split in self.cut else tally.rows,
            "rows_read": tally.rows,
            "refused": [{"file": uri, "why": why} for uri, why in tally.refused.items()],
            "text": tally.text_facts(),
            "image": tally.image_facts() if self.roles.rows_are == "images" else None,
            "label": tally.label_facts(everywhere, trained) if self.roles.label else None,
            "duplicates": vars(self.hashes.repeats(split)),
        }


def _joined(column: pa.ChunkedArray, name: str, uri: str) -> pa.ChunkedArray:
    """The words of each row as a text; null where there are none."""
    given = column.is_valid().to_numpy()
    texts = pc.binary_join(as_words(column.drop_null(), name, uri), " ")
    return texts.take(pa.array(np.cumsum(given) - 1, mask=~given))


@dataclass(frozen=True)
class _Part:
    """A fragment.

    Attributes:
        table: Its rows.
        uri: Of its object.
        refusal: Why training refuses it, if it does.
        read: Bytes of the split read by then.
    """

    table: pa.Table
    uri: str
    refusal: Refusal | None
    read: int


def _parts(objects: Sequence[ObjectInfo], kinds: Sequence[str], columns: list[str], access: Access) -> Iterator[_Part]:
    """The fragments of a split."""
    ends = list(itertools.accumulate(info.size for info in objects))
    fragments = itertools.chain(fragments_of(objects, kinds, range(len(objects)), access), [None])
    before = 0
    for fragment, following in itertools.pairwise(fragments):
        if fragment is None:
            return
        table, refusal = read_loosely(objects, fragment, kinds[fragment.source], columns, access)
        end = ends[fragment.source + fragment.count - 1]
        last = following is None or following.source != fragment.source
        before = end if last else min(end, before + fragment.size)
        yield _Part(table, objects[fragment.source].uri, refusal, before)


def _roles(schema: pa.Schema, wanted: Columns, source: str) -> _Roles:
    columns = find_columns(schema, wanted, task="auto", source=source, needs_label=False).columns
    role = next(role for role in _KINDS if role in columns)
    return _Roles(_KINDS[role], columns[role], columns.get("text_pair"), columns.get("label"))


def _columns(schema: pa.Schema, wanted: Columns, found: _Roles) -> list[dict[str, Any]]:
    role = next(role for role, kind in _KINDS.items() if kind == found.rows_are)
    names = {role: found.content, "text_pair": found.pair, "label": found.label}
    roles = {name: (role, getattr(wanted, role)) for role, name in names.items() if name is not None}
    columns = []
    for one in schema:
        taken, named = roles.get(one.name, (None, None))
        why = "named" if named else "usual_name" if taken else None
        if taken == "text" and not named and one.name.lower() not in TEXT_NAMES:
            why = "only_text"
        columns.append({"name": one.name, "type": str(one.type), "role": taken, "why": why})
    return columns
