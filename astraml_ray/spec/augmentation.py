"""Text augmentations of the training rows; validation and test rows are never touched."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from astraml_ray.spec.base import SpecModel

__all__ = ["Augmentation", "CaseNoise", "RandomDeletion", "RandomMask", "RandomSwap"]

Share = Annotated[float, Field(gt=0, le=1)]


class _Augmentation(SpecModel):
    probability: Share = 1.0
    """Chance that a row is changed at all."""


class RandomDeletion(_Augmentation):
    """Drops words; at least one stays."""

    type: Literal["random_deletion"]
    rate: Share = 0.1
    """Chance of each word to go."""


class RandomSwap(_Augmentation):
    """Swaps pairs of words."""

    type: Literal["random_swap"]
    rate: Share = 0.1
    """Swaps, as a share of the words; at least one."""


class RandomMask(_Augmentation):
    """Replaces words by the tokenizer's mask token, or its unknown token where it has none."""

    type: Literal["random_mask"]
    rate: Share = 0.1
    """Chance of each word to be masked."""


class CaseNoise(_Augmentation):
    """Flips the case of letters."""

    type: Literal["case_noise"]
    rate: Share = 0.1
    """Chance of each letter to flip."""


Augmentation = Annotated[RandomDeletion | RandomSwap | RandomMask | CaseNoise, Field(discriminator="type")]
