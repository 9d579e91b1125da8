"""Mixtures of two images: which row takes part of which other row of its shuffle block, and how much of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from astraml_ray.data.keyed import uniforms_of
from astraml_ray.data.partners import partners
from astraml_ray.spec.augmentation import Augmentation
from astraml_ray.spec.image_augmentation import Mixing

__all__ = ["PARTNER_STREAM", "draw_mixtures", "mixings_of", "partners_of", "weights_of_partners"]

PARTNER_STREAM = (1 << 22) + 1
_STREAM = PARTNER_STREAM + 1
Keys = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]


def mixings_of(augmentations: Sequence[Augmentation]) -> list[Mixing]:
    """Those that mix two images."""
    return [one for one in augmentations if isinstance(one, Mixing)]


def partners_of(
    keys: Keys, places: npt.NDArray[np.int64], rows: int, mixings: Sequence[Mixing]
) -> npt.NDArray[np.int64]:
    """The place of each row's partner in its block, never its own; -1 where a row is not mixed.

    Args:
        keys: (n,), of the rows.
        places: (n,), of the rows in their block.
        rows: Of the block.
        mixings: From the spec.

    Returns:
        (n,).
    """
    if not mixings:
        return np.full(len(keys), -1)
    found = partners(places, keys, rows)
    mixed = (_chosen(keys, mixings) >= 0) & (found != places)
    chosen: Indices = np.where(mixed, found, -1)
    return chosen


def draw_mixtures(
    keys: Keys, mixed: npt.NDArray[np.bool_], mixings: Sequence[Mixing], height: int, width: int
) -> npt.NDArray[np.float32]:
    """How each image is mixed with its partner.

    MixUp's part is the whole image; CutMix's has opacity 1; without a mixture it is empty.

    Args:
        keys: (rows,).
        mixed: (rows,), whether there is a partner.
        mixings: From the spec.
        height: Of the images, in pixels.
        width: Of the images, in pixels.

    Returns:
        (rows, 5): top, bottom, left and right of a part, in pixels, and its opacity, from 0 to 1.
    """
    found = np.zeros((len(keys), 5), np.float32)
    chosen, centres = _chosen(keys, mixings), uniforms_of(keys, 2, _STREAM + 1)
    for row in np.flatnonzero(mixed):
        one = mixings[chosen[row]]
        share = np.random.default_rng([int(keys[row]), _STREAM]).beta(one.alpha, one.alpha)
        if one.type == "mixup":
            found[row] = 0, height, 0, width, min(share, 1 - share)  # the row's own class stays the heavier one
            continue
        high, wide = height * np.sqrt(share), width * np.sqrt(share)
        top, left = centres[row, 0] * height - high / 2, centres[row, 1] * width - wide / 2
        edges = [top, top + high, left, left + wide]
        found[row] = *np.rint(np.clip(edges, 0, [height, height, width, width])), 1
    return found


def weights_of_partners(mixtures: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.float32]:
    """The partner's share of each target: its part of the area, times the opacity.

    Args:
        mixtures: (rows, 5), see draw_mixtures.
        height: Of the images, in pixels.
        width: Of the images, in pixels.

    Returns:
        (rows,), from 0 to 1.
    """
    top, bottom, left, right, opacity = mixtures.T
    weights: npt.NDArray[np.float32] = ((bottom - top) * (right - left) / (height * width) * opacity).astype(np.float32)
    return weights


def _chosen(keys: Keys, mixings: Sequence[Mixing]) -> npt.NDArray[np.int64]:
    """Which mixture each row takes; -1 is none."""
    bounds = np.cumsum([one.probability for one in mixings])
    places = np.searchsorted(bounds, uniforms_of(keys, 1, _STREAM)[:, 0], side="right")
    chosen: npt.NDArray[np.int64] = np.where(places < len(mixings), places, -1)
    return chosen
