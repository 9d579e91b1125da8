"""One tag for each word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.nn import functional

from astraml_ray.data.encoding.schema import IGNORED
from astraml_ray.training.batching import Batch, Cut, at_least_float32, collate, empty_batch
from astraml_ray.training.objectives.entities import TagScheme, count_entities, tag_scheme
from astraml_ray.training.objectives.objective import Sums

__all__ = ["TAG_METRICS", "TokenClassification"]

TAG_METRICS = ("loss", "accuracy", "f1", "precision", "recall", "f1_macro")


@dataclass(frozen=True)
class TokenClassification:
    """Cross-entropy of a tag per word; see Objective.

    Attributes:
        tags: The tags, in the order of their ids.
        pad_id: The padding token.
    """

    tags: Sequence[str]
    pad_id: int

    @cached_property
    def scheme(self) -> TagScheme:
        """What the tags mean."""
        return tag_scheme(self.tags)

    def collate(self, rows: pa.Table, cut: Cut) -> list[Batch]:
        return collate(rows, cut, per_token=True, pad_id=self.pad_id)

    def empty_batch(self) -> Batch:
        return empty_batch(per_token=True, pad_id=self.pad_id)

    def targets(self, batch: Batch) -> float:
        return float((batch.labels != IGNORED).sum())

    def loss_sum(self, model: Any, batch: Batch) -> torch.Tensor:
        logits, labels = self._logits(model, batch).flatten(0, 1), batch.labels.flatten()
        return functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")

    def score(self, model: Any, batch: Batch) -> Sums:
        logits, labels = self._logits(model, batch), batch.labels
        loss = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")
        kept = labels != IGNORED
        right = ((logits.argmax(-1) == labels) & kept).sum()
        true, predicted = _words(labels, labels, kept), _words(logits.argmax(-1), labels, kept)
        counts = count_entities(true, predicted, self.scheme)
        return np.array([float(loss), float(kept.sum()), float(right), *counts.flatten().tolist()])

    @property
    def sums(self) -> int:
        return 3 + 3 * len(self.scheme.types)

    def metrics(self, sums: Sums) -> dict[str, float]:
        """loss, accuracy (of words), and f1, precision, recall and f1_macro of entities, as seqeval has them.

        An entity counts if its type and both ends are right. f1_macro is the mean over the types that occur. With plain
        tags (parts of speech ...) each word counts as an entity: f1 is then the accuracy, and f1_macro the tags' mean.
        """
        count = max(1.0, float(sums[1]))
        both, predicted, true = sums[3:].reshape(3, -1)
        seen = predicted + true > 0
        by_type = 2 * both[seen] / (predicted + true)[seen]
        return {
            "loss": float(sums[0]) / count,
            "accuracy": float(sums[2]) / count,
            "f1": _ratio(2 * both.sum(), (predicted + true).sum()),
            "precision": _ratio(both.sum(), predicted.sum()),
            "recall": _ratio(both.sum(), true.sum()),
            "f1_macro": float(by_type.mean()) if len(by_type) else 0.0,
        }

    def _logits(self, model: Any, batch: Batch) -> torch.Tensor:
        return at_least_float32(model(**batch.inputs).logits)


def _words(ids: torch.Tensor, labels: torch.Tensor, kept: torch.Tensor) -> Any:
    """The tag ids of the words, row after row, with -1 between rows."""
    between = torch.full_like(labels[:, :1], -1)
    places = torch.cat([kept, torch.ones_like(kept[:, :1])], 1)
    return torch.cat([ids, between], 1)[places].cpu().numpy()


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0
