"""Reads a block of the plan: fragments → global order → augmentation → encoded rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from astraml_ray.data.encoding.encoder import Encoder
from astraml_ray.data.encoding.schema import RowError, padding_rows
from astraml_ray.data.keyed import row_keys
from astraml_ray.data.manifest import Manifest, Split
from astraml_ray.data.mixing import mixings_of, partners_of, with_partners
from astraml_ray.data.plan import Block, owned_by, permutation
from astraml_ray.data.rows import read_rows, row_place
from astraml_ray.errors import DataError
from astraml_ray.spec.augmentation import Augmentation

__all__ = ["BlockReader", "rows_in_order"]


@dataclass(frozen=True)
class BlockReader:
    """Everything a task needs to turn a block into encoded rows; plain data.

    Attributes:
        manifest: What is read.
        split: Of it, which rows.
        encoder: What the model takes of them.
        seed: Of the run.
        batch_size: Rows of a global batch.
        world_size: Workers that share each batch.
        augmentations: Of training rows.
        shuffle: False for validation and test.
    """

    manifest: Manifest
    split: Split
    encoder: Encoder
    seed: int
    batch_size: int
    world_size: int
    augmentations: tuple[Augmentation, ...] = ()
    shuffle: bool = True

    def read(self, block: Block, world_rank: int, start_row: int = 0) -> pa.Table:
        """A worker's rows of a block, in order, as a table of the encoder's schema.

        Args:
            block: From the plan.
            world_rank: The worker.
            start_row: Positions of the epoch before it are left out (a resumed run).
        """
        positions = np.arange(block.start, block.start + block.rows, dtype=np.int64)
        mine = owned_by(positions, self.batch_size, world_rank, self.world_size) & (positions >= start_row)
        order = permutation(block, self.seed) if self.shuffle else np.arange(block.rows)
        own, positions = order[mine], positions[mine]
        keys = row_keys(self.seed, block.epoch, positions)
        # A row may take part of another one of its block, whoever trains on that one.
        partners = partners_of(keys, positions - block.start, block.rows, mixings_of(self.augmentations))
        mixed = partners >= 0
        rows = rows_in_order(self.manifest, self.split, block, np.concatenate([own, order[partners[mixed]]]))
        if mixed.any():
            rows = with_partners(rows.slice(0, len(own)), rows.slice(len(own)), mixed)
        try:
            return self.encoder.encode(rows, positions, keys, self.augmentations)
        except RowError as error:
            index = order[partners[error.row]] if error.partner else own[error.row]
            raise _unreadable(self.manifest, self.split, block, int(index), error.reason) from error

    def read_padded(self, block: Block, world_rank: int, start_row: int = 0) -> pa.Table:
        """As read, filled up with empty rows (position -1) to the length that every worker's part has."""
        table = self.read(block, world_rank, start_row)
        positions = np.arange(max(block.start, start_row), block.start + block.rows)
        counts = np.bincount(positions % self.batch_size % self.world_size, minlength=self.world_size)
        missing = int(counts.max()) - table.num_rows
        return pa.concat_tables([table, padding_rows(self.encoder.schema, missing)]) if missing else table


def rows_in_order(manifest: Manifest, split: Split, block: Block, order: npt.NDArray[np.int64]) -> pa.Table:
    """Rows of a block, not yet augmented: those of `order`, which counts through the block's fragments."""
    return pa.concat_tables([read_rows(manifest, split, f) for f in block.fragments]).take(pa.array(order))


def _unreadable(manifest: Manifest, split: Split, block: Block, index: int, reason: str) -> DataError:
    """What is told of a row that cannot be encoded; `index` counts through the block's fragments."""
    for fragment in block.fragments:
        if index < split.rows[fragment]:
            where, row = row_place(manifest, split, fragment, index)
            return DataError(f"row {row}: {reason}", param=where, hint="repair or remove such rows before training")
        index -= split.rows[fragment]
    raise AssertionError("the row is one of the block's")
