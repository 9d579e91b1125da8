"""Image augmentations: pure functions of an image and its key, in a data task or on a worker's device.

With operations and policies the one part of the data wing that needs torch: loaded where images are augmented, and
nowhere else. Images are (rows, height, width, 3) bytes at its borders; within, (rows, 3, height, width) from 0 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from kornia.color import rgb_to_grayscale
from kornia.enhance import (
    adjust_brightness_accumulative,
    adjust_contrast_with_mean_subtraction,
    adjust_hue,
    adjust_saturation_with_gray_subtraction,
    solarize,
)
from kornia.filters import gaussian_blur2d

from astraml_ray.data.images.mixing import PARTNER_STREAM
from astraml_ray.data.images.operations import linear_map, posterize, warp
from astraml_ray.data.images.policies import aug_mix, aug_mix_draws, rand_augment, trivial_augment
from astraml_ray.data.keyed import derived_keys, uniforms_of
from astraml_ray.spec.augmentation import Augmentation
from astraml_ray.spec.image_augmentation import ImageAugmentation

__all__ = [
    "AUGMENTATIONS",
    "augment_and_mix",
    "augment_images",
    "augment_pixels",
    "draw",
    "mix_pixels",
    "partner_draw",
    "pixel_augmentations",
]

_STREAM = 1 << 21
_TURN = 2 * math.pi


def augment_images(
    images: npt.NDArray[np.uint8], keys: npt.NDArray[np.uint64], augmentations: Sequence[ImageAugmentation]
) -> npt.NDArray[np.uint8]:
    """Applies the augmentations in order, each with its probability.

    Args:
        images: (rows, height, width, 3).
        keys: (rows,), see keyed.row_keys.
        augmentations: From the spec; mixtures of images are no part of it.

    Returns:
        As many images of the same size.
    """
    if not augmentations:
        return images
    draws = torch.from_numpy(draw(keys, augmentations))
    return augment_pixels(torch.from_numpy(images.copy()), draws, augmentations).numpy()


def augment_and_mix(
    images: npt.NDArray[np.uint8],
    keys: npt.NDArray[np.uint64],
    augmentations: Sequence[Augmentation],
    partners: npt.NDArray[np.uint8] | None,
    mixtures: npt.NDArray[np.float32],
) -> npt.NDArray[np.uint8]:
    """All that is done to training rows in a data task; a worker does the same with tensors on its device.

    Args:
        images: (rows, height, width, 3).
        keys: (rows,), see keyed.row_keys.
        augmentations: From the spec.
        partners: As many images: of the rows that are mixed, at their places. None where nothing is mixed.
        mixtures: (rows, 5), see mixing.draw_mixtures.

    Returns:
        As many images of the same size.
    """
    single = pixel_augmentations(augmentations)
    images = augment_images(images, keys, single)
    if partners is None:
        return images
    others = augment_images(partners, derived_keys(keys, PARTNER_STREAM), single)
    return mix_pixels(*map(torch.from_numpy, (images, others, mixtures))).numpy()


def pixel_augmentations(augmentations: Sequence[Augmentation]) -> list[ImageAugmentation]:
    """Those that change one image by itself."""
    return [one for one in augmentations if isinstance(one, ImageAugmentation)]


def partner_draw(keys: npt.NDArray[np.uint64], augmentations: Sequence[ImageAugmentation]) -> npt.NDArray[np.float64]:
    """The random numbers of the rows' partners.

    Args:
        keys: (rows,), of the rows, not of their partners.
        augmentations: From the spec.

    Returns:
        (rows, numbers), from 0 to 1, see draw.
    """
    return draw(derived_keys(keys, PARTNER_STREAM), augmentations)


def mix_pixels(pixels: torch.Tensor, partners: torch.Tensor, mixtures: torch.Tensor) -> torch.Tensor:
    """Images, with parts of their partners laid over them.

    Args:
        pixels: (rows, height, width, 3), bytes.
        partners: As many of the same size.
        mixtures: (rows, 5), in pixels, see mixing.draw_mixtures.

    Returns:
        As many images of the same size, bytes.
    """
    top, bottom, left, right, opacity = mixtures.view(-1, 5, 1, 1, 1).unbind(1)
    y = torch.arange(pixels.shape[1], device=pixels.device).view(1, -1, 1, 1)
    x = torch.arange(pixels.shape[2], device=pixels.device).view(1, 1, -1, 1)
    inside = (y >= top) & (y < bottom) & (x >= left) & (x < right)
    images = pixels.float()
    return (images + inside * opacity * (partners.float() - images)).round().to(torch.uint8)


def draw(keys: npt.NDArray[np.uint64], augmentations: Sequence[ImageAugmentation]) -> npt.NDArray[np.float64]:
    """All random numbers of the rows: for each augmentation its chance, and what it takes.

    Args:
        keys: (rows,), see keyed.row_keys.
        augmentations: From the spec.

    Returns:
        (rows, numbers), from 0 to 1.
    """
    return uniforms_of(keys, sum(1 + AUGMENTATIONS[one.type].draws(one) for one in augmentations), _STREAM)


@torch.no_grad()
def augment_pixels(
    pixels: torch.Tensor, draws: torch.Tensor, augmentations: Sequence[ImageAugmentation]
) -> torch.Tensor:
    """What augment_images does, on any device.

    Args:
        pixels: (rows, height, width, 3), bytes.
        draws: (rows, numbers), see draw.
        augmentations: From the spec.

    Returns:
        As many images of the same size, bytes, on the same device.
    """
    if not augmentations or not len(pixels):
        return pixels
    images = pixels.permute(0, 3, 1, 2).float() / 255
    start = 0
    for one in augmentations:
        kind = AUGMENTATIONS[one.type]
        stop = start + 1 + kind.draws(one)
        chance, numbers = draws[:, start], draws[:, start + 1 : stop]
        start = stop
        if one.probability >= 1:
            images = kind.apply(images, numbers, one).clamp(0, 1)
        elif len(rows := (chance < one.probability).nonzero().flatten()):
            images.index_copy_(0, rows, kind.apply(images[rows], numbers[rows], one).clamp(0, 1))
    return (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _between(draws: torch.Tensor, low: float, high: float) -> torch.Tensor:
    return low + (high - low) * draws


def _random_crop(images: torch.Tensor, draws: torch.Tensor, spec: Any) -> torch.Tensor:
    """By whole pixels: nothing is blurred."""
    height, width = images.shape[-2:]
    down, right = max(1, round(spec.padding * height)), max(1, round(spec.padding * width))
    padded = torch.nn.functional.pad(images, (right, right, down, down), value=0.5)
    top, left = (draws[:, 0] * (2 * down + 1)).long(), (draws[:, 1] * (2 * right + 1)).long()
    rows = torch.arange(len(images), device=images.device).view(-1, 1, 1, 1)
    channels = torch.arange(3, device=images.device).view(1, 3, 1, 1)
    y = (top[:, None] + torch.arange(height, device=images.device)).view(-1, 1, height, 1)
    x = (left[:, None] + torch.arange(width, device=images.device)).view(-1, 1, 1, width)
    return padded[rows, channels, y, x]


def _rectangle(draws: torch.Tensor, height: int, width: int, spec: Any) -> tuple[torch.Tensor, ...]:
    """Top, left, height and width, in pixels, of a part with an area and a ratio out of the spec's ranges."""
    area = _between(draws[:, 0], *spec.scale)
    ratio = _between(draws[:, 1], math.log(spec.ratio[0]), math.log(spec.ratio[1])).exp()
    high = (area * height * width / ratio).sqrt().clamp(1, height)
    wide = (area * height * width * ratio).sqrt().clamp(1, width)
    return draws[:, 2] * (height - high), draws[:, 3] * (width - wide), high, wide


