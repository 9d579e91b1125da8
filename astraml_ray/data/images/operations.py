"""What can be done to images, by kornia: each row with numbers of its own, so that no row depends on its neighbours."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from kornia.enhance import (
    adjust_brightness_accumulative,
    adjust_contrast_with_mean_subtraction,
    adjust_saturation_with_gray_subtraction,
    equalize,
    sharpness,
    solarize,
)
from kornia.geometry.transform import warp_affine

__all__ = ["OPERATIONS", "apply_operations", "linear_map", "posterize", "warp"]

Rows = torch.Tensor
"""A float64 number for each row."""
_GREY = 0.5

OPERATIONS = (
    "identity",
    "auto_contrast",
    "equalize",
    "rotate",
    "solarize",
    "color",
    "posterize",
    "contrast",
    "brightness",
    "sharpness",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)
"""Of RandAugment and TrivialAugment. The places in this tuple are what apply_operations takes."""


def linear_map(angle: Rows, scale: Rows, shear_x: Rows, shear_y: Rows) -> torch.Tensor:
    """Shears, then turns and scales.

    Args:
        angle: (rows,), in radians.
        scale: (rows,), a factor.
        shear_x: (rows,), a factor.
        shear_y: (rows,), a factor.

    Returns:
        (rows, 2, 2), of (x, y).
    """
    cos, sin = angle.cos() * scale, angle.sin() * scale
    flat = [cos - sin * shear_y, cos * shear_x - sin, sin + cos * shear_y, sin * shear_x + cos]
    return torch.stack(flat, -1).view(-1, 2, 2)


def warp(images: torch.Tensor, linear: torch.Tensor, shift: torch.Tensor, *, padding: str = "zeros") -> torch.Tensor:
    """Maps images about their centre; what comes in from outside is grey.

    Args:
        images: (rows, 3, height, width), from 0 to 1.
        linear: (rows, 2, 2), of (x, y).
        shift: (rows, 2), (x, y) in pixels.
        padding: `border` repeats the outermost pixels instead.

    Returns:
        As many images of the same size.
    """
    height, width = images.shape[-2:]
    x, y = (width - 1) / 2, (height - 1) / 2
    offset_x = x - linear[:, 0, 0] * x - linear[:, 0, 1] * y + shift[:, 0]
    offset_y = y - linear[:, 1, 0] * x - linear[:, 1, 1] * y + shift[:, 1]
    matrix = torch.cat([linear, torch.stack([offset_x, offset_y], -1)[..., None]], -1).float()
    warped: torch.Tensor = warp_affine(images - _GREY, matrix, (height, width), padding_mode=padding) + _GREY
    return warped


def posterize(images: torch.Tensor, bits: Rows) -> torch.Tensor:
    """Keeps the highest bits of each channel; exact, where kornia's floats may fall below a level.

    Args:
        images: (rows, 3, height, width), from 0 to 1.
        bits: (rows,), rounded; from 0 to 8.

    Returns:
        As many images of the same size.
    """
    step = 2.0 ** (8 - bits.round().clamp(0, 8)).float().view(-1, 1, 1, 1)
    return ((images * 255).round() / step).floor() * step / 255


def _auto_contrast(images: torch.Tensor) -> torch.Tensor:
    low, high = images.amin((-2, -1), keepdim=True), images.amax((-2, -1), keepdim=True)
    return torch.where(high > low, (images - low) / (high - low).clamp(min=1e-6), images)


_Tone = Callable[[torch.Tensor, Rows], torch.Tensor]
_TONES: dict[str, _Tone] = {
    "auto_contrast": lambda images, _: _auto_contrast(images),
    "equalize": lambda images, _: equalize(images.clamp(0, 1)),
    "solarize": lambda images, threshold: solarize(images, threshold.float()),
    "color": lambda images, factor: adjust_saturation_with_gray_subtraction(images, factor.float()),
    "posterize": posterize,
    "contrast": lambda images, factor: adjust_contrast_with_mean_subtraction(images, factor.float()),
    "brightness": lambda images, factor: adjust_brightness_accumulative(images, factor.float()),
    "sharpness": lambda images, factor: sharpness(images, factor.float()),
}
_MOVES = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")


def apply_operations(images: torch.Tensor, chosen: torch.Tensor, amounts: Sequence[Rows]) -> torch.Tensor:
    """Does one operation to each image.

    Args:
        images: (rows, 3, height, width), from 0 to 1.
        chosen: (rows,), the operation's place in OPERATIONS.
        amounts: For each operation of OPERATIONS, what it takes of every row: degrees (rotate), a factor (shears,
            enhancements), a share of the side (translations), a threshold (solarize), bits (posterize).

    Returns:
        As many images of the same size, from 0 to 1.
    """
    images = images.clone()
    for place, name in enumerate(OPERATIONS):
        if name in _TONES and len(rows := (chosen == place).nonzero().flatten()):
            images.index_copy_(0, rows, _TONES[name](images[rows], amounts[place][rows]))
    places = [OPERATIONS.index(name) for name in _MOVES]
    moved = torch.stack([chosen == place for place in places]).any(0).nonzero().flatten()
    if len(moved):
        taken = [torch.where(chosen == place, amounts[place], 0.0)[moved] for place in places]
        angle, shear_x, shear_y, right, down = taken
        linear = linear_map(angle * (math.pi / 180), torch.ones_like(angle), shear_x, shear_y)
        shift = torch.stack([right * images.shape[-1], down * images.shape[-2]], -1)
        images.index_copy_(0, moved, warp(images[moved], linear, shift))
    return images.clamp(0, 1)
