"""Text augmentations of the training rows; validation and test rows are never touched."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from astraml_ray.spec.base import SpecModel

__all__ = ["PRESETS", "Augmentation", "CaseNoise", "RandomDeletion", "RandomMask", "RandomSwap"]

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


def _preset(rate: float, probability: float) -> tuple[Augmentation, ...]:
    return (
        RandomDeletion(type="random_deletion", rate=rate, probability=probability),
        RandomSwap(type="random_swap", rate=rate, probability=probability),
        CaseNoise(type="case_noise", rate=rate / 2, probability=probability),
    )


PRESETS: dict[str, tuple[Augmentation, ...]] = {
    "light": _preset(0.05, 0.3),
    "medium": _preset(0.1, 0.5),
    "strong": (*_preset(0.2, 0.8), RandomMask(type="random_mask", rate=0.1, probability=0.5)),
}
"""Augmentations to begin with, by a name."""
