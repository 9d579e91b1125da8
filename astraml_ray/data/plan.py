"""The plan: which rows come when. Pure functions of counts, seed and position; no I/O, no Ray.

The rows of an epoch have one global order. The order follows from (seed, epoch) alone: fragments are shuffled,
neighbours form a **shuffle block**, and a block's rows are permuted together. Workers take their rows out of that
order by position, so the order is the same for any number of workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from astraml_ray.data.sampling import Sampler

__all__ = ["Block", "Positions", "block_parts", "epoch_blocks", "owned_by", "permutation", "run_blocks"]

BLOCK_BYTES = 32 << 20
PART_BYTES, MOST_PART_BYTES = 4 << 20, 32 << 20
MIN_FRAGMENTS = 4
_FRAGMENT_STREAM, _ROW_STREAM = 1, 2
Positions = npt.NDArray[np.int64]
"""Places of rows in an epoch's global order."""


@dataclass(frozen=True)
class Block:
    """A shuffle block of an epoch.

    Attributes:
        epoch: From 0.
        index: From 0, in the epoch.
        fragments: Indices of its fragments in the split, in the order they are read.
        start: Position of its first row in the epoch's global order.
        rows: Rows in it.
        visits: Where classes are sampled: of each fragment, which visit of how many this is.
    """

    epoch: int
    index: int
    fragments: tuple[int, ...]
    start: int
    rows: int
    visits: tuple[tuple[int, int], ...] = ()


def epoch_blocks(
    rows: Sequence[int],
    sizes: Sequence[int],
    *,
    seed: int,
    epoch: int,
    shuffle: bool = True,
    block_bytes: int = BLOCK_BYTES,
) -> list[Block]:
    """The blocks of one epoch; together they hold every row once.

    Args:
        rows: Rows of each fragment.
        sizes: Bytes of each fragment.
        seed: Of the run.
        epoch: From 0.
        shuffle: False keeps the order of the files (validation and test).
        block_bytes: A block is closed once it holds so much, and at least 4 fragments.
    """
    order: Positions = np.arange(len(rows))
    # A dataset of one block is permuted as a whole: its order is then the same in every format and fragmentation.
    if shuffle and len(rows) >= MIN_FRAGMENTS and sum(sizes) >= block_bytes:
        order = np.random.default_rng([seed, epoch, _FRAGMENT_STREAM]).permutation(order)
    blocks: list[Block] = []
    members: list[int] = []
    start = count = size = 0
    for fragment in (f for f in order.tolist() if rows[f]):
        members.append(fragment)
        count += rows[fragment]
        size += sizes[fragment]
        if size >= block_bytes and len(members) >= MIN_FRAGMENTS:
            blocks.append(Block(epoch, len(blocks), tuple(members), start, count))
            start, members, count, size = start + count, [], 0, 0
    if members:
        blocks.append(Block(epoch, len(blocks), tuple(members), start, count))
    return blocks


def run_blocks(
    rows: Sequence[int],
    sizes: Sequence[int],
    *,
    seed: int,
    epochs: int,
    start_epoch: int = 0,
    start_row: int = 0,
    block_bytes: int = BLOCK_BYTES,
    sampler: Sampler | None = None,
) -> Iterator[Block]:
    """The blocks of a run from a position on; blocks wholly before it are left out. A sampler draws the rows."""
    for epoch in range(start_epoch, epochs):
        skipped = start_row if epoch == start_epoch else 0
        if sampler is None:
            blocks = epoch_blocks(rows, sizes, seed=seed, epoch=epoch, block_bytes=block_bytes)
        else:
            blocks = sampler.blocks(sizes, epoch=epoch, block_bytes=block_bytes)
        for block in blocks:
            if block.start + block.rows > skipped:
                yield block


def block_parts(
    block: Block,
    sizes: Sequence[int],
    *,
    batch_size: int,
    world_size: int = 1,
    row_bytes: int = 0,
    start_row: int = 0,
    growing: bool = False,
) -> Iterator[Positions]:
    """Positions of a block's rows in the epoch, in parts of whole batches and of about PART_BYTES for each worker.

    Args:
        block: From the plan.
        sizes: Bytes of each fragment.
        batch_size: Rows of a global batch.
        world_size: Workers that share each part.
        row_bytes: Of an encoded row, where it is known: an image is small until it is decoded.
        start_row: Positions before it are left out (a resumed run).
        growing: The first part is small and each following one twice as large, so that the first rows come soon.
    """
    size = sum(sizes[fragment] for fragment in block.fragments)
    row_size = max(1, size // block.rows, row_bytes)
    most = batch_size * max(1, min(world_size * PART_BYTES, MOST_PART_BYTES) // row_size // batch_size)
    start, stop = max(block.start, start_row), block.start + block.rows
    rows = min(most, 2 * batch_size) if growing else most
    while start < stop:
        yield np.arange(start, min(start + rows, stop), dtype=np.int64)
        start, rows = start + rows, min(most, 2 * rows)


def permutation(block: Block, seed: int) -> Positions:
    """Order of a block's rows: row `permutation[i]` of its fragments stands at position `start + i`."""
    generator = np.random.default_rng([seed, block.epoch, _ROW_STREAM, block.index])
    order: Positions = generator.permutation(block.rows)
    return order


def owned_by(positions: Positions, batch_size: int, world_rank: int, world_size: int) -> npt.NDArray[np.bool_]:
    """Which positions of an epoch a worker trains on: within each batch, every world_size-th row."""
    mask: npt.NDArray[np.bool_] = positions % batch_size % world_size == world_rank
    return mask
