"""From encoded rows to tensors: a micro-batch is cut by length, so that little is computed on padding.

Cutting changes nothing but speed: losses are summed and divided by the number of targets of the whole step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from astraml_ray.data.encoding.schema import IGNORED

if TYPE_CHECKING:
    from astraml_ray.training.collectives import World

__all__ = ["Batch", "Cut", "at_least_float32", "collate", "cut_by_length", "cutting", "empty_batch"]

_CPU_OVERHEAD_TOKENS = 96
_GPU_OVERHEAD_TOKENS = 16_384


@dataclass(frozen=True)
class Batch:
    """Tensors of one forward.

    Attributes:
        inputs: What the model takes, by name; the first dimension is the sequence or the image.
        labels: What the objective takes: (sequences,) classes, (sequences, length) ids with -100 where there is no
            target, or as it says.
    """

    inputs: dict[str, torch.Tensor]
    labels: torch.Tensor

    def pinned(self, device: torch.device) -> Batch:
        """The same in memory from which a device takes it without a stop."""
        return self if device.type == "cpu" else self._each(torch.Tensor.pin_memory)

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return self if device.type == "cpu" else self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        return Batch({name: change(tensor) for name, tensor in self.inputs.items()}, change(self.labels))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the largest input."""
        return max((tuple(tensor.shape) for tensor in self.inputs.values()), key=math.prod)


@dataclass(frozen=True)
class Cut:
    """How a worker's part of a micro-batch is cut into batches.

    Attributes:
        overhead: Cost of one more batch, in tokens of padding; see cut_by_length.
        most: Sequences or images of one batch at most.
    """

    overhead: int
    most: int


def overhead_tokens(device: torch.device) -> int:
    """What one more forward and backward costs, in tokens of padding: see benchmarks/cut_by_length.py.

    The CPU's figure is measured; the GPU's is an estimate that hardly ever cuts, since kernel launches dominate there.
    """
    return _CPU_OVERHEAD_TOKENS if device.type == "cpu" else _GPU_OVERHEAD_TOKENS


def cutting(batch_size: int, world: World, *, divisor: int = 1) -> Cut:
    """How a worker's part of a micro-batch is cut.

    Args:
        batch_size: Rows of a micro-batch over all workers.
        world: The workers.
        divisor: Cuts the part of a worker into so many parts at least.
    """
    return Cut(overhead_tokens(world.device), max(1, math.ceil(batch_size / world.world_size / divisor)))


def cut_by_length(lengths: npt.NDArray[np.int64], overhead: int, most: int) -> list[npt.NDArray[np.int64]]:
    """Groups sequences of like length: the grouping with the least padded tokens + overhead per group.

    Args:
        lengths: Tokens of each sequence.
        overhead: Cost of one more group, in tokens.
        most: Sequences in a group at most.

    Returns:
        Indices of each group, longest sequences first, or all as they are; together every index once.
    """
    if len(lengths) <= most and len(lengths) * int(lengths.max()) - int(lengths.sum()) <= overhead:
        return [np.arange(len(lengths))]  # to cut would save at most the padding, and cost the overhead
    order = np.argsort(-lengths, kind="stable")
    longest = lengths[order].tolist()
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
            total = cost[begin] + size * longest[starts[begin]] + overhead
            if total < cost[end]:
                cost[end], choice[end] = total, begin
    groups, end = [], len(starts)
    while end:
        begin = choice[end]
        groups.append(order[starts[begin] : ends[end - 1]])
        end = begin
    return groups[::-1]


def collate(rows: pa.Table, cut: Cut, *, per_token: bool, pad_id: int) -> list[Batch]:
    """The batches of one worker's part of a micro-batch of texts.

    Args:
        rows: Of a schema of encoding.sequences; without rows there are no batches.
        cut: How they are cut.
        per_token: Labels are one id per token, not one value per row.
        pad_id: The padding token.
    """
    lengths = _flat(rows, "lengths").astype(np.int64)
    if not len(lengths):
        return []
    labels = _flat(rows, "labels")
    fillings = {"input_ids": pad_id, **({"token_type_ids": 0} if "token_type_ids" in rows.column_names else {})}
    values = {name: _flat(rows, name) for name in fillings}
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    batches = []
    for group in cut_by_length(lengths, cut.overhead, cut.most):
        width = max(1, int(lengths[group].max()))
        columns = np.arange(width)
        mask = columns < lengths[group][:, None]
        index = (offsets[group][:, None] + columns)[mask]
        targets = _padded(labels, index, mask, IGNORED) if per_token else labels[group]
        inputs = {
            name: torch.from_numpy(_padded(values[name], index, mask, filling)) for name, filling in fillings.items()
        }
        inputs["attention_mask"] = torch.from_numpy(mask.astype(np.int64))
        kind = np.float64 if labels.dtype.kind == "f" else np.int64
        batches.append(Batch(inputs, torch.from_numpy(targets.astype(kind))))
    return batches


def empty_batch(*, per_token: bool, pad_id: int) -> Batch:
    """A sequence without a target."""
    ids = torch.full((1, 2), pad_id)
    return Batch(
        {"input_ids": ids, "attention_mask": torch.ones_like(ids)},
        torch.full_like(ids, IGNORED) if per_token else torch.tensor([IGNORED]),
    )


def at_least_float32(logits: torch.Tensor) -> torch.Tensor:
    """Losses are summed in float32, or in float64 where the model has it."""
    return logits if logits.dtype == torch.float64 else logits.float()


def _padded(
    values: npt.NDArray[Any], index: npt.NDArray[np.int64], mask: npt.NDArray[np.bool_], filling: int
) -> npt.NDArray[np.int64]:
    """Values at an index, in the places of a mask."""
    padded = np.full(mask.shape, filling, np.int64)
    padded[mask] = values[index]
    return padded


def _flat(rows: pa.Table, name: str) -> npt.NDArray[Any]:
    """The values of a column of lists, one list after the other."""
    column = rows[name]
    lists = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    bounds = lists.offsets
    values: npt.NDArray[Any] = lists.values.to_numpy(zero_copy_only=False)
    return values[bounds[0].as_py() : bounds[-1].as_py()]
