"""The stream of a run: one Ray Data execution over the whole plan."""

from __future__ import annotations

import pickle
import random
import time
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import ray
import ray.data
import ray.train

from astraml_ray.data.blocks import BlockReader
from astraml_ray.data.encoding.schema import error_table
from astraml_ray.data.microbatches import Position
from astraml_ray.data.plan import Block, run_blocks
from astraml_ray.errors import AstraError, StorageOutageError

__all__ = ["RankDataConfig", "ray_stream"]

_TASK_CPUS = 0.25
_PAUSES = (0.5, 1.0, 2.0, 4.0)


def ray_stream(reader: BlockReader, *, epochs: int, position: Position) -> ray.data.Dataset:
    """The plan from a position on, as one Ray Data dataset.

    One task reads one block for one worker. The tasks of a block have equal numbers of rows and the order is
    preserved, so RankDataConfig deals them out to the workers in turn.
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
    world_size = reader.world_size
    shared = ray.put(pickle.dumps((reader, blocks)))

    def read(ids: dict[str, Any]) -> pa.Table:
        reader, blocks = _unpack(shared)
        index, world_rank = divmod(int(ids["id"][0]), world_size)
        block = blocks[index]
        start_row = position.row if block.epoch == position.epoch else 0
        return _read_or_report(lambda: reader.read_padded(block, world_rank, start_row), reader.encoder.schema)

    tasks = len(blocks) * world_size
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    # A task's rows stay one block: its parts must not go to different workers.
    context.target_max_block_size = None
    return ray.data.range(tasks, override_num_blocks=tasks).map_batches(
        read,
        batch_size=1,
        batch_format="numpy",
        num_cpus=_TASK_CPUS,
        compute=ray.data.TaskPoolStrategy(size=max(2, 2 * world_size)),
    )


def _read_or_report(read: Callable[[], pa.Table], schema: pa.Schema) -> pa.Table:
    """Tries again what may pass; an error that stays travels as a table, since Ray would hide its class.

    Requests to storage were tried again before, each until its deadline: not here once more.
    """
    for pause in (*_PAUSES, None):
        try:
            return read()
        except AstraError as error:
            if error.retryable and pause is not None and not isinstance(error, StorageOutageError):
                time.sleep(pause * random.uniform(0.5, 1.5))
                continue
            return error_table(error, schema)
    raise AssertionError("the last try returns")


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
