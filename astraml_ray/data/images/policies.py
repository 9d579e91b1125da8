"""RandAugment, TrivialAugment and AugMix: which operations, and how much of each."""

from __future__ import annotations

import torch

from astraml_ray.data.images.operations import OPERATIONS, apply_operations
from astraml_ray.spec.image_augmentation import AugMix, RandAugment, TrivialAugment

__all__ = ["aug_mix", "aug_mix_draws", "rand_augment", "trivial_augment"]

_LEVELS = 30.0
_MILD = (
    "auto_contrast",
    "equalize",
    "posterize",
    "rotate",
    "solarize",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)
"""AugMix's: none that its test corruptions are made of."""


def rand_augment(images: torch.Tensor, draws: torch.Tensor, spec: RandAugment) -> torch.Tensor:
    """Two draws for each operation. The magnitude 30 is Cubuk et al.'s highest.

    Args:
        images: (rows, 3, height, width), from 0 to 1.
        draws: (rows, 2 * operations), from 0 to 1.
        spec: The augmentation.

    Returns:
        As many images of the same size.
    """
    magnitude = torch.full_like(draws[:, 0], spec.magnitude / _LEVELS)
    for choice, sign in _pairs(draws):
        amounts = _amounts(magnitude, sign, shear=0.3, move=0.45, turn=30.0, enhance=0.9, bits=4.0)
        images = apply_operations(images, _index(choice, len(OPERATIONS)), amounts)
    return images


def trivial_augment(images: torch.Tensor, draws: torch.Tensor, spec: TrivialAugment) -> torch.Tensor:
    """Three draws; Müller and Hutter's wide space, in 31 levels.

    Args:
        images: (rows, 3, height, width), from 0 to 1.
        draws: (rows, 3), from 0 to 1.
        spec: The augmentation.

    Returns:
        As many images of the same size.
    """
    magnitude = _index(draws[:, 1], int(_LEVELS) + 1) / _LEVELS
    amounts = _amounts(magnitude, draws[:, 2], shear=0.99, move=32 / 224, turn=135.0, enhance=0.99, bits=6.0)
    return apply_operations(images, _index(draws[:, 0], len(OPERATIONS)), amounts)


def aug_mix_draws(spec: AugMix) -> int:
    """How many numbers a row takes."""
    return 1 + spec.width * (2 + 3 * spec.depth)


def aug_mix(images: torch.Tensor, draws: torch.Tensor, spec: AugMix) -> torch.Tensor:
    """Dirichlet(1) weights of the chains, and a Beta(1, 1) share of all of them, as Hendrycks et al. have it.

    Args:
        images: (rows, 3, height, width), from 0 to 1.
        draws: (rows, numbers), from 0 to 1; see aug_mix_draws.
        spec: The augmentation.

    Returns:
        As many images of the same size.
    """
    chains = draws[:, 1:].view(len(draws), spec.width, 2 + 3 * spec.depth)
    weights = -torch.log1p(-chains[:, :, 0])
    weights = weights / weights.sum(1, keepdim=True).clamp(min=1e-12)
    table = torch.tensor([OPERATIONS.index(name) for name in _MILD], device=draws.device)
    mixed = torch.zeros_like(images)
    for number in range(spec.width):
        chain, draw = images, chains[:, number]
        depth = 1 + _index(draw[:, 1], spec.depth)
        for place in range(spec.depth):
            choice, level, sign = draw[:, 2 + 3 * place : 5 + 3 * place].unbind(1)
            magnitude = (0.1 + (spec.severity - 0.1) * level) / 10
            amounts = _amounts(magnitude, sign, shear=0.3, move=1 / 3, turn=30.0, enhance=0.9, bits=4.0)
            chosen = torch.where(depth > place, table[_index(choice, len(_MILD))], OPERATIONS.index("identity"))
            chain = apply_operations(chain, chosen, amounts)
        mixed = mixed + weights[:, number].float().view(-1, 1, 1, 1) * chain
    share = draws[:, 0].float().view(-1, 1, 1, 1)
    return share * images + (1 - share) * mixed


def _pairs(draws: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(draws[:, i], draws[:, i + 1]) for i in range(0, draws.shape[1], 2)]


def _index(draw: torch.Tensor, count: int) -> torch.Tensor:
    return (draw * count).long()


def _amounts(
    magnitude: torch.Tensor, sign: torch.Tensor, *, shear: float, move: float, turn: float, enhance: float, bits: float
) -> list[torch.Tensor]:
    """For each of OPERATIONS: magnitudes from 0 to 1 in the ranges of a space; half of them to the other side."""
    signed = torch.where(sign < 0.5, -magnitude, magnitude)
    enhanced = 1 + signed * enhance
    by_name = {
        "rotate": signed * turn,
        "solarize": (1 - magnitude) * 256 / 255,  # at nothing, above the highest level
        "posterize": 8 - magnitude * bits,
        "shear_x": signed * shear,
        "shear_y": signed * shear,
        "translate_x": signed * move,
        "translate_y": signed * move,
    }
    return [by_name.get(name, enhanced) for name in OPERATIONS]
