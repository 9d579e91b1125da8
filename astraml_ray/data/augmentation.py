"""Text augmentations: pure functions of a text and a key. Training rows only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from astraml_ray.data.keyed import uniforms
from astraml_ray.spec.augmentation import Augmentation
from astraml_ray.spec.text_augmentation import TextAugmentation

__all__ = ["AUGMENTATIONS", "augment_texts"]

_Apply = Callable[[str, float, np.uint64, int, str], str]


def _random_deletion(text: str, rate: float, key: np.uint64, stream: int, mask: str) -> str:
    words = text.split()
    draws = uniforms(key, len(words), stream)
    kept = [word for word, draw in zip(words, draws, strict=True) if draw >= rate]
    return " ".join(kept or [words[int(draws.argmax())]])


def _random_swap(text: str, rate: float, key: np.uint64, stream: int, mask: str) -> str:
    words = text.split()
    swaps = max(1, round(rate * len(words)))
    places = (uniforms(key, 2 * swaps, stream) * len(words)).astype(int)
    for first, second in zip(places[::2], places[1::2], strict=True):
        words[first], words[second] = words[second], words[first]
    return " ".join(words)


def _random_mask(text: str, rate: float, key: np.uint64, stream: int, mask: str) -> str:
    words = text.split()
    draws = uniforms(key, len(words), stream)
    return " ".join(mask if draw < rate else word for word, draw in zip(words, draws, strict=True))


def _case_noise(text: str, rate: float, key: np.uint64, stream: int, mask: str) -> str:
    draws = uniforms(key, len(text), stream)
    return "".join(c.swapcase() if draw < rate else c for c, draw in zip(text, draws, strict=True))


AUGMENTATIONS: dict[str, _Apply] = {
    "random_deletion": _random_deletion,
    "random_swap": _random_swap,
    "random_mask": _random_mask,
    "case_noise": _case_noise,
}
"""Every augmentation by its `type`."""


def augment_texts(texts: Sequence[str], keys: Any, augmentations: Sequence[Augmentation], *, mask: str) -> list[str]:
    """Applies the augmentations in order, each with its probability.

    Args:
        texts: One text per row.
        keys: One key per row, uint64 (see keyed.row_keys).
        augmentations: From the spec; those of texts are applied.
        mask: The token that stands for a masked word.

    Returns:
        As many texts; an empty or blank one stays as it is.
    """
    changed = list(texts)
    for order, augmentation in enumerate(one for one in augmentations if isinstance(one, TextAugmentation)):
        apply = AUGMENTATIONS[augmentation.type]
        for row, text in enumerate(changed):
            chance = uniforms(keys[row], 1, 2 * order)[0]
            if chance < augmentation.probability and text.strip():
                changed[row] = apply(text, augmentation.rate, keys[row], 2 * order + 1, mask)
    return changed
