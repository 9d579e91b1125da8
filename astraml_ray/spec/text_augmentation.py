"""Augmentations of texts."""

from __future__ import annotations

from typing import Literal

from astraml_ray.spec.augmentation_base import BaseAugmentation, Share

__all__ = ["TEXT_PRESETS", "CaseNoise", "RandomDeletion", "RandomMask", "RandomSwap", "TextAugmentation"]


class RandomDeletion(BaseAugmentation):
    """Drops words; at least one stays."""

    type: Literal["random_deletion"]
    rate: Share = 0.1
    """Chance of each word to go."""


class RandomSwap(BaseAugmentation):
    """Swaps pairs of words."""

    type: Literal["random_swap"]
    rate: Share = 0.1
    """Swaps, as a share of the words; at least one."""


class RandomMask(BaseAugmentation):
    """Replaces words by the tokenizer's mask token, or its unknown token where it has none."""

    type: Literal["random_mask"]
    rate: Share = 0.1
    """Chance of each word to be masked."""


class CaseNoise(BaseAugmentation):
    """Flips the case of letters."""

    type: Literal["case_noise"]
    rate: Share = 0.1
    """Chance of each letter to flip."""


TextAugmentation = RandomDeletion | RandomSwap | RandomMask | CaseNoise


def _preset(rate: float, probability: float) -> tuple[TextAugmentation, ...]:
    return (
        RandomDeletion(type="random_deletion", rate=rate, probability=probability),
        RandomSwap(type="random_swap", rate=rate, probability=probability),
        CaseNoise(type="case_noise", rate=rate / 2, probability=probability),
    )


TEXT_PRESETS: dict[str, tuple[TextAugmentation, ...]] = {
    "light": _preset(0.05, 0.3),
    "medium": _preset(0.1, 0.5),
    "strong": (*_preset(0.2, 0.8), RandomMask(type="random_mask", rate=0.1, probability=0.5)),
}
"""By name."""
