"""Augmentations of images, and mixtures of two images."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from astraml_ray.spec.augmentation_base import BaseAugmentation, Share
from astraml_ray.spec.base import SpecModel

__all__ = [
    "IMAGE_PRESETS",
    "Affine",
    "AugMix",
    "Blur",
    "ColorJitter",
    "CutMix",
    "Erasing",
    "Flip",
    "Grayscale",
    "ImageAugmentation",
    "MixUp",
    "Mixing",
    "Posterize",
    "RandAugment",
    "RandomCrop",
    "RandomResizedCrop",
    "Rotation",
    "Solarize",
    "TrivialAugment",
]


def _ascending(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError("the first must not be above the second")
    return pair


Shares = Annotated[tuple[Share, Share], AfterValidator(_ascending)]
Positive = Annotated[float, Field(gt=0, le=100)]
Positives = Annotated[tuple[Positive, Positive], AfterValidator(_ascending)]
Amount = Annotated[float, Field(ge=0, le=1)]
Degrees = Annotated[float, Field(ge=0, le=180)]
Levels = Annotated[int, Field(ge=0, le=30)]


class RandomCrop(BaseAugmentation):
    """Moves the image by up to a margin; what comes in from outside is grey."""

    type: Literal["random_crop"]
    padding: Share = 0.125
    """The margin, as a share of each side."""


class RandomResizedCrop(BaseAugmentation):
    """Cuts a part out and brings it to the full size."""

    type: Literal["random_resized_crop"]
    scale: Shares = (0.35, 1.0)
    """Area of the part, as a share of the image's: lowest, highest."""
    ratio: Positives = (0.75, 4 / 3)
    """Width by height of the part: lowest, highest."""


class Flip(BaseAugmentation):
    """Mirrors the image."""

    type: Literal["flip"]
    axis: Literal["horizontal", "vertical"] = "horizontal"
    probability: Share = 0.5


class Rotation(BaseAugmentation):
    """Turns the image round its centre."""

    type: Literal["rotation"]
    degrees: Degrees = 15.0
    """At most, to either side."""


class Affine(BaseAugmentation):
    """Turns, moves, scales and shears the image."""

    type: Literal["affine"]
    degrees: Degrees = 10.0
    translate: Amount = 0.1
    """At most, as a share of each side."""
    scale: Positives = (0.9, 1.1)
    shear: Annotated[float, Field(ge=0, le=40)] = 5.0
    """Degrees at most, along each axis."""


class ColorJitter(BaseAugmentation):
    """Changes brightness, contrast, saturation and hue, in this order."""

    type: Literal["color_jitter"]
    brightness: Amount = 0.4
    """Of the factor: 1 - 0.4 to 1 + 0.4."""
    contrast: Amount = 0.4
    saturation: Amount = 0.4
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """At most, in turns of the colour wheel."""


class Grayscale(BaseAugmentation):
    """Takes the colours away."""

    type: Literal["grayscale"]
    probability: Share = 0.2


class Blur(BaseAugmentation):
    """A Gaussian blur."""

    type: Literal["blur"]
    sigma: Positives = (0.1, 2.0)
    """In pixels of what the model takes: lowest, highest."""
    probability: Share = 0.5


class Erasing(BaseAugmentation):
    """Paints a rectangle over in grey (Zhong et al. 2017)."""

    type: Literal["erasing"]
    scale: Shares = (0.02, 0.33)
    """Area of the rectangle, as a share of the image's."""
    ratio: Positives = (0.3, 3.3)
    probability: Share = 0.5


class Solarize(BaseAugmentation):
    """Inverts what is brighter than a threshold."""

    type: Literal["solarize"]
    threshold: Amount = 0.5
    probability: Share = 0.2


class Posterize(BaseAugmentation):
    """Keeps the highest bits of each channel."""

    type: Literal["posterize"]
    bits: Annotated[int, Field(ge=1, le=8)] = 4
    probability: Share = 0.2


class RandAugment(BaseAugmentation):
    """Some operations out of fourteen, one after the other, all at one magnitude (Cubuk et al. 2020)."""

    type: Literal["rand_augment"]
    operations: Annotated[int, Field(ge=1, le=14)] = 2
    magnitude: Levels = 9


class TrivialAugment(BaseAugmentation):
    """One operation out of fourteen, at any magnitude of a wide range (Müller and Hutter 2021)."""

    type: Literal["trivial_augment"]


class AugMix(BaseAugmentation):
    """Mixes chains of operations with the image itself (Hendrycks et al. 2020)."""

    type: Literal["aug_mix"]
    severity: Annotated[int, Field(ge=1, le=10)] = 3
    width: Annotated[int, Field(ge=1, le=5)] = 3
    """Chains."""
    depth: Annotated[int, Field(ge=1, le=5)] = 3
    """Operations of a chain at most."""


class MixUp(SpecModel):
    """Blends the image with another one, and their classes alike (Zhang et al. 2018)."""

    type: Literal["mixup"]
    alpha: Positive = 0.2
    """Of the Beta distribution of the other one's share."""
    probability: Share = 0.5


class CutMix(SpecModel):
    """Puts a rectangle of another image in, and its class by the rectangle's area (Yun et al. 2019)."""

    type: Literal["cutmix"]
    alpha: Positive = 1.0
    """Of the Beta distribution of the rectangle's area."""
    probability: Share = 0.5


Mixing = MixUp | CutMix
"""Comes after all else. Of several, a row takes one: their probabilities add up to 1 at most."""

ImageAugmentation = (
    RandomCrop
    | RandomResizedCrop
    | Flip
    | Rotation
    | Affine
    | ColorJitter
    | Grayscale
    | Blur
    | Erasing
    | Solarize
    | Posterize
    | RandAugment
    | TrivialAugment
    | AugMix
)

_CROP, _FLIP = RandomCrop(type="random_crop"), Flip(type="flip")

IMAGE_PRESETS: dict[str, tuple[ImageAugmentation | Mixing, ...]] = {
    "light": (_CROP, _FLIP),
    "medium": (_CROP, _FLIP, TrivialAugment(type="trivial_augment")),
    "strong": (
        RandomResizedCrop(type="random_resized_crop"),
        _FLIP,
        RandAugment(type="rand_augment"),
        Erasing(type="erasing", probability=0.25),
        MixUp(type="mixup", probability=0.3),
        CutMix(type="cutmix", probability=0.5),
    ),
}
"""By name."""
