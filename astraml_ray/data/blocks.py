"""Reads a block of the plan: fragments → global order → augmentation → encoded rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from astraml_ray.data.encoding.encoder import Encoder
from astraml_ray.data.encoding.schema import head, padding_rows
from astraml_ray.data.kept_tokens import TokenKeep, widened
from astraml_ray.data.keyed import row_keys
from astraml_ray.data.manifest import Manifest, Split
from astraml_ray.data.plan import Block, owned_by, permutation
from astraml_ray.data.rows import read_rows
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
        keep: Where tokens are kept, if they are.
    """

    manifest: Manifest
    split: Split
    encoder: Encoder
    seed: int
    batch_size: int
    world_size: int
    augmentations: tuple[Augmentation, ...] = ()
    shuffle: bool = True
    keep: TokenKeep | None = None

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
        positions = positions[mine]
        if self.keep is not None:
            return self._kept(self.keep, block, order[mine], positions)
        rows = rows_in_order(self.manifest, self.split, block, order[mine])
        keys = row_keys(self.seed, block.epoch, positions)
        return self.encoder.encode(rows, positions, keys, self.augmentations)

    def _kept(
        self, keep: TokenKeep, block: Block, order: npt.NDArray[np.int64], positions: npt.NDArray[np.int64]
    ) -> pa.Table:
        """The same, from tokens that are kept."""
        schema = self.encoder.schema
        body = widened([keep.rows(self.manifest, self.split, f, self.encoder) for f in block.fragments], schema)
        return pa.table([*head(positions), *body.take(pa.array(order)).columns], schema=schema)

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
