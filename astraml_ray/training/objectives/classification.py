"""One class for each row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.nn import functional

from astraml_ray.training.batching import Batch, Cut, at_least_float32, collate, empty_batch
from astraml_ray.training.objectives.objective import Sums
from astraml_ray.training.objectives.scores import macro_f1, matthews

__all__ = ["CLASS_METRICS", "TextClassification", "class_metrics", "class_sums"]

CLASS_METRICS = ("loss", "accuracy", "f1_macro", "matthews")


@dataclass(frozen=True)
class TextClassification:
    """Cross-entropy of a class per text; see Objective.

    Attributes:
        classes: Number of classes.
        pad_id: The padding token.
        smoothing: Share of each target that is spread over all classes, in training.
    """

    classes: int
    pad_id: int
    smoothing: float = 0.0

    def collate(self, rows: pa.Table, cut: Cut) -> list[Batch]:
        return collate(rows, cut, per_token=False, pad_id=self.pad_id)

    def empty_batch(self) -> Batch:
        return empty_batch(per_token=False, pad_id=self.pad_id)

    def targets(self, batch: Batch) -> float:
        return float((batch.labels >= 0).sum())

    def loss_sum(self, model: Any, batch: Batch) -> torch.Tensor:
        logits = self._logits(model, batch)
        return functional.cross_entropy(logits, batch.labels, reduction="sum", label_smoothing=self.smoothing)

    def score(self, model: Any, batch: Batch) -> Sums:
        return class_sums(self._logits(model, batch), batch.labels)

    @property
    def sums(self) -> int:
        return 2 + self.classes**2

    def metrics(self, sums: Sums) -> dict[str, float]:
        return class_metrics(sums, self.classes)

    def _logits(self, model: Any, batch: Batch) -> torch.Tensor:
        return at_least_float32(model(**batch.inputs).logits)


def class_sums(logits: torch.Tensor, labels: torch.Tensor) -> Sums:
    """Loss, targets and confusion, true class by row.

    Args:
        logits: (targets, classes).
        labels: (targets,), -100 where there is none.
    """
    kept = labels >= 0
    logits, labels = at_least_float32(logits[kept]), labels[kept]
    classes = logits.shape[-1]
    loss = float(functional.cross_entropy(logits, labels, reduction="sum"))
    cells = torch.bincount(labels * classes + logits.argmax(-1), minlength=classes**2)
    return np.array([loss, len(labels), *cells.tolist()])


def class_metrics(sums: Sums, classes: int) -> dict[str, float]:
    """loss, accuracy, f1_macro and matthews."""
    confusion = sums[2 : 2 + classes**2].reshape(classes, classes)
    count = max(1.0, sums[1])
    return {
        "loss": float(sums[0] / count),
        "accuracy": float(np.trace(confusion) / count),
        "f1_macro": macro_f1(confusion),
        "matthews": matthews(confusion),
    }
