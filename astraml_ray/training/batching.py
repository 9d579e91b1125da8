"""From encoded rows to tensors: a micro-batch is cut by length, so that little is computed on padding.

Cutting changes nothing but speed: losses are summed and divided by the number of targets of the whole step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from astraml_ray.data.encoding import IGNORED

if TYPE_CHECKING:
    from astraml_ray.training.collectives import World
    from astraml_ray.training.objective import Objective

__all__ = ["Batch", "collate", "count_targets", "cut_by_length", "cutting", "empty_batch", "overhead_tokens"]

_CPU_OVERHEAD_TOKENS = 96
_GPU_OVERHEAD_TOKENS = 16_384


@dataclass(frozen=True)
class Batch:
    """Tensors of one forward.

    Attributes:
        input_ids: (sequences, length), int64.
        attention_mask: (sequences, length), int64; 0 on padding.
        labels: (sequences,) classes, or (sequences, length) ids with -100 where there is no target.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        if device.type == "cpu":
            return self
        move = (
            t.pin_memory().to(device, non_blocking=True) for t in (self.input_ids, self.attention_mask, self.labels)
        )
        return Batch(*move)


def overhead_tokens(device: torch.device) -> int:
    """What one more forward and backward costs, in tokens of padding: see benchmarks/cut_by_length.py.

    The CPU's figure is measured; the GPU's is an estimate that hardly ever cuts, since kernel launches dominate there.
    """
    return _CPU_OVERHEAD_TOKENS if device.type == "cpu" else _GPU_OVERHEAD_TOKENS


def cutting(objective: Objective, batch_size: int, world: World, *, divisor: int = 1) -> dict[str, Any]:
    """How a worker's part of a micro-batch is collated: the arguments of `collate`, all but the table.

    Args:
        objective: Of the task.
        batch_size: Rows of a micro-batch over all workers.
        world: The workers.
        divisor: Cuts the part of a worker into so many parts at least.
    """
    return {
        "classification": objective.classification,
        "pad_id": objective.pad_id,
        "overhead": overhead_tokens(world.device),
        "most": max(1, math.ceil(batch_size / world.world_size / divisor)),
    }


def cut_by_length(lengths: npt.NDArray[np.int64], overhead: int, most: int) -> list[npt.NDArray[np.int64]]:
    """Groups sequences of like length: the grouping with the least padded tokens + overhead per group.

    Args:
        lengths: Tokens of each sequence.
        overhead: Cost of one more group, in tokens.
        most: Sequences in a group at most.

    Returns:
        Indices of each group, longest sequences first; together every index once.
    """
    order = np.argsort(-lengths, kind="stable")
    longest = lengths[order]
    # Groups are runs of the sorted lengths, and a run begins where the length changes (or at `most`).
    starts = [i for i in range(len(order)) if i == 0 or longest[i] != longest[i - 1] or i % most == 0]
    ends = [*starts[1:], len(order)]
    cost = [0.0] + [float("inf")] * len(starts)
    choice = [0] * (len(starts) + 1)
    for end in range(1, len(starts) + 1):
        for begin in range(end - 1, -1, -1):
            size = ends[end - 1] - starts[begin]
            if size > most and begin < end - 1:
                break
            total = cost[begin] + size * int(longest[starts[begin]]) + overhead
            if total < cost[end]:
                cost[end], choice[end] = total, begin
    groups, end = [], len(starts)
    while end:
        begin = choice[end]
        groups.append(order[starts[begin] : ends[end - 1]])
        end = begin
    return groups[::-1]


def collate(table: pa.Table, *, classification: bool, pad_id: int, overhead: int, most: int) -> list[Batch]:
    """The batches of one worker's part of a micro-batch.

    Args:
        table: Rows of ENCODED_SCHEMA; without rows there are no batches.
        classification: Labels are one class per row, not one id per token.
        pad_id: The padding token.
        overhead: See cut_by_length.
        most: Sequences of one forward at most.
    """
    lengths = _flat(table, "lengths").astype(np.int64)
    if not len(lengths):
        return []
    ids, labels = _flat(table, "input_ids"), _flat(table, "labels")
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    batches = []
    for group in cut_by_length(lengths, overhead, most):
        width = max(1, int(lengths[group].max()))
        columns = np.arange(width)
        mask = columns < lengths[group][:, None]
        index = np.where(mask, offsets[group][:, None] + columns, 0)
        input_ids = np.where(mask, ids[index] if len(ids) else pad_id, pad_id).astype(np.int64)
        targets = labels[group] if classification else np.where(mask, labels[index], IGNORED)
        batches.append(
            Batch(
                torch.from_numpy(input_ids),
                torch.from_numpy(mask.astype(np.int64)),
                torch.from_numpy(targets.astype(np.int64)),
            )
        )
    return batches


def count_targets(batches: Sequence[Batch], *, shifted: bool) -> int:
    """Targets of the loss: labels other than -100; a causal model has none at a sequence's first token."""
    return sum(int(((b.labels[:, 1:] if shifted else b.labels) != IGNORED).sum()) for b in batches)


def empty_batch(*, classification: bool, pad_id: int) -> Batch:
    """A sequence without weight, for a worker that has no rows in a step but must take part in it."""
    ids = torch.full((1, 2), pad_id)
    labels = torch.full((1,) if classification else (1, 2), IGNORED)
    return Batch(ids, torch.ones_like(ids), labels)


def _flat(table: pa.Table, name: str) -> npt.NDArray[np.int32]:
    column = table[name].combine_chunks()
    values: npt.NDArray[np.int32] = (
        (column.chunk(0) if isinstance(column, pa.ChunkedArray) and column.num_chunks else column)
        .flatten()
        .to_numpy(zero_copy_only=False)
    )
    return values
