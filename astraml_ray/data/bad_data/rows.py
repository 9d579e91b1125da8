"""Which rows cannot be trained on, and why: a pure function of the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from astraml_ray.data.columns import Target
from astraml_ray.data.values import whole_as_ints

__all__ = [
    "DAMAGED_FILE",
    "MISSING_IMAGE",
    "UNREADABLE",
    "BadRow",
    "BadRows",
    "CheckImage",
    "clipped",
    "failing",
    "find_bad_rows",
]

DAMAGED_FILE = "damaged_file"
"""The reason of all rows of a file that cannot be read, and is one of several in a fragment."""
MISSING_IMAGE = "missing_image"
"""The reason of a row whose image is a file of its own, and is not there."""
UNREADABLE = "unreadable"
"""The reason of all rows of a fragment that cannot be read."""
_FIRST = 5
_MOST_LETTERS = 60
CheckImage = Callable[[bytes], "str | None"]
"""Why an encoded image cannot be used; None if it can."""
Found = Iterator[tuple[int, str, str]]


@dataclass(frozen=True, order=True)
class BadRow:
    """A row that cannot be trained on.

    Attributes:
        row: Its number in its fragment, from 0, all rows counted.
        reason: null, unparsable, not_utf8, null_in_list, unequal_lengths, not_a_number, not_finite, unknown_class,
            bad_image, MISSING_IMAGE, DAMAGED_FILE or UNREADABLE.
        message: For people.
        source: Which of the fragment's objects it is in, from 0.
        before: Rows of the fragment before that object; below zero if the fragment begins within it.
    """

    row: int
    reason: str
    message: str
    source: int = 0
    before: int = 0


@dataclass(frozen=True)
class BadRows:
    """What is remembered of the bad rows of a fragment.

    Attributes:
        rows: Their numbers, ascending; none where the fragment as a whole cannot be read.
        reasons: How many there are of each reason.
        first: The first few.
    """

    rows: tuple[int, ...] = ()
    reasons: dict[str, int] = field(default_factory=dict)
    first: tuple[BadRow, ...] = ()

    @classmethod
    def of(cls, found: Sequence[BadRow]) -> BadRows:
        """Of all bad rows of a fragment, in order."""
        reasons = {one.reason: 0 for one in found}
        for one in found:
            reasons[one.reason] += 1
        return cls(tuple(one.row for one in found), reasons, tuple(found[:_FIRST]))

    @property
    def unreadable(self) -> bool:
        return UNREADABLE in self.reasons

    @property
    def count(self) -> int:
        return sum(self.reasons.values())


def find_bad_rows(
    table: pa.Table,
    columns: Mapping[str, str],
    target: Target | None,
    classes: Sequence[str] = (),
    check_image: CheckImage | None = None,
) -> list[BadRow]:
    """The bad rows of a table, in order, each with the first thing that is wrong with it.

    Args:
        table: As it was read, columns by their names in the file.
        columns: The name of each role.
        target: What the label column holds.
        classes: The known classes or tags; none if they are not known yet.
        check_image: Tells of an encoded image what is wrong with it.
    """
    found: dict[int, BadRow] = {}
    for role, name in columns.items():
        for row, reason, message in _faults(table[name], role, name, target, classes, check_image):
            found.setdefault(row, BadRow(row, reason, message))
    if target == "tags":
        for row, reason, message in _unequal(table[columns["tokens"]], table[columns["label"]], columns["label"]):
            found.setdefault(row, BadRow(row, reason, message))
    return sorted(found.values())


def _faults(
    column: pa.ChunkedArray,
    role: str,
    name: str,
    target: Target | None,
    classes: Sequence[str],
    check_image: CheckImage | None,
) -> Found:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if column.null_count:
        yield from ((row, "null", f"column {name!r} is null") for row in _rows(pc.is_null(column)))
    if role == "image":
        if check_image is not None:
            yield from _images(column, name, check_image)
    elif role == "tokens" or (role == "label" and target == "tags"):
        yield from _lists(column, name, classes if role == "label" else ())
    elif role == "label" and target == "number":
        yield from _numbers(column, name)
    else:
        yield from _values(column, name, classes if role == "label" else ())


def _values(column: pa.ChunkedArray, name: str, classes: Sequence[str]) -> Found:
    yield from _not_utf8(column, name)
    if pa.types.is_floating(column.type):
        # Missing labels of numbers, as pandas writes them.
        yield from ((row, "not_finite", f"column {name!r} is not finite") for row in _rows(_not(pc.is_finite(column))))
    if classes and not pa.types.is_nested(column.type):
        yield from _unknown(column, name, classes)


def _unknown(column: pa.ChunkedArray, name: str, classes: Sequence[str]) -> Found:
    if next(_not_utf8(column, name), None) is not None:
        return
    plain = whole_as_ints(column)
    unknown = pc.and_(pc.is_valid(plain), pc.invert(pc.is_in(plain, pa.array(classes, pa.string()))))
    for row in _rows(unknown):
        yield row, "unknown_class", f"column {name!r} holds {clipped(plain[row])}, a class of no training row"


def _numbers(column: pa.ChunkedArray, name: str) -> Found:
    yield from _not_utf8(column, name)
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        faults = failing(len(column), lambda a, b: _cast_fault(column.slice(a, b - a)))
        for row in faults:
            yield row, "not_a_number", f"column {name!r} holds {clipped(column[row])}, no number"
        keep = pa.array([row not in faults for row in range(len(column))])
        column = pc.if_else(keep, column, pa.scalar(None, kind)).cast(pa.float64())
    if pa.types.is_floating(column.type):
        yield from ((row, "not_finite", f"column {name!r} is not finite") for row in _rows(_not(pc.is_finite(column))))


def _cast_fault(column: pa.ChunkedArray) -> str | None:
    try:
        column.cast(pa.float64())
    except pa.ArrowInvalid as error:
        return str(error)
    return None


def _lists(column: pa.ChunkedArray, name: str, classes: Sequence[str]) -> Found:
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or pa.types.is_nested(kind.value_type):
        return  # no row's fault
    values, parents = pc.list_flatten(column), np.asarray(pc.list_parent_indices(column))
    if values.null_count:
        for place in _rows(pc.is_null(values)):
            yield int(parents[place]), "null_in_list", f"column {name!r} has a null in its list"
    for place, reason, message in _values(values, name, classes):
        yield int(parents[place]), reason, message


def _unequal(words: pa.ChunkedArray, tags: pa.ChunkedArray, name: str) -> Found:
    if not all(pa.types.is_list(c.type) or pa.types.is_large_list(c.type) for c in (words, tags)):
        return
    counts = pc.list_value_length(words).cast(pa.int64()), pc.list_value_length(tags).cast(pa.int64())
    for row in _rows(pc.not_equal(*counts)):
        yield row, "unequal_lengths", f"column {name!r} has {counts[1][row]} tags for {counts[0][row]} words"


def _images(column: pa.ChunkedArray, name: str, check: CheckImage) -> Found:
    if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
        column = pc.struct_field(column, "bytes")
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        return
    for row, value in enumerate(column):
        if not value.is_valid:
            yield row, "null", f"column {name!r} is null"
        elif (fault := check(value.as_py())) is not None:
            yield row, "bad_image", f"column {name!r}: {fault}"


def _not_utf8(column: pa.ChunkedArray, name: str) -> Found:
    kind = column.type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not (text or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        return
    plain = column.cast(pa.large_binary())
    try:
        plain.cast(pa.large_string())
    except pa.ArrowInvalid:
        wrong = [row for row, value in enumerate(plain) if value.is_valid and not _decodes(value.as_py())]
        if text or len(wrong) < len(column) - column.null_count:  # else it is no column of texts at all
            yield from ((row, "not_utf8", f"column {name!r} is not UTF-8") for row in wrong)


def _decodes(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def failing(count: int, fault_of: Callable[[int, int], str | None]) -> dict[int, str]:
    """Which of some things fail when they are taken alone, found by halving.

    Args:
        count: How many things there are.
        fault_of: Why those from a place up to another fail together; None if they do not.
    """
    found: dict[int, str] = {}
    pending = [(0, count)] if count else []
    while pending:
        start, stop = pending.pop()
        fault = fault_of(start, stop)
        if fault is None:
            continue
        if stop - start == 1:
            found[start] = fault
        else:
            middle = (start + stop) // 2
            pending += [(middle, stop), (start, middle)]
    return found


def clipped(value: pa.Scalar) -> str:
    """A value as an error may show it."""
    try:
        text = repr(value.as_py())
    except UnicodeDecodeError:
        text = repr(value.as_buffer().to_pybytes())
    return text if len(text) <= _MOST_LETTERS else f"{text[:_MOST_LETTERS]}…"


def _not(mask: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.invert(pc.fill_null(mask, True))


def _rows(mask: pa.ChunkedArray) -> list[int]:
    found: list[int] = np.flatnonzero(np.asarray(pc.fill_null(mask, False))).tolist()
    return found