def _resized_crop(images: torch.Tensor, draws: torch.Tensor, spec: Any) -> torch.Tensor:
    height, width = images.shape[-2:]
    top, left, high, wide = _rectangle(draws, height, width, spec)
    larger_x, larger_y = width / wide, height / high
    zero = torch.zeros_like(top)
    linear = torch.stack([larger_x, zero, zero, larger_y], -1).view(-1, 2, 2)
    shift = [(width / 2 - left - wide / 2) * larger_x, (height / 2 - top - high / 2) * larger_y]
    return warp(images, linear, torch.stack(shift, -1), padding="border")


def _flip(images: torch.Tensor, draws: torch.Tensor, spec: Any) -> torch.Tensor:
    return images.flip(-1 if spec.axis == "horizontal" else -2)


def _rotation(images: torch.Tensor, draws: torch.Tensor, spec: Any) -> torch.Tensor:
    angle = _between(draws[:, 0], -spec.degrees, spec.degrees) * (math.pi / 180)
    one, zero = torch.ones_like(angle), torch.zeros_like(angle)
    return warp(images, linear_map(angle, one, zero, zero), torch.stack([zero, zero], -1))


def _affine(images: torch.Tensor, draws: torch.Tensor, spec: Any) -> torch.Tensor:
    height, width = images.shape[-2:]
    angle = _between(draws[:, 0], -spec.degrees, spec.degrees) * (math.pi / 180)
    shears = (_between(draws[:, 1:3], -spec.shear, spec.shear) * (math.pi / 180)).tan()
    moves = _between(draws[:, 3:5], -spec.translate, spec.translate) * draws.new_tensor([width, height])
    linear = linear_map(angle, _between(draws[:, 5], *spec.scale), shears[:, 0], shears[:, 1])
    return warp(images, linear, moves)


