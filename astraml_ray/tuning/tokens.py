"""Tokens of a split, made once per machine and mapped into memory by every trial on it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from astraml_ray.data.blocks import BlockReader
from astraml_ray.data.encoding import ENCODED_SCHEMA, encode_rows
from astraml_ray.data.keyed import row_keys
from astraml_ray.data.manifest import read_rows
from astraml_ray.data.plan import Block, owned_by, permutation
from astraml_ray.training.preparation import RunInputs
from astraml_ray.training.worker import split_reader

__all__ = ["SharedReader", "shared_reader"]

_MOST_BYTES = 64 << 20
"""Of a split's files: what is larger is tokenised as it is read, and never held whole."""
_CACHE_BYTES = 2 << 30


def shared_reader(inputs: RunInputs, split: str, world_size: int, *, cache: Path) -> BlockReader:
    """The reader of a split: over shared tokens, where they are the same for all trials and epochs."""
    reader = split_reader(inputs, split, world_size)
    drawn = reader.augmentations or inputs.encoder.task == "masked-lm"
    if drawn or sum(reader.split.sizes) > _MOST_BYTES:
        return reader
    fields = (reader.manifest, reader.split, reader.encoder, reader.seed, reader.batch_size, world_size)
    return SharedReader(*fields, shuffle=reader.shuffle, cache=str(cache / "tokens"))


@dataclass(frozen=True)
class SharedReader(BlockReader):
    """Reads blocks out of tokens that are there already; made when they are first read.

    Attributes:
        cache: The folder that they lie in.
    """

    cache: str = ""

    def read(self, block: Block, world_rank: int, start_row: int = 0) -> pa.Table:
        """As of any BlockReader."""
        tokens, offsets = self._tokens()
        positions = np.arange(block.start, block.start + block.rows, dtype=np.int64)
        mine = owned_by(positions, self.batch_size, world_rank, self.world_size) & (positions >= start_row)
        order = permutation(block, self.seed) if self.shuffle else np.arange(block.rows)
        rows = np.concatenate([np.arange(offsets[f], offsets[f + 1]) for f in block.fragments])
        table = tokens.take(pa.array(rows[order[mine]]))
        return table.set_column(0, ENCODED_SCHEMA.field("position"), pa.array(positions[mine], pa.int64()))

    def _tokens(self) -> tuple[pa.Table, list[int]]:
        offsets = [0, *np.cumsum(self.split.rows).tolist()]
        plain = {"manifest": self.manifest.digest(), "split": asdict(self.split), "encoder": asdict(self.encoder)}
        digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
        file = Path(self.cache) / f"{digest}.arrow"
        with _alone(file):
            if not file.exists():
                self._make(file)
        return _mapped(str(file)), offsets

    def _make(self, file: Path) -> None:
        """Tokenises the split, in one piece: a mapped table is taken from without being copied first."""
        parts = [self._fragment(index) for index in range(len(self.split.rows)) if self.split.rows[index]]
        table = pa.concat_tables(parts).combine_chunks()
        _make_room(file.parent, table.nbytes)
        temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}")
        try:
            with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, ENCODED_SCHEMA) as writer:
                writer.write_table(table)
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)

    def _fragment(self, index: int) -> pa.Table:
        table = read_rows(self.manifest, self.split, index)
        positions = np.arange(table.num_rows, dtype=np.int64)
        labels = table["label"].to_pylist() if self.manifest.label else None
        keys = row_keys(self.seed, 0, positions)
        return encode_rows(self.encoder, table["text"].to_pylist(), labels, positions, keys)


@lru_cache(maxsize=8)
def _mapped(file: str) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(file)).read_all()


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Of several trials that need a file, one makes it and the others wait."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(file.parent / f".{file.stem}.lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _make_room(folder: Path, size: int) -> None:
    """Removes the oldest files; whoever has one mapped keeps it."""
    files = sorted(folder.glob("*.arrow"), key=lambda file: file.stat().st_mtime)
    total = size + sum(file.stat().st_size for file in files)
    for file in files:
        if total <= _CACHE_BYTES:
            return
        total -= file.stat().st_size
        file.unlink(missing_ok=True)
