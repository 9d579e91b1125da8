"""Tokens: the next one, or the masked ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.nn import functional

from astraml_ray.data.encoding.schema import IGNORED
from astraml_ray.training.batching import Batch, Cut, at_least_float32, collate, empty_batch
from astraml_ray.training.objectives.objective import Sums

__all__ = ["LANGUAGE_METRICS", "LanguageModel"]

LANGUAGE_METRICS = ("loss", "accuracy", "perplexity")


@dataclass(frozen=True)
class LanguageModel:
    """Cross-entropy of tokens; see Objective.

    Attributes:
        pad_id: The padding token.
        causal: Each token is predicted from those before it; else the labels stand at their own places.
    """

    pad_id: int
    causal: bool

    def collate(self, rows: pa.Table, cut: Cut) -> list[Batch]:
        return collate(rows, cut, per_token=True, pad_id=self.pad_id)

    def empty_batch(self) -> Batch:
        return empty_batch(per_token=True, pad_id=self.pad_id)

    def targets(self, batch: Batch) -> float:
        """A causal model has none at a sequence's first token."""
        return float((self._labels(batch) != IGNORED).sum())

    def loss_sum(self, model: Any, batch: Batch) -> torch.Tensor:
        logits, labels = self._logits(model, batch), self._labels(batch).flatten()
        return functional.cross_entropy(at_least_float32(logits), labels, ignore_index=IGNORED, reduction="sum")

    def score(self, model: Any, batch: Batch) -> Sums:
        logits, labels = self._logits(model, batch), self._labels(batch).flatten()
        kept = labels != IGNORED
        logits, labels = at_least_float32(logits[kept]), labels[kept]
        loss = float(functional.cross_entropy(logits, labels, reduction="sum"))
        return np.array([loss, len(labels), float((logits.argmax(-1) == labels).sum())])

    @property
    def sums(self) -> int:
        return 3

    def metrics(self, sums: Sums) -> dict[str, float]:
        loss, count, correct = (float(value) for value in sums)
        loss /= max(1.0, count)
        perplexity = math.exp(min(loss, 700.0)) if math.isfinite(loss) else loss
        return {"loss": loss, "accuracy": correct / max(1.0, count), "perplexity": perplexity}

    def _logits(self, model: Any, batch: Batch) -> torch.Tensor:
        logits: torch.Tensor = model(**batch.inputs).logits
        return (logits[:, :-1] if self.causal else logits).flatten(0, 1)

    def _labels(self, batch: Batch) -> torch.Tensor:
        return batch.labels[:, 1:] if self.causal else batch.labels
