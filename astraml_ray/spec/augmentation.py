"""Augmentations of the training rows; validation and test rows are never touched."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from astraml_ray.spec.text_augmentation import TEXT_PRESETS, TextAugmentation

__all__ = ["PRESETS", "Augmentation", "Augmentations", "Preset", "augmentations_of"]

Augmentation = Annotated[TextAugmentation, Field(discriminator="type")]
Preset = Literal["none", "light", "medium", "strong"]
PRESETS: tuple[Preset, ...] = ("none", "light", "medium", "strong")
"""Augmentations to begin with, by a name; what they are depends on the task."""


def _form(value: Any) -> str:
    return "preset" if isinstance(value, str) else "list"


Augmentations = Annotated[
    Annotated[Preset, Tag("preset")] | Annotated[tuple[Augmentation, ...], Tag("list")], Discriminator(_form)
]
"""A preset's name, or a list that is applied in its order."""


def augmentations_of(wanted: Preset | tuple[Augmentation, ...], task: str) -> tuple[Augmentation, ...]:
    """The list that a preset stands for in a task; a list is itself."""
    if not isinstance(wanted, str):
        return wanted
    return () if wanted == "none" else TEXT_PRESETS[wanted]
