"""What only reading the rows can tell (counts, classes, bad rows, the validation share), remembered per object."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from astraml_ray.data.bad_data.rows import UNREADABLE, BadRow, BadRows
from astraml_ray.data.columns import Target
from astraml_ray.data.formats import Bounds, Fragment, place_of, read_fragment, rows_lost, sources_of, unplaced
from astraml_ray.data.images.faults import decode_fault, header_fault
from astraml_ray.data.manifest import Manifest
from astraml_ray.data.rows import hash_rows, read_checked
from astraml_ray.data.values import plain_strings
from astraml_ray.errors import DamagedError, DataError

__all__ = ["MOST_BAD", "FragmentScan", "scan_fragment", "scan_fragments"]

MAX_CLASSES = 10_000
MOST_BAD = 1_000_000
"""Numbers of bad rows that are kept; a dataset with more of them is refused, whatever its size."""
_VERSION = 7
_THREADS = 8


@dataclass(frozen=True)
class FragmentScan:
    """Of one fragment.

    Attributes:
        rows: Good rows in it.
        low: Good rows whose content hash is below the threshold.
        smallest: The smallest content hash.
        labels: Its classes; beyond 10,000 they are no longer kept.
        counts: Good rows of each class whose content hash is not below the threshold.
        bad: Its bad rows.
    """

    rows: int
    low: int
    smallest: int
    labels: tuple[str, ...]
    counts: tuple[int, ...] = ()
    bad: BadRows = field(default_factory=BadRows)


def scan_fragments(
    manifest: Manifest, fragments: Sequence[Fragment], cache: Path, *, decode: bool = False
) -> list[FragmentScan]:
    """Scans fragments in parallel; an object scanned before, unchanged, is not read again.

    Args:
        manifest: Of the dataset, without classes.
        fragments: Which.
        cache: Folder that remembers.
        decode: See scan_fragment.
    """
    decode = decode and "image" in manifest.columns
    by_source: dict[int, list[Fragment]] = {}
    for fragment in fragments:
        by_source.setdefault(fragment.source, []).append(fragment)
    results: dict[Fragment, FragmentScan] = {}
    missing: list[Fragment] = []
    for group in by_source.values():
        known = _recall(_cache_file(manifest, group[0], cache, decode=decode), len(group))
        if known is None:
            missing += group
        else:
            results.update(zip(group, known, strict=True))
    kept = sum(len(scan.bad.rows) for scan in results.values())
    with ThreadPoolExecutor(_THREADS) as pool:
        scans = pool.map(lambda fragment: scan_fragment(manifest, fragment, decode=decode), missing)
        for fragment, scan in zip(missing, scans, strict=True):
            kept += len(scan.bad.rows)
            results[fragment] = scan if kept <= MOST_BAD else replace(scan, bad=replace(scan.bad, rows=()))
    if kept <= MOST_BAD:
        for source in {fragment.source for fragment in missing}:
            group = by_source[source]
            _remember(_cache_file(manifest, group[0], cache, decode=decode), [results[f] for f in group])
    return [results[fragment] for fragment in fragments]


def scan_fragment(manifest: Manifest, fragment: Fragment, *, decode: bool = False) -> FragmentScan:
    """Scans one fragment now; where the manifest has classes, labels of others are bad.

    Args:
        manifest: Of the dataset.
        fragment: Which.
        decode: Images are decoded, to find those that cannot be; else their headers tell, or their names alone.
    """
    by_name = manifest.target and "image" in manifest.columns and not manifest.threshold and not decode
    scan_names = _UNREAD.get(manifest.formats[fragment.source]) if by_name else None
    if scan_names is not None:
        return scan_names(manifest, fragment, manifest.columns["label"])
    try:
        checked = read_checked(manifest, fragment, decode_fault if decode else header_fault)
    except DamagedError as error:
        rows = rows_lost(manifest.objects, fragment, manifest.formats[fragment.source], manifest.access)
        bad = BadRows((), {UNREADABLE: rows}, (BadRow(0, UNREADABLE, error.message),))
        return FragmentScan(0, 0, 2**64 - 1, (), bad=bad)
    table, hashes = checked.table, hash_rows(checked.table)
    labels = sorted(_classes(table, manifest.target))[: MAX_CLASSES + 1]
    return FragmentScan(
        rows=table.num_rows,
        low=int((hashes < np.uint64(manifest.threshold)).sum()),
        smallest=int(hashes.min()) if len(hashes) else 2**64 - 1,
        labels=tuple(labels),
        counts=_count(table, hashes >= np.uint64(manifest.threshold), labels) if manifest.target == "class" else (),
        bad=BadRows.of(checked.bad),
    )


def _classes(table: pa.Table, target: Target | None) -> list[str]:
    """The classes or tags that occur."""
    if target not in ("class", "tags"):
        return []
    labels = table["label"].combine_chunks()
    found: list[str] = (labels.flatten() if target == "tags" else labels).unique().to_pylist()
    return found


def _classes_by_folder(manifest: Manifest, fragment: Fragment, label: str) -> FragmentScan:
    """Of images whose files need not be read: the names tell all."""
    table = read_fragment(manifest.objects, fragment, "image-folder", [label], manifest.access)
    found = plain_strings(table[label], label, place_of(manifest.objects, fragment, "image-folder"))
    if found.null_count:
        place = pc.index(pc.is_null(found), True).as_py()
        raise DataError(
            "lies in no folder that names a class",
            param=manifest.objects[fragment.source + place].uri,
            hint="put the images into folders: train/CLASS/*.jpg",
        )
    labels = sorted(found.unique().to_pylist())[: MAX_CLASSES + 1]
    counts = _count(pa.table({"label": found}), np.ones(len(found), bool), labels)
    return FragmentScan(table.num_rows, 0, 0, tuple(labels), counts)


def _classes_by_list(manifest: Manifest, fragment: Fragment, label: str) -> FragmentScan:
    """Of images of which a metadata file tells all."""
    checked = read_checked(replace(manifest, columns={"label": label}), fragment)
    labels = sorted(_classes(checked.table, manifest.target))[: MAX_CLASSES + 1]
    rows = checked.table.num_rows
    counts = _count(checked.table, np.ones(rows, bool), labels) if manifest.target == "class" else ()
    return FragmentScan(rows, 0, 0, tuple(labels), counts, BadRows.of(checked.bad))


_UNREAD = {"image-folder": _classes_by_folder, "listed-image": _classes_by_list}
"""How images are scanned whose files need not be read, by their format."""


def _count(table: pa.Table, kept: npt.NDArray[np.bool_], labels: list[str]) -> tuple[int, ...]:
    places = pc.index_in(table["label"].filter(pa.array(kept)), pa.array(labels, pa.string())).drop_null()
    return tuple(np.bincount(places.to_numpy(), minlength=len(labels)).tolist())


def _cache_file(manifest: Manifest, first: Fragment, cache: Path, *, decode: bool) -> Path:
    """Of an object, by its first fragment, or of several that share one."""
    source = first.source
    kind = manifest.formats[source]
    infos = [asdict(info) for info in sources_of(manifest.objects, first, kind)]
    key = [_VERSION, infos, kind, manifest.columns, manifest.target, manifest.threshold]
    key += [Bounds.fragment, decode, unplaced(first, kind).source]
    return cache / "scans" / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()}.json"


def _recall(path: Path, fragments: int) -> list[FragmentScan] | None:
    try:
        rows = json.loads(path.read_text())
        scans = [_from_plain(row) for row in rows]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return scans if len(scans) == fragments else None


def _from_plain(row: dict[str, Any]) -> FragmentScan:
    bad = row["bad"]
    found = BadRows(tuple(bad["rows"]), bad["reasons"], tuple(BadRow(**one) for one in bad["first"]))
    return FragmentScan(row["rows"], row["low"], row["smallest"], tuple(row["labels"]), tuple(row["counts"]), found)


def _remember(path: Path, scans: list[FragmentScan]) -> None:
    """Best effort: without a cache, the next run reads again."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps([asdict(scan) for scan in scans]))
        temporary.replace(path)
    except OSError:
        return
