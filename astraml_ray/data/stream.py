"""The stream of a run: one Ray Data execution over the whole plan, or the same rows read in this process."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data
import ray.train

from astraml_ray.data.blocks import BlockReader
from astraml_ray.data.encoding import ENCODED_SCHEMA
from astraml_ray.data.plan import Block, epoch_blocks, owned_by, run_blocks

__all__ = ["MicroBatch", "Position", "RankDataConfig", "local_blocks", "micro_batches", "ray_stream"]

_TASK_CPUS = 0.25


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
        table: This worker's rows, of ENCODED_SCHEMA; possibly none.
    """

    epoch: int
    start: int
    rows: int
    table: pa.Table


def ray_stream(reader: BlockReader, *, epochs: int, position: Position) -> ray.data.Dataset:
    """The plan from a position on, as one Ray Data dataset.

    One task reads one block for one worker. The tasks of a block have equal numbers of rows and the order is
    preserved, so RankDataConfig deals them out to the workers in turn.
    """
    blocks = list(
        run_blocks(
            reader.split.rows, reader.split.sizes, seed=reader.seed, epochs=epochs,
            start_epoch=position.epoch, start_row=position.row,
        )
    )
    world_size = reader.world_size
    shared = ray.put(pickle.dumps((reader, blocks)))

    def read(ids: dict[str, Any]) -> pa.Table:
        reader, blocks = _unpack(shared)
        index, world_rank = divmod(int(ids["id"][0]), world_size)
        block = blocks[index]
        return reader.read_padded(block, world_rank, position.row if block.epoch == position.epoch else 0)

    tasks = len(blocks) * world_size
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    # A task's rows stay one block: its parts must not go to different workers.
    context.target_max_block_size = None
    return ray.data.range(tasks, override_num_blocks=tasks).map_batches(
        read, batch_size=1, batch_format="numpy", num_cpus=_TASK_CPUS, concurrency=max(2, 2 * world_size)
    )


_unpacked: dict[ray.ObjectRef, tuple[BlockReader, list[Block]]] = {}


def _unpack(reference: ray.ObjectRef) -> tuple[BlockReader, list[Block]]:
    """The reader and the plan, unpickled once per process."""
    if reference not in _unpacked:
        _unpacked.clear()
        _unpacked[reference] = pickle.loads(ray.get(reference))  # our own object, put by ray_stream
    return _unpacked[reference]


class RankDataConfig(ray.train.DataConfig):  # type: ignore[misc]
    """Deals the tasks' blocks out in turn. Train's own splits at will and drops what does not divide."""

    def configure(
        self, datasets: dict[str, Any], world_size: int, worker_handles: Any, worker_node_ids: Any, **kwargs: Any
    ) -> list[dict[str, Any]]:
        """One iterator per worker and dataset."""
        iterators: list[dict[str, Any]] = [{} for _ in range(world_size)]
        for name, dataset in datasets.items():
            for world_rank, part in enumerate(dataset.streaming_split(world_size, equal=False)):
                iterators[world_rank][name] = part
        return iterators


def local_blocks(
    reader: BlockReader, *, epochs: int = 1, world_rank: int = 0, position: Position | None = None
) -> Iterator[pa.Table]:
    """The same tables as ray_stream's, read in this process; also how validation and test rows are read."""
    position = position or Position()
    rows, sizes = reader.split.rows, reader.split.sizes
    if reader.shuffle:
        blocks: Iterable[Block] = run_blocks(
            rows, sizes, seed=reader.seed, epochs=epochs, start_epoch=position.epoch, start_row=position.row
        )
    else:
        blocks = epoch_blocks(rows, sizes, seed=reader.seed, epoch=0, shuffle=False)
    for block in blocks:
        yield reader.read(block, world_rank, position.row if block.epoch == position.epoch else 0)


def micro_batches(
    tables: Iterable[pa.Table], *, rows_per_epoch: int, batch_size: int, epochs: int, world_rank: int = 0,
    world_size: int = 1, position: Position | None = None,
) -> Iterator[MicroBatch]:
    """Cuts a worker's tables into its parts of the global batches, and checks every row's position.

    Raises:
        RuntimeError: The stream lost, repeated or misplaced a row.
    """
    position = position or Position()
    source = _Rows(tables)
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

    def __init__(self, tables: Iterable[pa.Table]) -> None:
        self._tables = iter(tables)
        self._rest = ENCODED_SCHEMA.empty_table()

    def take(self, count: int) -> pa.Table:
        parts, missing = [], count
        while missing > self._rest.num_rows:
            parts.append(self._rest)
            missing -= self._rest.num_rows
            following = next(self._tables, None)
            if following is None:
                raise RuntimeError(f"the stream ended {missing} rows early")
            self._rest = following.filter(pc.greater_equal(following["position"], 0))
        parts.append(self._rest.slice(0, missing))
        self._rest = self._rest.slice(missing)
        return pa.concat_tables(parts).combine_chunks()


