"""Augmentations of the training rows; validation and test rows are never touched."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from astraml_ray.errors import Problem, SpecError
from astraml_ray.spec.image_augmentation import IMAGE_PRESETS, CutMix, ImageAugmentation, Mixing, MixUp
from astraml_ray.spec.text_augmentation import TEXT_PRESETS, TextAugmentation

__all__ = ["PRESETS", "Augmentation", "Augmentations", "Preset", "augmentations_of", "check_augmentations"]

Augmentation = Annotated[TextAugmentation | ImageAugmentation | Mixing, Field(discriminator="type")]
Preset = Literal["none", "light", "medium", "strong"]
PRESETS: tuple[Preset, ...] = ("none", "light", "medium", "strong")
"""Augmentations to begin with, by a name; what they are depends on the task."""
_IMAGES = "image-classification"


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
    if wanted == "none":
        return ()
    return IMAGE_PRESETS[wanted] if task == _IMAGES else TEXT_PRESETS[wanted]


def check_augmentations(wanted: Preset | tuple[Augmentation, ...], task: str) -> None:
    """Refuses what a task does not have.

    Raises:
        SpecError: An augmentation of texts with images, or the reverse; mixtures more likely than certain.
    """
    if isinstance(wanted, str):
        return
    problems = []
    for place, one in enumerate(wanted):
        if isinstance(one, TextAugmentation) == (task == _IMAGES):
            what = "texts" if isinstance(one, TextAugmentation) else "images"
            hint = "leave it out; a preset (light, medium, strong) goes by the task"
            problems.append(
                Problem(f"/augmentation/{place}", f"{one.type} is for {what}, and the task is {task}", hint)
            )
    if sum(one.probability for one in wanted if isinstance(one, MixUp | CutMix)) > 1:
        message = "the probabilities of mixup and cutmix add up to more than 1: a row takes one of them"
        problems.append(Problem("/augmentation", message, "lower them"))
    if problems:
        raise SpecError(problems)
