"""What every objective does: sums over targets, never means of means."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from astraml_ray.training.batching import Batch, Cut

__all__ = ["Objective", "Sums"]

Sums = npt.NDArray[np.float64]
"""What an evaluation adds up over batches and workers; its first two are the loss and the number of targets."""


class Objective(Protocol):
    """The loss and the scores of a task."""

    def collate(self, rows: pa.Table, cut: Cut) -> list[Batch]:
        """The batches of encoded rows; none without rows."""

    def empty_batch(self) -> Batch:
        """A batch without targets, for a worker that has no rows in a step but must take part in it."""

    def targets(self, batch: Batch) -> float:
        """Number of targets: what the step's loss is divided by."""

    def loss_sum(self, model: Any, batch: Batch) -> torch.Tensor:
        """Sum of the losses of a batch's targets; a scalar of at least float32."""

    def score(self, model: Any, batch: Batch) -> Sums:
        """What a batch adds to a score; as long as `sums`."""

    @property
    def sums(self) -> int:
        """Length of a score."""

    def metrics(self, sums: Sums) -> dict[str, float]:
        """The metrics of a score, by name; `loss` is one of them."""
