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
import pyarrow as pa

from astraml_ray.data.bad_rows import UNREADABLE, BadRow, BadRows, CheckImage
from astraml_ray.data.columns import Target
from astraml_ray.data.formats import Fragment
from astraml_ray.data.manifest import Manifest
from astraml_ray.data.raw_rows import count_roughly
from astraml_ray.data.rows import hash_rows, read_checked
from astraml_ray.errors import DamagedError

__all__ = ["FragmentScan", "scan_fragment", "scan_fragments"]

MAX_CLASSES = 10_000
MOST_BAD = 1_000_000
"""Numbers of bad rows that are kept; a dataset with more of them is refused, whatever its size."""
_VERSION = 3
_THREADS = 8


@dataclass(frozen=True)
class FragmentScan:
    """Of one fragment.

    Attributes:
        rows: Good rows in it.
        low: Good rows whose content hash is below the threshold.
        smallest: The smallest content hash.
        labels: Its classes; beyond 10,000 they are no longer kept.
        bad: Its bad rows.
    """

    rows: int
    low: int
    smallest: int
    labels: tuple[str, ...]
    bad: BadRows = field(default_factory=BadRows)


def scan_fragments(
    manifest: Manifest, fragments: Sequence[Fragment], cache: Path, check_image: CheckImage | None = None
) -> list[FragmentScan]:
    """Scans fragments in parallel; an object scanned before, unchanged, is not read again.

    Args:
        manifest: Of the dataset, without classes.
        fragments: Which.
        cache: Folder that remembers.
        check_image: Tells what is wrong with an encoded image.
    """
    by_source: dict[int, list[Fragment]] = {}
    for fragment in fragments:
        by_source.setdefault(fragment.source, []).append(fragment)
    results: dict[Fragment, FragmentScan] = {}
    missing: list[Fragment] = []
    check = getattr(check_image, "__qualname__", "")
    for source, group in by_source.items():
        known = _recall(_cache_file(manifest, source, check, cache), len(group))
        if known is None:
            missing += group
        else:
            results.update(zip(group, known, strict=True))
    kept = sum(len(scan.bad.rows) for scan in results.values())
    with ThreadPoolExecutor(_THREADS) as pool:
        scans = pool.map(lambda fragment: scan_fragment(manifest, fragment, check_image), missing)
        for fragment, scan in zip(missing, scans, strict=True):
            kept += len(scan.bad.rows)
            results[fragment] = scan if kept <= MOST_BAD else replace(scan, bad=replace(scan.bad, rows=()))
    if kept <= MOST_BAD:
        for source in {fragment.source for fragment in missing}:
            _remember(_cache_file(manifest, source, check, cache), [results[f] for f in by_source[source]])
    return [results[fragment] for fragment in fragments]


def scan_fragment(manifest: Manifest, fragment: Fragment, check_image: CheckImage | None = None) -> FragmentScan:
    """Scans one fragment now; where the manifest has classes, labels of others are bad."""
    try:
        checked = read_checked(manifest, fragment, check_image)
    except DamagedError as error:
        rows = max(fragment.rows, 1) if fragment.rows >= 0 else count_roughly(manifest, fragment)
        return FragmentScan(
            0, 0, 2**64 - 1, (), BadRows((), {UNREADABLE: rows}, (BadRow(0, UNREADABLE, error.message),))
        )
    hashes = hash_rows(checked.table)
    labels = _classes(checked.table, manifest.target)
    return FragmentScan(
        rows=checked.table.num_rows,
        low=int((hashes < np.uint64(manifest.threshold)).sum()),
        smallest=int(hashes.min()) if len(hashes) else 2**64 - 1,
        labels=tuple(sorted(labels)[: MAX_CLASSES + 1]),
        bad=BadRows.of(checked.bad),
    )


def _classes(table: pa.Table, target: Target | None) -> list[str]:
    """The classes or tags that occur."""
    if target not in ("class", "tags"):
        return []
    labels = table["label"].combine_chunks()
    found: list[str] = (labels.flatten() if target == "tags" else labels).unique().to_pylist()
    return found


def _cache_file(manifest: Manifest, source: int, check: str, cache: Path) -> Path:
    info = manifest.objects[source]
    roles = [manifest.columns, manifest.target, manifest.threshold]
    key = [_VERSION, asdict(info), manifest.formats[source], *roles, check]
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
    return FragmentScan(row["rows"], row["low"], row["smallest"], tuple(row["labels"]), found)


def _remember(path: Path, scans: list[FragmentScan]) -> None:
    """Best effort: without a cache, the next run reads again."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps([asdict(scan) for scan in scans]))
        temporary.replace(path)
    except OSError:
        return
