"""Tokens kept on this machine, so that later epochs, evaluations and trials neither read nor tokenise again.

A file per fragment, addressed by all that its tokens follow from: the object's ETag, the rows, the encoder. Its last
bytes are a checksum; a file that does not match is made anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import struct
import uuid
import zlib
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from astraml_ray.data.encoding.encoder import Encoder
from astraml_ray.data.encoding.schema import HEAD
from astraml_ray.data.encoding.text import TextEncoder
from astraml_ray.data.encoding.words import WordEncoder
from astraml_ray.data.formats import sources_of, unplaced
from astraml_ray.data.manifest import Manifest, Split
from astraml_ray.data.rows import read_rows
from astraml_ray.spec.augmentation import Augmentation

__all__ = ["TokenKeep", "classes_of", "token_keep", "widened"]

MOST_BYTES = 10 << 30
_MOST_SHARE_OF_FREE = 0.25
_TOKENS_PER_BYTE = 0.75  # of the bytes of a text, what its tokens take, at most as a rule
_TAIL = struct.Struct("<QI4s")
_MARK = b"AMLT"
_VERSION = 2


def token_keep(
    encoder: Encoder, split: Split, augmentations: Sequence[Augmentation], folder: Path, *, reads: int
) -> TokenKeep | None:
    """Where tokens are kept, or None where that brings nothing.

    Args:
        encoder: Of the run. What is masked is masked anew at each reading: see TextEncoder.masked.
        split: What is read.
        augmentations: Of its rows; changed rows are tokenised every time.
        folder: For all tokens of this machine.
        reads: How often the split is read.
    """
    fixed = isinstance(encoder, (TextEncoder, WordEncoder))
    fits = sum(split.sizes) * _TOKENS_PER_BYTE <= MOST_BYTES / 2
    return TokenKeep(folder) if fixed and fits and not augmentations and reads > 1 else None


@dataclass(frozen=True)
class TokenKeep:
    """A folder of tokens.

    Attributes:
        folder: On this machine's disk; shared by its processes.
        most_bytes: Beyond it, what was not used for longest is removed.
    """

    folder: Path
    most_bytes: int = MOST_BYTES

    def rows(self, manifest: Manifest, split: Split, index: int, encoder: Encoder) -> pa.Table:
        """The rows of a fragment, in file order, tokenised, without HEAD's columns; whole numbers are narrow.

        Raises:
            DataError: As read_rows.
        """
        path = self.folder / f"{_address(manifest, split, index, encoder)}.tokens"
        found = _read(path)
        if found is not None:
            return found
        with _alone(path):
            found = _read(path)  # another process has made it meanwhile
            if found is None:
                found = _encoded(manifest, split, index, encoder)
                self._write(path, found)
        return found

    def _write(self, path: Path, table: pa.Table) -> None:
        """Best effort: with a full disk the tokens are made again."""
        data = _to_bytes(table)
        temporary = path.with_suffix(f".{uuid.uuid4().hex[:8]}")
        try:
            if not self._make_room(len(data)):
                return
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(data)
            temporary.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()

    def _make_room(self, size: int) -> bool:
        """Removes the files that were not used for longest; tells whether there is room then."""
        files = []
        with os.scandir(self.folder) as entries:
            for entry in (one for one in entries if not one.name.startswith(".")):
                with contextlib.suppress(OSError):
                    status = entry.stat()
                    files.append((status.st_mtime_ns, status.st_size, entry.path))
        held = sum(size for _, size, _ in files)
        usage = os.statvfs(self.folder)
        bound = min(self.most_bytes, held + usage.f_bavail * usage.f_frsize * _MOST_SHARE_OF_FREE)
        for _, length, path in sorted(files):
            if held + size <= bound:
                break
            with contextlib.suppress(OSError):
                os.unlink(path)
            held -= length
        return held + size <= bound


def widened(tables: Sequence[pa.Table], schema: pa.Schema) -> pa.Table:
    """Tables of kept tokens as one, of the encoder's types."""
    body = pa.schema(list(schema)[len(HEAD) :])
    return pa.concat_tables([table.cast(body) for table in tables])


def classes_of(table: pa.Table) -> npt.NDArray[np.int64]:
    """The class id of each row of kept tokens of text-classification."""
    ids: npt.NDArray[np.int64] = pc.list_flatten(table["labels"]).to_numpy().astype(np.int64)
    return ids


def _address(manifest: Manifest, split: Split, index: int, encoder: Encoder) -> str:
    fragment = split.fragments[index]
    kind = manifest.formats[fragment.source]
    left_out = split.left_out[index] if split.left_out else ()
    key = {
        "version": _VERSION,
        "objects": [asdict(info) for info in sources_of(manifest.objects, fragment, kind)],
        "fragment": asdict(unplaced(fragment, kind)),
        "read_as": [kind, manifest.columns, manifest.target],
        "rows": [split.side, manifest.threshold if split.side != "all" else 0, split.rows[index], list(left_out)],
        "encoder": _digest_of(encoder),
    }
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


def _digest_of(encoder: Encoder) -> str:
    """Of what tokens follow from. Nothing is augmented, so lexicons are no part of it."""
    values = vars(encoder)
    return _digest(type(encoder).__name__, tuple((name, values[name]) for name in sorted(values) if name != "lexicons"))


@lru_cache(maxsize=8)
def _digest(kind: str, values: Hashable) -> str:
    """An encoder may hold megabytes of a tokenizer."""
    return hashlib.sha256(json.dumps([kind, values]).encode()).hexdigest()


def _encoded(manifest: Manifest, split: Split, index: int, encoder: Encoder) -> pa.Table:
    rows = read_rows(manifest, split, index)
    unkeyed = np.zeros(rows.num_rows, np.uint64)
    encode = encoder.tokenised if isinstance(encoder, TextEncoder) else encoder.encode
    table = encode(rows, np.arange(rows.num_rows), unkeyed).drop_columns([field.name for field in HEAD])
    return pa.table({name: _narrow(table[name]) for name in table.column_names})


def _narrow(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Lists of whole numbers in the fewest bytes that hold them."""
    kind = column.type
    if not pa.types.is_list(kind) or not pa.types.is_integer(kind.value_type):
        return column
    bounds = pc.min_max(pc.list_flatten(column)).as_py()
    least, most = bounds["min"] or 0, bounds["max"] or 0
    if least < 0:
        return column
    return column.cast(pa.list_(pa.uint16() if most < 1 << 16 else pa.uint32()))


def _to_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    data: bytes = sink.getvalue().to_pybytes()
    return data + _TAIL.pack(len(data), zlib.crc32(data), _MARK)


def _read(path: Path) -> pa.Table | None:
    """What a file holds, mapped into memory; None if there is none, or if it is damaged."""
    try:
        with pa.memory_map(str(path)) as file:
            whole = file.read_buffer()
        size, checksum, mark = _TAIL.unpack(whole[-_TAIL.size :].to_pybytes())
        if mark != _MARK or size + _TAIL.size != whole.size:
            return None
        data = whole.slice(0, size)
        if zlib.crc32(data) != checksum:
            return None
        table: pa.Table = pa.ipc.open_file(pa.BufferReader(data)).read_all()
    except (OSError, ValueError, struct.error, pa.ArrowInvalid):
        return None
    with contextlib.suppress(OSError):  # a file of another user, or of a filesystem that is only read
        os.utime(path)
    return table


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process of this machine makes a file, the others wait for it; one that is killed lets go."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(path.parent / f".{path.name[:2]}.lock", os.O_WRONLY | os.O_CREAT, 0o600)
    except OSError:
        yield
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
