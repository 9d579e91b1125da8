"""From a DatasetSpec to a Manifest: list, count, find the columns and the classes, split off validation."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from astraml_ray.data.bad_data.tolerance import judge
from astraml_ray.data.columns import find_columns
from astraml_ray.data.formats import Fragment, Listing, first_of, fragments_of, listing_of, mended_schema
from astraml_ray.data.manifest import Manifest, Split
from astraml_ray.data.scan import MAX_CLASSES, FragmentScan, scan_fragment, scan_fragments
from astraml_ray.data.splits import SPLITS, SplitRows, assign_splits, data_objects, root_of
from astraml_ray.data.storage.credentials import Access
from astraml_ray.data.storage.objects import ObjectInfo, list_objects
from astraml_ray.errors import DataError
from astraml_ray.spec.dataset import DatasetSpec
from astraml_ray.spec.job import Task

__all__ = [
    "build_manifest",
    "find_roles",
    "fraction_to_threshold",
    "listings_by_split",
    "numeric_first",
    "objects_by_split",
    "of_no_split",
    "rows_of_split",
]


def build_manifest(
    spec: DatasetSpec,
    *,
    task: Task,
    cache: Path,
    secret: Callable[[], str] | None = None,
    count_classes: bool = False,
) -> Manifest:
    """Reads listings and footers, and the rows only where those do not tell.

    Args:
        spec: The dataset.
        task: From the spec; `auto` takes the columns that are there.
        cache: Folder that remembers what was counted.
        secret: Gives the dataset's credentials; None is this machine's own.
        count_classes: Keeps how many training rows of each class every fragment has: a sampler needs it.

    Raises:
        DataError: With the object or field at fault and what to do.
    """
    access = Access(spec.endpoint_url, secret)
    listings = listings_by_split(spec, access)
    objects = [info for listing in listings.values() for info in listing.objects]
    formats = [kind for listing in listings.values() for kind in listing.kinds]
    roles = find_columns(mended_schema(objects[0], formats[0], access), spec.columns, task=task, source=objects[0].uri)
    threshold = 0 if "validation" in listings else fraction_to_threshold(spec.validation_fraction)
    manifest = Manifest(
        tuple(objects), tuple(formats), roles.columns, roles.target, (), {}, threshold, spec.endpoint_url, secret
    )
    fragments: dict[str, list[Fragment]] = {}
    position = 0
    for split, listing in listings.items():
        places = range(position, position + len(listing.objects))
        fragments[split] = list(fragments_of(objects, formats, places, access, cache))
        position = places.stop
    scanner = _Scans(cache, decode=spec.on_bad_row != "fail")
    return _fill(manifest, spec, fragments, scanner, count_classes=count_classes)


def find_roles(spec: DatasetSpec, *, task: Task, secret: Callable[[], str] | None = None) -> dict[str, str]:
    """The column of each role, by the schema of the first training object; see columns.find_columns."""
    access = Access(spec.endpoint_url, secret)
    first, kind = first_of(objects_by_split(spec, access)["train"], spec.format, access)
    return find_columns(mended_schema(first, kind, access), spec.columns, task=task, source=first.uri).columns


def fraction_to_threshold(fraction: float) -> int:
    """The content hash below which a row belongs to the fraction."""
    return int(fraction * 2**64)


def objects_by_split(spec: DatasetSpec, access: Access) -> dict[str, list[ObjectInfo]]:
    """The objects of each split that there are files of."""
    if spec.path is not None:
        return _assigned(spec.path, access)[0]
    uris = {"train": spec.train, "validation": spec.validation, "test": spec.test}
    return {name: data_objects(list_objects(uri, access), access) for name, uri in uris.items() if uri is not None}


def _assigned(path: str, access: Access) -> tuple[dict[str, list[ObjectInfo]], list[ObjectInfo]]:
    """The objects of each split, and those of none."""
    listed = data_objects(list_objects(path, access), access)
    found = assign_splits(path, listed, access)
    taken = {info for objects in found.values() for info in objects}
    return found, [info for info in listed if info not in taken]


def of_no_split(spec: DatasetSpec, access: Access) -> list[ObjectInfo]:
    """Objects that no split reads, where some have a split's name and these have none."""
    return [] if spec.path is None else _assigned(spec.path, access)[1]


def listings_by_split(spec: DatasetSpec, access: Access) -> dict[str, Listing]:
    """The objects of each split as they are read, the training rows first.

    Raises:
        DataError: As listing_of.
    """
    found = objects_by_split(spec, access)
    names = [name for name in SPLITS if name in found]
    return {
        name: listing_of(found[name], spec.format, access, rows_of_split(spec, name, found, access)) for name in names
    }


def rows_of_split(spec: DatasetSpec, name: str, splits: Collection[str], access: Access) -> SplitRows | None:
    """Which rows of a metadata file above several splits are those of one; None where no file can be.

    Args:
        spec: The dataset.
        name: Of the split.
        splits: All that there are files of.
        access: How it is reached.
    """
    return None if spec.path is None else SplitRows(name, root_of(spec.path, access), frozenset(splits))


@dataclass(frozen=True)
class _Scans:
    """How fragments are scanned. Images are decoded only where those that cannot be are left out."""

    cache: Path
    decode: bool

    def of(self, manifest: Manifest, fragments: Sequence[Fragment]) -> dict[Fragment, FragmentScan]:
        scans = scan_fragments(manifest, fragments, self.cache, decode=self.decode)
        return dict(zip(fragments, scans, strict=True))


