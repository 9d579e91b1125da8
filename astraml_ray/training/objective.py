"""What is minimised and what is measured: sums over targets, never means of means."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from astraml_ray.data.encoding import IGNORED
from astraml_ray.training.batching import Batch

__all__ = ["Objective", "Score"]


@dataclass
class Score:
    """Sums of an evaluation; they add up over batches and workers.

    Attributes:
        loss: Sum of the targets' losses.
        targets: Number of targets.
        correct: Targets predicted right.
        confusion: (classes, classes) counts, true class by row; empty for language models.
    """

    loss: float
    targets: float
    correct: float
    confusion: npt.NDArray[np.float64]

    def as_list(self) -> list[float]:
        """The sums in a row, to be added over workers."""
        return [self.loss, self.targets, self.correct, *self.confusion.ravel().tolist()]

    @classmethod
    def from_list(cls, values: list[float], classes: int) -> Score:
        """The reverse of as_list."""
        return cls(values[0], values[1], values[2], np.array(values[3:]).reshape(classes, classes))

    def metrics(self) -> dict[str, float]:
        """loss and accuracy; macro F1 for classes, perplexity for language models."""
        count = max(1.0, self.targets)
        loss = self.loss / count
        metrics = {"loss": loss, "accuracy": self.correct / count}
        if self.confusion.size:
            metrics["f1_macro"] = _macro_f1(self.confusion)
        else:
            metrics["perplexity"] = math.exp(min(loss, 700.0)) if math.isfinite(loss) else loss
        return metrics


def _macro_f1(confusion: npt.NDArray[np.float64]) -> float:
    """Mean F1 of the classes that occur, in truth or in prediction."""
    seen = confusion.sum(0) + confusion.sum(1)
    return float((2 * np.diag(confusion)[seen > 0] / seen[seen > 0]).mean()) if seen.any() else 0.0


@dataclass(frozen=True)
class Objective:
    """The loss of a task.

    Attributes:
        task: The resolved task.
        classes: Number of classes; 0 for language models.
        pad_id: The padding token.
    """

    task: str
    classes: int
    pad_id: int

    @property
    def classification(self) -> bool:
        return self.task == "text-classification"

    @property
    def shifted(self) -> bool:
        """Each token is predicted from those before it."""
        return self.task == "causal-lm"

    def logits_and_targets(self, model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (targets, outputs) and labels (targets,), the ignored ones included."""
        logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        if self.classification:
            return logits, batch.labels
        if self.shifted:
            return logits[:, :-1].flatten(0, 1), batch.labels[:, 1:].flatten()
        return logits.flatten(0, 1), batch.labels.flatten()

    def loss_sum(self, model: Any, batch: Batch) -> torch.Tensor:
        """Sum of the cross-entropies of a batch's targets."""
        logits, targets = self.logits_and_targets(model, batch)
        wide = logits if logits.dtype == torch.float64 else logits.float()
        return functional.cross_entropy(wide, targets, ignore_index=IGNORED, reduction="sum")

    def empty_score(self) -> Score:
        """A score of nothing."""
        return Score(0.0, 0.0, 0.0, np.zeros((self.classes, self.classes)))

    def score(self, model: Any, batch: Batch, into: Score) -> None:
        """Adds a batch to a score."""
        logits, targets = self.logits_and_targets(model, batch)
        kept = targets != IGNORED
        logits, targets = logits[kept].float(), targets[kept]
        into.loss += float(functional.cross_entropy(logits, targets, reduction="sum"))
        into.targets += len(targets)
        predicted = logits.argmax(-1)
        into.correct += float((predicted == targets).sum())
        if self.classes:
            np.add.at(into.confusion, (targets.cpu().numpy(), predicted.cpu().numpy()), 1.0)
