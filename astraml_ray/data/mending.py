"""Lines of which some do not parse: those are found, and the others read as if they stood alone."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from astraml_ray.data.bad_rows import BadRow, failing
from astraml_ray.errors import DamagedError, DataError

__all__ = ["Mended", "mend_lines"]

_FAULTS = (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, UnicodeDecodeError, DataError)
_NOISE = re.compile(r" in row \d+$|Row #\d+: |^is damaged or not what its name says: |^(JSON|CSV) parse error: ")
_MOST_LETTERS = 200
Parse = Callable[[bytes], pa.Table]


@dataclass(frozen=True)
class Mended:
    """What is left of lines.

    Attributes:
        table: The rows that parse.
        origins: Their numbers among all rows, from 0.
        bad: The others.
        written: Each of those as it stands in the file.
    """

    table: pa.Table
    origins: npt.NDArray[np.int64]
    bad: tuple[BadRow, ...]
    written: dict[int, bytes]


@dataclass(frozen=True)
class _Record:
    """Whole lines that make one row, or none if they are blank."""

    data: bytes
    start: int
    rows: int


def mend_lines(kind: str, data: bytes, start: int, parse: Parse) -> Mended:
    """Takes the lines out that do not parse, as the format's own parser sees it.

    Args:
        kind: The format.
        data: The lines, without a header.
        start: The byte of the object that they begin at.
        parse: From lines to rows; raises for lines that it cannot read.

    Raises:
        DamagedError: Even the lines that parse one by one do not do so together.
    """
    records, faults = _find(kind, list(_records(kind, data, start)), parse)
    good = [record for index, record in enumerate(records) if index not in faults]
    if kind == "jsonl" and _fault(parse, good) is not None:
        faults.update(_of_other_shapes(records, faults))
        good = [record for index, record in enumerate(records) if index not in faults]
    fault = _fault(parse, good)
    if fault is not None:
        raise DamagedError(fault)
    firsts = np.cumsum([0, *(record.rows for record in records)])
    bad = [
        BadRow(int(firsts[index]) + row, _reason(fault), f"at byte {records[index].start}: {fault}")
        for index, fault in sorted(faults.items())
        for row in range(records[index].rows)
    ]
    table = parse(b"".join(record.data for record in good)) if good else pa.table({})
    origins = np.setdiff1d(np.arange(firsts[-1]), [one.row for one in bad], assume_unique=True)
    if table.num_rows != len(origins):
        raise DamagedError("has not one row per line, and lines that do not parse")
    written = {int(firsts[index]): records[index].data for index in faults}
    return Mended(table, origins, tuple(bad), written)


def _find(kind: str, records: list[_Record], parse: Parse) -> tuple[list[_Record], dict[int, str]]:
    """The records, and why some of them cannot be read.

    Those of several lines, which a quote that is not closed makes, are taken line by line then.
    """
    faults = failing(len(records), lambda a, b: _fault(parse, records[a:b]))
    if kind != "csv" or not any(records[index].data.count(b"\n") > 1 for index in faults):
        return records, faults
    split: list[_Record] = []
    for index, record in enumerate(records):
        split += _lines(record.data, record.start) if index in faults else [record]
    return split, failing(len(split), lambda a, b: _fault(parse, split[a:b]))


def _fault(parse: Parse, records: Sequence[_Record]) -> str | None:
    """Why records cannot be read, if they cannot."""
    if not records:
        return None
    try:
        table = parse(b"".join(record.data for record in records))
    except _FAULTS as error:
        first = (getattr(error, "message", None) or str(error)).strip().splitlines()[0]
        return _NOISE.sub("", _NOISE.sub("", first))[:_MOST_LETTERS]
    return None if len(records) > 1 or table.num_rows == records[0].rows else "it is not one row"


def _reason(fault: str) -> str:
    return "not_utf8" if "utf8" in fault.lower().replace("-", "") else "unparsable"


def _records(kind: str, data: bytes, start: int) -> Iterator[_Record]:
    if kind == "csv":
        yield from _quoted_records(data, start)
        return
    for line in _lines(data, start):
        yield line if kind == "jsonl" else _Record(line.data, line.start, _text_rows(line.data))


def _quoted_records(data: bytes, start: int) -> Iterator[_Record]:
    """Lines; one that ends inside quotes goes on."""
    held: list[bytes] = []
    begin, inside = start, False
    for line, at in _all_lines(data, start):
        begin = begin if held else at
        held.append(line)
        inside ^= line.count(b'"') % 2 == 1
        if not inside:
            whole, held = b"".join(held), []
            if whole.strip():
                yield _Record(whole, begin, 1)
    if held:
        yield _Record(b"".join(held), begin, 1)


def _lines(data: bytes, start: int) -> Iterator[_Record]:
    """Those that are not blank."""
    return (_Record(line, at, 1) for line, at in _all_lines(data, start) if line.strip())


def _all_lines(data: bytes, start: int) -> Iterator[tuple[bytes, int]]:
    for line in data.split(b"\n"):
        yield line + b"\n", start
        start += len(line) + 1


def _text_rows(line: bytes) -> int:
    return sum(bool(part.strip()) for part in line.decode("utf-8", "replace").splitlines())


def _of_other_shapes(records: Sequence[_Record], faults: dict[int, str]) -> dict[int, str]:
    """Objects, lists and single values where most rows have another of the three."""
    rows = {index: json.loads(record.data) for index, record in enumerate(records) if index not in faults}
    shapes: dict[str, Counter[str]] = {}
    for row in rows.values():
        for name, value in row.items():
            if value is not None:
                shapes.setdefault(name, Counter())[_shape(value)] += 1
    usual = {name: counts.most_common(1)[0][0] for name, counts in shapes.items()}
    return {
        index: f"column {name!r} holds a {_shape(value)}, in most rows a {usual[name]}"
        for index, row in rows.items()
        for name, value in row.items()
        if value is not None and _shape(value) != usual[name]
    }


def _shape(value: Any) -> str:
    return "list" if isinstance(value, list) else "structure" if isinstance(value, dict) else "single value"
