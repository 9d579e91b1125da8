"""What workers tell each other: a few numbers a step. A world of one needs no process group."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
import torch.distributed as dist

__all__ = ["World"]


@dataclass(frozen=True)
class World:
    """This worker's place among the workers.

    Attributes:
        world_rank: From 0.
        world_size: Workers in all.
        device: Where this worker computes.
    """

    world_rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def sum(self, values: list[float]) -> list[float]:
        """Element-wise sum over all workers, in float64; every worker gets the same answer."""
        if self.world_size == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        result: list[float] = tensor.tolist()
        return result

    def share(self, tensors: Iterable[torch.Tensor]) -> None:
        """Gives world rank 0's values to all workers, in place."""
        if self.world_size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def barrier(self) -> None:
        """Waits for all workers."""
        self.sum([0.0])
