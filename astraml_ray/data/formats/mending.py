"""Records of which some do not parse: those are found, and the others read as if they stood alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from astraml_ray.data.bad_data.rows import BadRow, failing
from astraml_ray.errors import DamagedError, DataError

__all__ = ["Mended", "Record", "joined", "lines_of", "mend"]

_FAULTS = (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, UnicodeDecodeError, DataError)
_NOISE = re.compile(r" in row \d+$|Row #\d+: |^is damaged or not what its name says: |^(JSON|CSV) parse error: ")
_MOST_LETTERS = 200


@dataclass(frozen=True)
class Mended:
    """Rows by the columns' names in the file, those that do not parse apart.

    Attributes:
        table: The rows that parse.
        origins: Their numbers among all rows, from 0.
        bad: The others.
        written: Of those, what stands in the file, where that is known.
        counts: All rows of each object, where there are several.
    """

    table: pa.Table
    origins: npt.NDArray[np.int64]
    bad: tuple[BadRow, ...] = ()
    written: Mapping[int, bytes] = field(default_factory=dict)
    counts: tuple[int, ...] = ()

    @classmethod
    def whole(cls, table: pa.Table, counts: tuple[int, ...] = ()) -> Mended:
        """Of rows that all parse."""
        return cls(table, np.arange(table.num_rows), counts=counts)

    @property
    def rows(self) -> int:
        """Rows that parse, and others."""
        return len(self.origins) + len(self.bad)

    def placed(self, bad: Iterable[BadRow]) -> tuple[BadRow, ...]:
        """Bad rows with the object that each is in."""
        if not self.counts:
            return tuple(bad)
        ends = np.cumsum(self.counts)
        sources = [(one, int(np.searchsorted(ends, one.row, side="right"))) for one in bad]
        return tuple(replace(one, source=n, before=int(ends[n] - self.counts[n])) for one, n in sources)

    def without(self, numbers: Sequence[int]) -> pa.Table:
        """The rows that parse, but those of some numbers."""
        if not len(numbers):
            return self.table
        return self.table.filter(pa.array(~np.isin(self.origins, np.asarray(numbers))))


def joined(parts: Sequence[Mended], table: pa.Table) -> Mended:
    """The rows of several objects, one after the other.

    Args:
        parts: Of each.
        table: The rows of all that parse.
    """
    counts = tuple(part.rows for part in parts)
    starts = [0, *np.cumsum(counts).tolist()]
    placed = list(zip(parts, starts, strict=False))
    found = Mended(
        table,
        np.concatenate([part.origins + start for part, start in placed]),
        tuple(replace(one, row=one.row + start) for part, start in placed for one in part.bad),
        {row + start: data for part, start in placed for row, data in part.written.items()},
        counts,
    )
    return replace(found, bad=found.placed(found.bad))


@dataclass(frozen=True)
class Record:
    """What makes one row: a line as a rule.

    Attributes:
        data: As it is in the file.
        start: The byte that it begins at; -1 where that is not known.
        rows: How many rows it makes, where it may be another number.
    """

    data: bytes
    start: int
    rows: int = 1


def mend(
    records: Sequence[Record],
    parse: Callable[[Iterable[bytes]], pa.Table],
    *,
    odd: Callable[[Sequence[Record]], Mapping[int, str]] | None = None,
    by_lines: bool = False,
) -> Mended:
    """Takes the records out that do not parse, as the format's own parser sees it.

    Args:
        records: All of a part of a file.
        parse: From records to rows; raises for what it cannot read.
        odd: Of records that parse one by one, and not together: those that do not fit the others, and why.
        by_lines: A record of several lines that does not parse is taken as several.

    Raises:
        DamagedError: Even those that parse one by one do not do so together.
    """
    faults = failing(len(records), lambda a, b: _fault(parse, records[a:b]))
    if by_lines and any(records[index].data.count(b"\n") > 1 for index in faults):
        records = [part for index, record in enumerate(records) for part in _parts(record, split=index in faults)]
        faults = failing(len(records), lambda a, b: _fault(parse, records[a:b]))
    good = [index for index in range(len(records)) if index not in faults]
    fault = _fault(parse, [records[index] for index in good])
    if fault is not None and odd is not None:
        faults |= {good[index]: why for index, why in odd([records[index] for index in good]).items()}
        good = [index for index in good if index not in faults]
        fault = _fault(parse, [records[index] for index in good])
    if fault is not None:
        raise DamagedError(fault)
    table = parse(records[index].data for index in good) if good else pa.table({})
    return _told(records, faults, table)


def _told(records: Sequence[Record], faults: Mapping[int, str], table: pa.Table) -> Mended:
    firsts = np.cumsum([0, *(record.rows for record in records)])
    bad = [
        BadRow(int(firsts[index]) + row, _reason(faults[index]), _at(records[index]) + faults[index])
        for index in sorted(faults)
        for row in range(records[index].rows)
    ]
    origins = np.setdiff1d(np.arange(firsts[-1]), [one.row for one in bad], assume_unique=True)
    if table.num_rows != len(origins):
        raise DamagedError("has not one row per record, and records that do not parse")
    return Mended(table, origins, tuple(bad), {int(firsts[index]): records[index].data for index in faults})


def _at(record: Record) -> str:
    return f"at byte {record.start}: " if record.start >= 0 else ""


def _parts(record: Record, *, split: bool) -> Iterable[Record]:
    return lines_of(record.data, record.start) if split else [record]


def _fault(parse: Callable[[Iterable[bytes]], pa.Table], records: Sequence[Record]) -> str | None:
    """Why records cannot be read, if they cannot."""
    if not records:
        return None
    try:
        table = parse(record.data for record in records)
    except _FAULTS as error:
        first = (getattr(error, "message", None) or str(error)).strip().splitlines()[0]
        return _NOISE.sub("", _NOISE.sub("", first))[:_MOST_LETTERS]
    return None if len(records) > 1 or table.num_rows == records[0].rows else "it is not one row"


def _reason(fault: str) -> str:
    return "not_utf8" if "utf8" in fault.lower().replace("-", "") else "unparsable"


def lines_of(data: bytes, start: int, *, blank: bool = False) -> Iterator[Record]:
    """Lines with their ends; those that are blank only if they are wanted."""
    for line in data.split(b"\n"):
        if blank or line.strip():
            yield Record(line + b"\n", start)
        start += len(line) + 1