def _fill(
    manifest: Manifest,
    spec: DatasetSpec,
    fragments: Mapping[str, list[Fragment]],
    scanner: _Scans,
    *,
    count_classes: bool,
) -> Manifest:
    """Row counts, classes, bad rows and the validation side."""
    everything = [f for split in fragments.values() for f in split]
    classes = manifest.target in ("class", "tags")
    if classes or manifest.threshold or spec.on_bad_row != "fail" or any(f.rows < 0 for f in everything):
        scans = scanner.of(manifest, everything)
    else:
        scans = {f: FragmentScan(f.rows, 0, 0, ()) for f in everything}
    scanned = {name: [(f, scans[f]) for f in split] for name, split in fragments.items()}
    if spec.on_bad_row != "fail" and classes:
        scanned = _without_unknown_classes(manifest, scanned, scanner)
    left_out = judge(manifest, scanned, policy=spec.on_bad_row, most=spec.max_bad_fraction)
    manifest = replace(manifest, left_out=left_out)
    counted = {
        name: [(replace(f, rows=scan.rows + scan.bad.count), scan) for f, scan in pairs if not scan.bad.unreadable]
        for name, pairs in scanned.items()
    }
    for name, pairs in counted.items():
        if sum(scan.rows for _, scan in pairs) == 0:
            raise DataError(f"the {name} set has no rows", param=_first_uri(manifest, scanned[name]))
    labels = _classes(manifest, counted) if classes else ()
    train = [scan for _, scan in counted["train"]]
    if manifest.threshold:
        manifest = _settle_threshold(manifest, counted["train"])
        if all(scan.low == 0 for scan in train):
            again = scanner.of(manifest, [f for f, _ in scanned["train"]])
            train = [scan for scan in again.values() if not scan.bad.unreadable]
        low, high = [s.low for s in train], [s.rows - s.low for s in train]
        if not sum(high):
            raise DataError(
                "no training rows are left when a validation set is split off",
                param=_first_uri(manifest, counted["train"]),
                hint="give dataset.validation, or lower dataset.validation_fraction",
            )
        splits = {
            "train": _split(counted["train"], high, "high"),
            "validation": _split(counted["train"], low, "low"),
        }
    else:
        splits = {}
    for name, pairs in counted.items():
        splits.setdefault(name, _split(pairs, [scan.rows for _, scan in pairs], "all"))
    if count_classes and manifest.target == "class":
        by_class = tuple(dict(zip(scan.labels, scan.counts, strict=True)) for scan in train)
        splits["train"] = replace(splits["train"], classes=by_class)
    return replace(manifest, labels=labels, splits=splits)


def _split(pairs: Sequence[tuple[Fragment, FragmentScan]], rows: Sequence[int], side: str) -> Split:
    left_out = tuple(scan.bad.rows for _, scan in pairs)
    return Split(tuple(f for f, _ in pairs), tuple(rows), side, left_out=left_out if any(left_out) else ())


def _without_unknown_classes(
    manifest: Manifest, scanned: dict[str, list[tuple[Fragment, FragmentScan]]], scanner: _Scans
) -> dict[str, list[tuple[Fragment, FragmentScan]]]:
    """Looks again at fragments with labels of no training row: those rows are bad."""
    known = {label for _, scan in scanned["train"] for label in scan.labels}
    if not known or len(known) > MAX_CLASSES:
        return scanned
    knowing = replace(manifest, labels=tuple(sorted(known)))
    return {
        name: [
            (f, scan if set(scan.labels) <= known else scan_fragment(knowing, f, decode=scanner.decode))
            for f, scan in pairs
        ]
        for name, pairs in scanned.items()
    }


def _settle_threshold(manifest: Manifest, train: Sequence[tuple[Fragment, FragmentScan]]) -> Manifest:
    """Raises the threshold to the smallest hash when a tiny dataset has no row below it."""
    if any(scan.low for _, scan in train):
        return manifest
    smallest = min(scan.smallest for _, scan in train)
    return replace(manifest, threshold=smallest + 1)


def _first_uri(manifest: Manifest, pairs: Sequence[tuple[Fragment, FragmentScan]]) -> str:
    return manifest.objects[pairs[0][0].source].uri if pairs else manifest.objects[0].uri


def _classes(manifest: Manifest, counted: Mapping[str, Sequence[tuple[Fragment, FragmentScan]]]) -> tuple[str, ...]:
    """The classes of the training rows: numbers in numeric order, else by name."""
    train = {label for _, scan in counted["train"] for label in scan.labels}
    column = manifest.columns["label"]
    where = _first_uri(manifest, counted["train"])
    if len(train) > MAX_CLASSES:
        raise DataError(
            f"column {column!r} has over {MAX_CLASSES} different values: it is no class label",
            param=where,
            hint="name the label column: dataset.columns.label=NAME; if it holds numbers, choose task text-regression",
        )
    if len(train) == 1:
        raise DataError(
            f"column {column!r} has one class only, {next(iter(train))!r}: there is nothing to tell apart",
            param=where,
            hint="add rows of other classes, or choose task causal-lm or masked-lm",
        )
    for name, pairs in counted.items():
        for fragment, scan in pairs:
            unseen = sorted(set(scan.labels) - train)
            if unseen:
                raise DataError(
                    f"label {unseen[0]!r} of the {name} set is in no training row; the classes are "
                    f"{', '.join(sorted(train)[:10])}",
                    param=manifest.objects[fragment.source].uri,
                    hint="add training rows of that class, or leave those rows out: dataset.on_bad_row=quarantine",
                )
    return tuple(sorted(train, key=numeric_first))


def numeric_first(label: str) -> tuple[int, float, str]:
    """The order of classes: numbers by value, then the others by name."""
    try:
        return 0, float(label), label
    except ValueError:
        return 1, 0.0, label
