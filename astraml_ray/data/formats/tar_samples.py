"""The samples of a WebDataset shard: which bytes of the tar have them, and those that make a fragment together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from astraml_ray.data.formats.fragment import Bounds, Fragment
from astraml_ray.data.formats.tar_walk import walk
from astraml_ray.data.storage.credentials import Access
from astraml_ray.data.storage.objects import ObjectInfo
from astraml_ray.errors import DataError

__all__ = ["Sample", "grouped", "key_of", "walked"]


@dataclass(frozen=True)
class Sample:
    """Consecutive files of one key.

    Attributes:
        start: The first byte, of a header.
        stop: The byte after it.
        name: Of its first file, where that is known.
        header: Where the header of its first file is, where that is known: headers with a long name come before it.
    """

    start: int
    stop: int
    name: str | None = None
    header: int | None = None


def key_of(name: str) -> tuple[str, str] | None:
    """A member's key and its extension, which begins at the first dot of its file name; None if it is no sample's."""
    folder, slash, base = name.rpartition("/")
    stem, dot, extension = base.partition(".")
    if not stem or not dot or stem.startswith("__"):
        return None
    return folder + slash + stem, extension.lower()


def walked(info: ObjectInfo, access: Access) -> Iterator[Sample]:
    """The samples of a shard by its headers.

    Raises:
        DamagedError: It is damaged or cut short.
        DataError: A sample is too large.
    """
    last: str | None = None
    sample = Sample(0, 0)
    for member in walk(info, access):
        found = key_of(member.name)
        if found is None:
            continue
        if found[0] != last:
            if last is not None:
                yield sample
            sample, last = Sample(member.start, member.stop), found[0]
        sample = replace(sample, stop=member.stop)
        if sample.stop - sample.start > Bounds.frame:
            raise DataError(
                f"sample {last!r} has over {Bounds.frame >> 20} MiB",
                param=info.uri,
                hint="write smaller samples; members of one key follow each other",
            )
    if last is not None:
        yield sample


def grouped(samples: Iterable[Sample]) -> Iterator[Fragment]:
    """Samples together until they fill a fragment."""
    start = stop = rows = 0
    for sample in samples:
        if rows and stop - start >= Bounds.fragment:
            yield Fragment(0, rows, stop - start, start=start, stop=stop)
            rows = 0
        if not rows:
            start = sample.start
        rows, stop = rows + 1, sample.stop
    if rows:
        yield Fragment(0, rows, stop - start, start=start, stop=stop)
