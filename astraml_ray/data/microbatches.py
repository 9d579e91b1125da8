"""From a plan to the micro-batches of a worker: the same rows whether Ray Data brings them or this process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from astraml_ray.data.blocks import BlockReader
from astraml_ray.data.plan import Block, epoch_blocks, owned_by, run_blocks

__all__ = ["MicroBatch", "Position", "local_blocks", "micro_batches"]


@dataclass(frozen=True)
class Position:
    """Where a run stands: `row` rows of `epoch` are done. Always at the start of a micro-batch."""

    epoch: int = 0
    row: int = 0


@dataclass(frozen=True)
class MicroBatch:
    """One worker's part of a global batch.

    Attributes:
        epoch: From 0.
        start: Position of the batch's first row in the epoch.
        rows: Rows of the batch over all workers; fewer than the batch size at an epoch's end.
        table: This worker's rows, encoded; possibly none.
    """

    epoch: int
    start: int
    rows: int
    table: pa.Table


def local_blocks(
    reader: BlockReader, *, epochs: int = 1, world_rank: int = 0, position: Position | None = None
) -> Iterator[pa.Table]:
    """The same rows as ray_stream's, read in this process; also how validation and test rows are read."""
    position = position or Position()
    rows, sizes = reader.split.rows, reader.split.sizes
    if reader.shuffle:
        blocks: Iterable[Block] = run_blocks(
            rows,
            sizes,
            seed=reader.seed,
            epochs=epochs,
            start_epoch=position.epoch,
            start_row=position.row,
            sampler=reader.sampler,
        )
    else:
        blocks = epoch_blocks(rows, sizes, seed=reader.seed, epoch=0, shuffle=False)
    for index, block in enumerate(blocks):
        start_row = position.row if block.epoch == position.epoch else 0
        yield from reader.read(block, world_rank=world_rank, start_row=start_row, growing=index == 0)


def micro_batches(
    tables: Iterable[pa.Table],
    *,
    schema: pa.Schema,
    rows_per_epoch: int,
    batch_size: int,
    epochs: int,
    world_rank: int = 0,
    world_size: int = 1,
    position: Position | None = None,
) -> Iterator[MicroBatch]:
    """Cuts a worker's tables, of one schema, into its parts of the global batches, and checks every row's position.

    Raises:
        RuntimeError: The stream lost, repeated or misplaced a row.
    """
    position = position or Position()
    source = _Rows(tables, schema)
    for epoch in range(position.epoch, epochs):
        first = position.row if epoch == position.epoch else 0
        for start in range(first, rows_per_epoch, batch_size):
            stop = min(start + batch_size, rows_per_epoch)
            expected = np.arange(start, stop, dtype=np.int64)
            expected = expected[owned_by(expected, batch_size, world_rank, world_size)]
            table = source.take(len(expected))
            if not np.array_equal(table["position"].to_numpy(), expected):
                raise RuntimeError(f"rows {start} to {stop} of epoch {epoch} did not arrive as planned")
            yield MicroBatch(epoch, start, stop - start, table)


class _Rows:
    """Takes rows off a stream of tables."""

    def __init__(self, tables: Iterable[pa.Table], schema: pa.Schema) -> None:
        self._tables = iter(tables)
        self._rest = schema.empty_table()

    def take(self, count: int) -> pa.Table:
        parts, missing = [], count
        while missing > self._rest.num_rows:
            parts.append(self._rest)
            missing -= self._rest.num_rows
            following = next(self._tables, None)
            if following is None:
                raise RuntimeError(f"the stream ended {missing} rows early")
            self._rest = following
        parts.append(self._rest.slice(0, missing))
        self._rest = self._rest.slice(missing)
        return pa.concat_tables(parts).combine_chunks()
