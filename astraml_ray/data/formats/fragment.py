"""What every format shares: the fragment, the protocol of a format, and the bounds that keep memory flat."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from astraml_ray.data.formats.mending import Mended
from astraml_ray.data.storage.credentials import Access
from astraml_ray.data.storage.objects import ObjectInfo
from astraml_ray.errors import DamagedError, DataError

__all__ = [
    "Bounds",
    "FileFormat",
    "Fragment",
    "ListedRows",
    "PageRange",
    "damage_named",
    "format_names",
    "fragment_of",
    "mended_part",
    "place_of",
    "select_columns",
    "sources_of",
    "unplaced",
]


class Bounds:
    """Bytes that are held at once; what is larger is cut, or refused with a hint.

    Attributes:
        fragment: What a fragment of lines, samples or small files aims at.
        group: Files of one fragment at most.
        line: The longest line.
        whole: The largest thing that must be read as one: a JSON array, a compressed tar.
        frame: What may be decompressed, and thrown away, on the way to a fragment of a compressed file.
    """

    fragment = 8 << 20
    group = 1000
    line = 64 << 20
    whole = 64 << 20
    frame = 256 << 20


@dataclass(frozen=True)
class Fragment:
    """A part of an object that is read as one, or several small objects that are.

    Attributes:
        source: Index of the (first) object in the manifest.
        rows: Rows in it; -1 until they are counted.
        size: Its bytes, uncompressed where that is known.
        group: Parquet row group; part of a large one is a PageRange. In compressed files, the byte at which
            decompression begins. Of images that a metadata file names, the index of that file in the manifest.
        start: First byte of a range: of lines, of samples of a tar, of Arrow messages. In compressed files it is
            counted in decompressed bytes from `group`.
        stop: Byte after the range; 0 is the whole object.
        count: Objects in it, which are consecutive; more than one are read whole, one after the other.
    """

    source: int
    rows: int
    size: int
    group: int = 0
    start: int = 0
    stop: int = 0
    count: int = 1


@dataclass(frozen=True)
class PageRange(Fragment):
    """Rows of a Parquet row group that is too large to be read as one; `start` and `stop` count rows of it.

    Attributes:
        pages: Of each leaf column, in the footer's order: the first byte of its data pages; of those with rows of the
            range, the first byte, the byte after them, and their first row.
    """

    pages: tuple[tuple[int, int, int, int], ...] = ()


@dataclass(frozen=True)
class ListedRows(Fragment):
    """Images of which a metadata file tells that tells of other splits' images, too.

    Attributes:
        numbers: Of their rows in that file, ascending.
    """

    numbers: tuple[int, ...] = ()


def fragment_of(plain: Mapping[str, Any]) -> Fragment:
    """The reverse of dataclasses.asdict, from JSON.

    Raises:
        TypeError: It is none.
    """
    if "pages" in plain:
        return PageRange(**{**plain, "pages": tuple(tuple(one) for one in plain["pages"])})
    if "numbers" in plain:
        return ListedRows(**{**plain, "numbers": tuple(plain["numbers"])})
    return Fragment(**plain)


@dataclass(frozen=True)
class FileFormat:
    """A file format: three functions, and what most leave as it is.

    Attributes:
        fragments: The fragments of an object, of index 0; may open it.
        schema: The columns of an object, as `read` gives them.
        read: The wanted columns (None is all) of a fragment of one object, in file order.
        opens: Whether `fragments` opens an object of this size.
        remembered: Whether finding the fragments of an object of this size costs so much that it is done once for its
            ETag.
        read_group: The wanted columns of several whole objects of one row each; None reads them one by one.
        grouped: The largest object, in bytes, that shares a fragment with its neighbours.
        mend: As `read`, of a fragment that `read` finds damaged: what parses, and what does not told apart. None where
            a fragment is damaged as a whole.
        head: The first part of an object: `mend` tells its schema where `schema` finds it damaged.
        read_listed: As `mend`, of a fragment of all objects: those that another one has the rows of. None where an
            object has its own rows.
        rows_lost: About how many rows a fragment has that cannot be read; None where `fragments` tells.
    """

    fragments: Callable[[ObjectInfo, Access], list[Fragment]]
    schema: Callable[[ObjectInfo, Access], pa.Schema]
    read: Callable[[ObjectInfo, Fragment, list[str] | None, Access], pa.Table]
    opens: Callable[[int], bool] = lambda size: True
    remembered: Callable[[int], bool] = lambda size: False
    read_group: Callable[[Sequence[ObjectInfo], list[str] | None, Access], pa.Table] | None = None
    grouped: Callable[[], int] = lambda: Bounds.fragment // 8
    mend: Callable[[ObjectInfo, Fragment, list[str] | None, Access], Mended] | None = None
    head: Callable[[ObjectInfo, Access], Fragment] = lambda info, access: Fragment(0, -1, info.size)
    read_listed: Callable[[Sequence[ObjectInfo], Fragment, list[str] | None, Access], Mended] | None = None
    rows_lost: Callable[[ObjectInfo, Fragment, Access], int] | None = None


def sources_of(objects: Sequence[ObjectInfo], fragment: Fragment, kind: str) -> list[ObjectInfo]:
    """All objects that a fragment is read from."""
    own = list(objects[fragment.source : fragment.source + fragment.count])
    return [objects[fragment.group], *own] if kind == "listed-image" else own


def format_names(kinds: Iterable[str]) -> list[str]:
    """The formats of some objects, as people are told of them."""
    return sorted({"image-folder" if kind in ("metadata", "listed-image") else kind for kind in kinds})


def unplaced(fragment: Fragment, kind: str) -> Fragment:
    """A fragment as it is wherever its objects stand in a manifest: what is kept of it goes by that."""
    if kind == "listed-image":
        return replace(fragment, source=fragment.source - fragment.group, group=0)
    return replace(fragment, source=0)


def mended_part(
    file: FileFormat, info: ObjectInfo, fragment: Fragment, columns: list[str] | None, access: Access
) -> Mended:
    """A fragment of one object, what does not parse told apart.

    Raises:
        DamagedError: It cannot be read at all.
    """
    try:
        return Mended.whole(file.read(info, fragment, columns, access))
    except DamagedError:
        if file.mend is None:
            raise
        return file.mend(info, fragment, columns, access)


def place_of(objects: Sequence[ObjectInfo], fragment: Fragment, kind: str) -> str:
    """Where a fragment lies, for an error."""
    uri = objects[fragment.source].uri
    if fragment.count > 1:
        return f"{uri} and the {fragment.count - 1} objects after it"
    if kind == "parquet":
        within = f", counted from row {fragment.start}" if fragment.start else ""
        return f"{uri}, row group {fragment.group}{within}"
    if "." in kind and (fragment.start or fragment.group):
        return f"{uri}, decompressed from byte {fragment.group} on, from byte {fragment.start}"
    return f"{uri}, from byte {fragment.start}" if fragment.start else uri


@contextmanager
def damage_named(info: ObjectInfo) -> Iterator[None]:
    """Arrow calls some damage an OSError, like a failure of the storage, which would be tried again: it has no number.

    Raises:
        DamagedError: It is damaged.
    """
    try:
        yield
    except OSError as error:
        if type(error) is not OSError or error.errno is not None:
            raise
        raise DamagedError(
            f"is damaged: {str(error).splitlines()[0][:300]}", param=info.uri, hint="write the object again"
        ) from error


def select_columns(info: ObjectInfo, table: pa.Table, wanted: list[str] | None) -> pa.Table:
    """The wanted columns of a table.

    Raises:
        DataError: One is missing.
    """
    missing = [name for name in wanted or [] if name not in table.column_names]
    if missing:
        raise DataError(
            f"has no column {missing[0]!r}, which other objects of the dataset have; it has "
            f"{', '.join(table.column_names)}",
            param=info.uri,
            hint="write it with the same columns, or take it out of the dataset",
        )
    return table.select(wanted) if wanted else table
