"""The stream of a run: one Ray Data execution over the whole plan."""

from __future__ import annotations

import pickle
import random
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import ray
import ray.data
import ray.train
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from astraml_ray.data.blocks import BlockReader
from astraml_ray.data.microbatches import Position
from astraml_ray.data.parcels import pack, pack_error
from astraml_ray.data.plan import Block, owned_by, run_blocks
from astraml_ray.errors import AstraError, StorageOutageError

__all__ = ["RankDataConfig", "ray_stream"]

_TASK_CPUS = 0.25
_PAUSES = (0.5, 1.0, 2.0, 4.0)


def ray_stream(reader: BlockReader, *, epochs: int, position: Position) -> ray.data.Dataset:
    """The plan from a position on, as one Ray Data dataset of parcels.

    A task reads a block once, and gives it part by part: of each part a parcel per worker. The order is preserved,
    so RankDataConfig deals the parcels out to the workers in turn.
    """
    blocks = list(
        run_blocks(
            reader.split.rows,
            reader.split.sizes,
            seed=reader.seed,
            epochs=epochs,
            start_epoch=position.epoch,
            start_row=position.row,
            sampler=reader.sampler,
        )
    )
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.target_max_block_size = 1  # every parcel is a block, and comes as soon as it is made
    return ray.data.read_datasource(
        _Plan(reader, blocks, position),
        num_cpus=_TASK_CPUS,
        concurrency=_tasks(reader.world_size, ray.cluster_resources().get("CPU", 0.0)),
        override_num_blocks=len(blocks),
    )


class _Plan(Datasource):  # type: ignore[misc]
    """A task per block of a plan."""

    def __init__(self, reader: BlockReader, blocks: list[Block], position: Position) -> None:
        super().__init__()
        self._shared = ray.put(pickle.dumps((reader, blocks, position)))
        self._count = len(blocks)

    def estimate_inmemory_data_size(self) -> int | None:
        """Nobody needs to know: the plan says how many tasks there are."""
        return None

    def get_read_tasks(self, parallelism: int, *args: Any, **kwargs: Any) -> list[ReadTask]:
        """In the order of the plan."""
        unknown = BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None, input_files=None)
        return [ReadTask(partial(_read, self._shared, index), unknown) for index in range(self._count)]


def _read(shared: ray.ObjectRef, index: int) -> Iterator[pa.Table]:
    reader, blocks, position = _unpack(shared)
    start_row = position.row if blocks[index].epoch == position.epoch else 0
    yield from _parcels(reader, blocks[index], start_row, growing=index == 0)


def _parcels(reader: BlockReader, block: Block, start_row: int, *, growing: bool) -> Iterator[pa.Table]:
    """The parcels of a block, of each part one per worker in turn.

    What may pass is tried again from where it failed. Requests to storage were tried again before, each until its
    deadline: not here once more.
    """
    size, world_size = reader.batch_size, reader.world_size
    pauses, done = iter(_PAUSES), 0
    while True:
        try:
            for table in reader.read(block, start_row=start_row, growing=growing, done=done):
                positions = table["position"].to_numpy()
                for world_rank in range(world_size):
                    mine = table if world_size == 1 else table.filter(owned_by(positions, size, world_rank, world_size))
                    yield pack(mine)
                done += 1
            return
        except AstraError as error:
            pause = next(pauses, None) if error.retryable and not isinstance(error, StorageOutageError) else None
            if pause is None:
                yield from [pack_error(error)] * world_size
                return
            time.sleep(pause * random.uniform(0.5, 1.5))


def _tasks(world_size: int, cpus: float) -> int:
    """Blocks that are made at once: by half of the cluster, where that is more than two for each worker."""
    return max(2, 2 * world_size, int(cpus) // 2)


_Shared = tuple[BlockReader, list[Block], Position]
_unpacked: dict[ray.ObjectRef, _Shared] = {}


def _unpack(shared: ray.ObjectRef) -> _Shared:
    """What all tasks of a stream share, unpickled once per process."""
    if shared not in _unpacked:
        _unpacked.clear()
        _unpacked[shared] = pickle.loads(ray.get(shared))  # our own object, put by _Plan
    return _unpacked[shared]


class RankDataConfig(ray.train.DataConfig):  # type: ignore[misc]
    """Deals the parcels out in turn. Train's own splits at will and drops what does not divide."""

    def configure(
        self, datasets: dict[str, Any], world_size: int, worker_handles: Any, worker_node_ids: Any, **kwargs: Any
    ) -> list[dict[str, Any]]:
        """One iterator per worker and dataset."""
        iterators: list[dict[str, Any]] = [{} for _ in range(world_size)]
        for name, dataset in datasets.items():
            for world_rank, part in enumerate(dataset.streaming_split(world_size, equal=False)):
                iterators[world_rank][name] = part
        return iterators
