"""Scoring a set: every worker scores its rows, the sums are added."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from astraml_ray.data.blocks import BlockReader
from astraml_ray.data.microbatches import local_blocks
from astraml_ray.training.batching import Cut
from astraml_ray.training.collectives import World
from astraml_ray.training.objectives.objective import Objective

__all__ = ["EvaluationRows", "evaluate"]

_CACHE_BYTES = 64 << 20


class EvaluationRows:
    """A worker's share of a validation or test set: kept in memory while it is small, read again when it is not."""

    def __init__(self, reader: BlockReader, world_rank: int) -> None:
        self._reader = reader
        self._world_rank = world_rank
        self._kept: list[pa.Table] | None = None

    def __iter__(self) -> Iterator[pa.Table]:
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[pa.Table] | None = []
        size = 0
        for table in local_blocks(self._reader, world_rank=self._world_rank):
            for start in range(0, table.num_rows, self._reader.batch_size):
                part = table.slice(start, self._reader.batch_size).combine_chunks()
                size += part.nbytes
                if kept is not None and size <= _CACHE_BYTES:
                    kept.append(part)
                else:
                    kept = None
                yield part
        self._kept = kept


@torch.inference_mode()
def evaluate(
    model: Any,
    rows: EvaluationRows,
    objective: Objective,
    world: World,
    *,
    cut: Cut,
    autocast: Callable[[], Any],
    interrupted: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
    """Metrics of a set, the same on every worker; None if a worker was interrupted.

    The model scored is world rank 0's, which is the one that is saved: each worker's BatchNorm has seen other rows.

    Args:
        model: Called without gradients, in eval mode.
        rows: This worker's share.
        objective: What is scored.
        world: The workers.
        cut: How rows are cut into batches.
        autocast: The precision's context.
        interrupted: Asked between batches; a stop must not wait for a long set.
    """
    world.share(model.buffers())
    was_training = model.training
    model.eval()
    sums = np.zeros(objective.sums)
    stopped = 0.0
    try:
        for table in rows:
            if interrupted():
                stopped = 1.0
                break
            for batch in objective.collate(table, cut):
                with autocast():
                    sums += objective.score(model, batch.pinned(world.device).to(world.device))
    finally:
        model.train(was_training)
    *total, stops = world.sum([*sums.tolist(), stopped])
    return None if stops else objective.metrics(np.array(total))
