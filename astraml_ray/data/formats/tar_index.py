"""Index files beside WebDataset shards, of NVIDIA DALI and Megatron-Energon: they save reading the shard's headers.

DALI's `wds2idx` writes `a.idx` for `a.tar`: a line with the version and the number of samples, then a line for each:
extension, offset and size (since v1.2 the name too) of each of its files, offsets of the data. Energon writes
`a.tar.idx`: offsets of the samples' headers and of the end, each a whole number of 8 bytes. A shard may have been
written again since: an index that does not fit is not used.
"""

from __future__ import annotations

import logging
import struct
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from astraml_ray.data.formats.fragment import Bounds, Fragment
from astraml_ray.data.formats.tar_samples import Sample, grouped, key_of
from astraml_ray.data.storage.credentials import Access
from astraml_ray.data.storage.objects import ObjectInfo, describe, read_range
from astraml_ray.errors import DataError

__all__ = ["indexed_fragments", "samples_of_index"]

_LOG = logging.getLogger(__name__)
_BLOCK = 512
_MOST_BYTES = 16 << 20
_MOST_NAME = 100
_FIELDS = {"v1.1": 3, "v1.2": 4}
_BEFORE_ANOTHER = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.DIRTYPE,
)


def indexed_fragments(info: ObjectInfo, access: Access) -> list[Fragment] | None:
    """The fragments of a shard by the index beside it; None if there is none that fits.

    Args:
        info: The shard.
        access: How it is reached.
    """
    for uri in _names(info.uri):
        try:
            index = describe(uri, access)
        except DataError:
            continue  # as a rule there is none
        try:
            if index.size > _MOST_BYTES:
                raise ValueError(f"it has {index.size >> 20} MiB")
            samples = samples_of_index(read_range(index, 0, index.size, access))
            return _checked(info, samples, access)
        except (ValueError, tarfile.TarError, DataError) as error:
            _LOG.warning("%s does not fit its shard, whose headers are read instead: %s", uri, error)
    return None


def _names(uri: str) -> list[str]:
    """DALI's name goes by the first dot of the shard's as a rule; many give it another."""
    folder, _, name = uri.rpartition("/")
    stem = name.removesuffix(".tar")
    return [f"{folder}/{one}.idx" for one in dict.fromkeys([stem, stem.partition(".")[0], f"{stem}.tar"])]


def samples_of_index(data: bytes) -> list[Sample]:
    """The samples that an index tells of.

    Raises:
        ValueError: It is no index, or is damaged.
    """
    version, _, _ = data[:16].partition(b" ")
    fields = _FIELDS.get(version.decode("latin-1"))
    samples = list(_lines(data, fields)) if fields else list(_offsets(data))
    if not samples:
        raise ValueError("it has no samples")
    for before, after in pairwise(samples):
        if before.stop > after.start:
            raise ValueError(f"a sample begins at byte {after.start}, and the one before ends at {before.stop}")
    return samples


def _offsets(data: bytes) -> Iterator[Sample]:
    if len(data) % 8:
        raise ValueError("it is neither DALI's nor Energon's")
    for start, stop in pairwise(struct.unpack(f"<{len(data) // 8}Q", data)):
        if start % _BLOCK or stop <= start:
            raise ValueError(f"it has an offset of {start}, where no header can be")
        yield Sample(start, stop)


@dataclass(frozen=True)
class _File:
    key: str
    name: str | None
    body: int
    stop: int


def _lines(data: bytes, fields: int) -> Iterator[Sample]:
    """Files of a key that follow each other are a sample, as they are in the shard."""
    first, *lines = data.decode("utf-8").splitlines()
    if not first.endswith(f" {len(lines)}"):
        raise ValueError(f"it has {len(lines)} lines, and begins with {first[:40]!r}")
    own: list[_File] = []
    start = end = 0
    for number, line in enumerate(lines):
        for file in _files(line.split(" "), fields, number):
            if file.body % _BLOCK or file.body < end + _BLOCK:
                raise ValueError(f"line {number + 2} has an offset of {file.body}, where no file can begin")
            if own and own[0].key != file.key:
                yield Sample(start, own[-1].stop, own[0].name, own[0].body - _BLOCK)
                own = []
            start = start if own else end
            own.append(file)
            end = file.stop
    if own:
        yield Sample(start, own[-1].stop, own[0].name, own[0].body - _BLOCK)


def _files(words: Sequence[str], fields: int, number: int) -> Iterator[_File]:
    if len(words) % fields:
        raise ValueError(f"line {number + 2} has {len(words)} words: a name with spaces, or damage")
    for i in range(0, len(words), fields):
        body, size = int(words[i + 1]), int(words[i + 2])
        name = words[i + 3] if fields > 3 else None
        key = key_of(name) if name is not None else (str(number), words[i])
        if key is not None and size >= 0:
            yield _File(key[0], name, body, body + -(-size // _BLOCK) * _BLOCK)


def _checked(info: ObjectInfo, samples: Sequence[Sample], access: Access) -> list[Fragment]:
    """Where a fragment begins there must be the header of its first sample, and after the last sample the end.

    Raises:
        ValueError: It is otherwise.
    """
    end = samples[-1].stop
    if end > info.size or read_range(info, end, end + _BLOCK, access).strip(b"\0"):
        raise ValueError(f"its last sample ends at byte {end}, and the shard does not")
    if any(sample.stop - sample.start > Bounds.frame for sample in samples):
        raise ValueError(f"it has a sample of over {Bounds.frame >> 20} MiB")
    found = list(grouped(samples))
    by_start = {sample.start: sample for sample in samples}
    for fragment in found:
        _check(by_start[fragment.start], read_range(info, fragment.start, fragment.start + _BLOCK, access))
    return found


def _check(sample: Sample, block: bytes) -> None:
    header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    named = header.isreg()
    if not named and header.type not in _BEFORE_ANOTHER:
        raise ValueError(f"at byte {sample.start} is no file")
    if sample.header is not None and named != (sample.header == sample.start):
        raise ValueError(f"the first file of the sample at byte {sample.start} is not where it says")
    if named and key_of(header.name) is None and len(header.name) < _MOST_NAME:
        raise ValueError(f"at byte {sample.start} is {header.name!r}, which is no sample's")
    if named and sample.name is not None and header.name != sample.name:
        raise ValueError(f"at byte {sample.start} is {header.name!r}, and it says {sample.name!r}")
