"""What a dataset's bad rows lead to: an error that names them, or rows that are left out. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from astraml_ray.data.bad_data.rows import DAMAGED_FILE, MISSING_IMAGE, UNREADABLE, BadRow
from astraml_ray.data.formats import Fragment, place_of
from astraml_ray.data.manifest import LeftOut, Manifest
from astraml_ray.data.scan import MOST_BAD, FragmentScan
from astraml_ray.errors import DataError
from astraml_ray.spec.dataset import BadRowPolicy

__all__ = ["counted_reasons", "judge"]

_FIRST = 5
Scanned = Sequence[tuple[Fragment, FragmentScan]]


def judge(
    manifest: Manifest, scanned: Mapping[str, Scanned], *, policy: BadRowPolicy, most: float
) -> dict[str, LeftOut]:
    """Decides about the bad rows of all splits.

    Args:
        manifest: Of the dataset.
        scanned: The fragments of each split's files, in their order.
        policy: What the spec wants.
        most: Share of a split's rows that may be left out.

    Returns:
        What is left out, of the splits that have bad rows.

    Raises:
        DataError: The policy is `fail`, or there are too many.
    """
    found = {name: _left_out(manifest, pairs) for name, pairs in scanned.items() if any(s.bad.count for _, s in pairs)}
    if found and policy == "fail":
        raise _refusal(manifest, scanned, found)
    for name, left in found.items():
        numbered = sum(len(scan.bad.rows) for _, scan in scanned[name])
        if left.count > most * left.rows or left.count > numbered + left.reasons.get(UNREADABLE, 0):
            raise _too_many(name, left, most)
    return found


def counted_reasons(reasons: Mapping[str, int]) -> str:
    """`12 null, 3 unparsable`."""
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(reasons.items(), key=lambda pair: -pair[1]))


def _left_out(manifest: Manifest, pairs: Scanned) -> LeftOut:
    reasons: Counter[str] = Counter()
    for _, scan in pairs:
        reasons.update(scan.bad.reasons)
    return LeftOut(
        rows=sum(scan.rows + scan.bad.count for _, scan in pairs),
        reasons=dict(sorted(reasons.items())),
        first=tuple(": ".join(filter(None, one)) for one in _first(manifest, pairs)),
        unreadable=tuple(replace(fragment, rows=scan.bad.count) for fragment, scan in pairs if scan.bad.unreadable),
    )


def _first(manifest: Manifest, pairs: Scanned) -> list[tuple[str, str, str]]:
    """Of the first bad rows: the fragment, the row in it, and what is wrong."""
    before: Counter[int] = Counter()
    found: list[tuple[str, str, str]] = []
    for fragment, scan in pairs:
        for one in scan.bad.first:
            where, row = _place(manifest, fragment, one, before[fragment.source])
            found.append((where, row, manifest.access.hidden(one.message)))
        before[fragment.source] += scan.rows + scan.bad.count
        if len(found) >= _FIRST:
            break
    return found[:_FIRST]


def _place(manifest: Manifest, fragment: Fragment, one: BadRow, before: int) -> tuple[str, str]:
    """The part of an object that a bad row is in, and the row in it and in the object."""
    if one.reason == UNREADABLE:
        return place_of(manifest.objects, fragment, manifest.formats[fragment.source]), ""
    if fragment.count > 1 or manifest.formats[fragment.source] == "listed-image":
        where = manifest.objects[fragment.source + one.source].uri
        return where, "" if one.reason in (DAMAGED_FILE, MISSING_IMAGE) else f"row {one.row - one.before}"
    where = place_of(manifest.objects, fragment, manifest.formats[fragment.source])
    return where, f"row {one.row}" + (f" (row {before + one.row} of the file)" if before else "")


def _refusal(manifest: Manifest, scanned: Mapping[str, Scanned], found: Mapping[str, LeftOut]) -> DataError:
    where, row, why = _first(manifest, scanned[next(iter(found))])[0]
    bad, rows = sum(left.count for left in found.values()), sum(left.rows for left in found.values())
    message = f"{row}: {why}" if row else why
    if bad > 1:
        reasons: Counter[str] = Counter()
        for left in found.values():
            reasons.update(left.reasons)
        message += f"; {bad:,} of {rows:,} rows cannot be trained on ({counted_reasons(reasons)}), first of all"
        message += _listed([one for left in found.values() for one in left.first])
    return DataError(message, param=where, hint="correct such rows, or leave them out: dataset.on_bad_row=quarantine")


def _too_many(name: str, left: LeftOut, most: float) -> DataError:
    return DataError(
        f"{left.count:,} of {left.rows:,} rows of {name} cannot be trained on ({counted_reasons(left.reasons)}), and "
        f"{most:.2%} may be left out, {MOST_BAD:,} rows at most; first of all{_listed(left.first)}",
        param="/dataset/max_bad_fraction",
        hint="correct the dataset; raise the limit only if the rest is what you want to train on",
    )


def _listed(first: Sequence[str]) -> str:
    return "".join(f"\n  {one}" for one in first[:_FIRST])
