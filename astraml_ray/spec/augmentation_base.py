"""What all augmentations have."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from astraml_ray.spec.base import SpecModel

__all__ = ["BaseAugmentation", "Share"]

Share = Annotated[float, Field(gt=0, le=1)]


class BaseAugmentation(SpecModel):
    """An augmentation."""

    keeps_words: ClassVar[bool] = False
    """Whether each word keeps its place, and so its tag."""
    probability: Share = 1.0
    """Chance that a row is changed at all."""