def _color_jitter(images: torch.Tensor, draws: torch.Tensor, spec: Any) -> torch.Tensor:
    def factor(place: int, most: float) -> torch.Tensor:
        return _between(draws[:, place], 1 - most, 1 + most).float()

    images = adjust_brightness_accumulative(images, factor(0, spec.brightness))
    images = adjust_contrast_with_mean_subtraction(images, factor(1, spec.contrast))
    images = adjust_saturation_with_gray_subtraction(images, factor(2, spec.saturation))
    turned: torch.Tensor = adjust_hue(images, _between(draws[:, 3], -spec.hue, spec.hue).float() * _TURN)
    return turned


def _grayscale(images: torch.Tensor, draws: torch.Tensor, spec: Any) -> torch.Tensor:
    grey: torch.Tensor = rgb_to_grayscale(images)
    return grey.expand_as(images)


def _blur(images: torch.Tensor, draws: torch.Tensor, spec: Any) -> torch.Tensor:
    shorter = min(images.shape[-2:])
    sigma = _between(draws[:, 0], *spec.sigma).float()
    side = min(2 * math.ceil(3 * spec.sigma[1]) + 1, 2 * ((shorter - 1) // 2) + 1)
    blurred: torch.Tensor = gaussian_blur2d(images, (side, side), torch.stack([sigma, sigma], -1))
    return blurred


def _erasing(images: torch.Tensor, draws: torch.Tensor, spec: Any) -> torch.Tensor:
    height, width = images.shape[-2:]
    top, left, high, wide = (part.round().view(-1, 1, 1, 1) for part in _rectangle(draws, height, width, spec))
    y = torch.arange(height, device=images.device).view(1, 1, -1, 1)
    x = torch.arange(width, device=images.device).view(1, 1, 1, -1)
    inside = (y >= top) & (y < top + high) & (x >= left) & (x < left + wide)
    return torch.where(inside, 0.5, images)


def _solarize(images: torch.Tensor, draws: torch.Tensor, spec: Any) -> torch.Tensor:
    inverted: torch.Tensor = solarize(images, spec.threshold)
    return inverted


def _posterize(images: torch.Tensor, draws: torch.Tensor, spec: Any) -> torch.Tensor:
    return posterize(images, torch.full((len(images),), float(spec.bits), device=images.device))


@dataclass(frozen=True)
class Kind:
    """An augmentation.

    Attributes:
        draws: How many random numbers a row takes, of the spec.
        apply: Of images (rows, 3, height, width) from 0 to 1, the numbers and the spec.
    """

    draws: Callable[[Any], int]
    apply: Callable[[torch.Tensor, torch.Tensor, Any], torch.Tensor]


def _kind(draws: int, apply: Callable[[torch.Tensor, torch.Tensor, Any], torch.Tensor]) -> Kind:
    return Kind(lambda _: draws, apply)


AUGMENTATIONS: dict[str, Kind] = {
    "random_crop": _kind(2, _random_crop),
    "random_resized_crop": _kind(4, _resized_crop),
    "flip": _kind(0, _flip),
    "rotation": _kind(1, _rotation),
    "affine": _kind(6, _affine),
    "color_jitter": _kind(4, _color_jitter),
    "grayscale": _kind(0, _grayscale),
    "blur": _kind(1, _blur),
    "erasing": _kind(4, _erasing),
    "solarize": _kind(0, _solarize),
    "posterize": _kind(0, _posterize),
    "rand_augment": Kind(lambda spec: 2 * spec.operations, rand_augment),
    "trivial_augment": _kind(3, trivial_augment),
    "aug_mix": Kind(aug_mix_draws, aug_mix),
}
"""Every augmentation of one image by its `type`."""
