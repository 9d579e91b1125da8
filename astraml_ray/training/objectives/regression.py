"""One number for each row."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from astraml_ray.training.batching import Batch, Cut, at_least_float32, collate, empty_batch
from astraml_ray.training.objectives.objective import Sums

__all__ = ["REGRESSION_METRICS", "TextRegression"]

REGRESSION_METRICS = ("loss", "rmse", "mae", "pearson", "r2")


@dataclass(frozen=True)
class TextRegression:
    """Squared error of a number per text; see Objective. The numbers are taken as they are: nothing is normalised.

    All metrics follow from sums over rows, so they are the same for any number of workers. Spearman's correlation
    goes by ranks in the whole set, which no sums tell: there is none.

    Attributes:
        pad_id: The padding token.
    """

    pad_id: int

    def collate(self, rows: pa.Table, cut: Cut) -> list[Batch]:
        return collate(rows, cut, per_token=False, pad_id=self.pad_id)

    def empty_batch(self) -> Batch:
        """Its number is none (NaN)."""
        batch = empty_batch(per_token=False, pad_id=self.pad_id)
        return Batch(batch.inputs, torch.full((1,), math.nan, dtype=torch.float64))

    def targets(self, batch: Batch) -> float:
        return float((~batch.labels.isnan()).sum())

    def loss_sum(self, model: Any, batch: Batch) -> torch.Tensor:
        predicted = self._predicted(model, batch)
        labels = batch.labels.to(predicted.dtype)
        # Not a product with a mask: nothing times NaN is NaN.
        errors = torch.where(labels.isnan(), predicted * 0, predicted - labels.nan_to_num())
        return errors.square().sum()

    def score(self, model: Any, batch: Batch) -> Sums:
        predicted, labels = self._predicted(model, batch).double(), batch.labels.double()
        kept = ~labels.isnan()
        predicted, labels = predicted[kept], labels[kept]
        errors = predicted - labels
        products = (labels, labels.square(), predicted, predicted.square(), labels * predicted)
        sums = [errors.square().sum(), kept.sum(), errors.abs().sum(), *(product.sum() for product in products)]
        return np.array([float(value) for value in sums])

    @property
    def sums(self) -> int:
        return 8

    def metrics(self, sums: Sums) -> dict[str, float]:
        """loss (mean squared error), rmse, mae, pearson and r2; the last two are 0 where they are not defined.

        Variances come from float64 sums: a relative error of about 1e-16 times the square of (mean by standard
        deviation). What a float32 model can tell apart at all, up to 1e6, is within 1e-4, and the usual within 1e-12.
        """
        squares, count, absolute, *moments = (float(value) for value in sums)
        count = max(1.0, count)
        label, labels2, predicted, predicted2, product = (moment / count for moment in moments)
        label_spread = _spread(label, labels2)
        predicted_spread = _spread(predicted, predicted2)
        both = math.sqrt(label_spread) * math.sqrt(predicted_spread)
        pearson = min(1.0, max(-1.0, (product - label * predicted) / both)) if both else 0.0
        loss = squares / count
        return {
            "loss": loss,
            "rmse": math.sqrt(loss) if loss >= 0 else loss,
            "mae": absolute / count,
            "pearson": pearson,
            "r2": 1 - loss / label_spread if label_spread else 0.0,
        }

    def _predicted(self, model: Any, batch: Batch) -> torch.Tensor:
        return at_least_float32(model(**batch.inputs).logits).squeeze(-1)


def _spread(mean: float, mean_square: float) -> float:
    """The variance; 0 where rounding leaves nothing of it."""
    variance = mean_square - mean * mean
    return variance if variance > 1e-14 * mean_square else 0.0
