"""One class for each image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch.nn import functional

from astraml_ray.data.encoding.images import ImageEncoder, pixels_of
from astraml_ray.data.encoding.schema import IGNORED
from astraml_ray.spec.augmentation import Augmentation
from astraml_ray.training.batching import Batch, Cut, at_least_float32
from astraml_ray.training.objectives.classification import class_metrics, class_sums
from astraml_ray.training.objectives.objective import Sums

__all__ = ["IMAGE_METRICS", "ImageClassification"]

IMAGE_METRICS = ("loss", "accuracy", "f1_macro", "matthews", "top5_accuracy")
_TOP = 5


@dataclass(frozen=True)
class ImageClassification:
    """Cross-entropy of a class per image; see Objective.

    A batch moves one byte a channel; the device brings them to what the model takes. Where a model has BatchNorm,
    its statistics are those of each forward: of one worker's part of a micro-batch.

    Attributes:
        classes: Number of classes.
        encoder: What made the rows.
        augmentations: Of training rows, done here where the encoder leaves them to the device.
        smoothing: Share of each target that is spread over all classes, in training.
    """

    classes: int
    encoder: ImageEncoder
    augmentations: tuple[Augmentation, ...] = ()
    smoothing: float = 0.0

    def collate(self, rows: pa.Table, cut: Cut) -> list[Batch]:
        if not rows.num_rows:
            return []
        arrays = {"pixels": self._pixels_of(rows, "image")}
        if self.encoder.mixes:
            arrays["partner_labels"] = rows["partner_label"].to_numpy().astype(np.int64)
            arrays["partner_weights"] = rows["partner_weight"].to_numpy()
        if self.encoder.on_device and not rows["key"].null_count:
            arrays |= self._for_the_device(rows, rows["key"].to_numpy())
        labels = rows["label"].to_numpy().astype(np.int64)
        # Parts of like size: a small rest would have poor statistics under BatchNorm.
        parts = np.array_split(np.arange(rows.num_rows), math.ceil(rows.num_rows / cut.most))
        return [_batch({name: array[part] for name, array in arrays.items()}, labels[part]) for part in parts]

    def empty_batch(self) -> Batch:
        shape = (1, self.encoder.height, self.encoder.width, 3)
        return _batch({"pixels": np.zeros(shape, np.uint8)}, np.array([IGNORED]))

    def targets(self, batch: Batch) -> float:
        return float((batch.labels >= 0).sum())

    def loss_sum(self, model: Any, batch: Batch) -> torch.Tensor:
        """A mixed image has two classes, by their weights; together they are one target."""
        logits, labels = self._logits(model, batch), batch.labels
        if "partner_labels" not in batch.inputs:
            return functional.cross_entropy(logits, labels, reduction="sum", label_smoothing=self.smoothing)
        weights = batch.inputs["partner_weights"]
        losses, others = (
            functional.cross_entropy(logits, one, reduction="none", label_smoothing=self.smoothing)
            for one in (labels, torch.where(labels >= 0, batch.inputs["partner_labels"], IGNORED))
        )
        return ((1 - weights) * losses + weights * others).sum()

    def score(self, model: Any, batch: Batch) -> Sums:
        logits = self._logits(model, batch)
        kept = batch.labels >= 0
        best = logits[kept].float().topk(min(_TOP, self.classes)).indices
        hits = float((best == batch.labels[kept, None]).any(-1).sum())
        return np.array([*class_sums(logits, batch.labels), hits])

    @property
    def sums(self) -> int:
        return 3 + self.classes**2

    def metrics(self, sums: Sums) -> dict[str, float]:
        found = class_metrics(sums[:-1], self.classes)
        return {**found, "top5_accuracy": float(sums[-1] / max(1.0, sums[1]))} if self.classes > _TOP else found

    def _pixels_of(self, rows: pa.Table, name: str) -> npt.NDArray[Any]:
        return pixels_of(rows, name, self.encoder.height, self.encoder.width)

    def _for_the_device(self, rows: pa.Table, keys: npt.NDArray[np.uint64]) -> dict[str, npt.NDArray[Any]]:
        """The random numbers, drawn here: the device only computes with them."""
        from astraml_ray.data.images.augmentation import draw, partner_draw, pixel_augmentations

        single = pixel_augmentations(self.augmentations)
        arrays: dict[str, npt.NDArray[Any]] = {"draws": draw(keys, single)}
        if self.encoder.mixes:
            mixtures = rows["mixture"].combine_chunks()
            mixtures = pa.concat_arrays(mixtures.chunks) if isinstance(mixtures, pa.ChunkedArray) else mixtures
            arrays["mixtures"] = mixtures.flatten().to_numpy().reshape(-1, 5)
            arrays["partners"] = self._pixels_of(rows, "partner_image")
            arrays["partner_draws"] = partner_draw(keys, single)
        return arrays

    def _pixels(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        if "draws" not in inputs:
            return inputs["pixels"]
        from astraml_ray.data.images.augmentation import augment_pixels, mix_pixels, pixel_augmentations

        single = pixel_augmentations(self.augmentations)
        with torch.autocast(inputs["pixels"].device.type, enabled=False):
            pixels = augment_pixels(inputs["pixels"], inputs["draws"], single)
            if "partners" not in inputs:
                return pixels
            partners = augment_pixels(inputs["partners"], inputs["partner_draws"], single)
            return mix_pixels(pixels, partners, inputs["mixtures"])

    def _logits(self, model: Any, batch: Batch) -> torch.Tensor:
        pixels = self._pixels(batch.inputs).permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(c, device=pixels.device).view(3, 1, 1) for c in (self.encoder.mean, self.encoder.std))
        return at_least_float32(model(pixel_values=(pixels - mean) / std).logits)


def _batch(arrays: dict[str, npt.NDArray[Any]], labels: npt.NDArray[np.int64]) -> Batch:
    """A lone image gets a twin without a target, since BatchNorm cannot do with one value of a channel."""
    if len(labels) == 1:
        arrays = {name: array[[0, 0]] for name, array in arrays.items()}
        labels = np.array([labels[0], IGNORED])
    return Batch({name: torch.from_numpy(array) for name, array in arrays.items()}, torch.from_numpy(labels))
