"""Augmentations of the training rows; validation and test rows are never touched."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Discriminator, Field, Tag

from astraml_ray.errors import Problem, SpecError
from astraml_ray.spec.image_augmentation import IMAGE_PRESETS, ImageAugmentation, Mixing
from astraml_ray.spec.text_augmentation import BackTranslation, MixTexts, SpanMask, TextAugmentation, text_preset

__all__ = [
    "PRESETS",
    "Augmentation",
    "Augmentations",
    "Preset",
    "augmentations_of",
    "back_translation_of",
    "check_augmentations",
    "misfits",
]

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
    return IMAGE_PRESETS[wanted] if task == _IMAGES else text_preset(wanted, task)


def back_translation_of(wanted: Preset | tuple[Augmentation, ...]) -> BackTranslation | None:
    """The back-translation of a list, which is its first; None without. Presets have none."""
    first = None if isinstance(wanted, str) else next(iter(wanted), None)
    return first if isinstance(first, BackTranslation) else None


def check_augmentations(wanted: Preset | tuple[Augmentation, ...], task: str, *, pairs: bool = False) -> None:
    """Refuses the misfits.

    Raises:
        SpecError: Each augmentation with its field.
    """
    if problems := misfits(wanted, task, pairs=pairs):
        raise SpecError(problems)


def misfits(wanted: Preset | tuple[Augmentation, ...], task: str, *, pairs: bool = False) -> list[Problem]:
    """The augmentations that a task does not have, and those that would make its labels untrue.

    Args:
        wanted: From the spec.
        task: Not `auto`.
        pairs: Each row has two texts.
    """
    if isinstance(wanted, str):
        return []
    problems = [found for i, one in enumerate(wanted) if (found := _misfit(i, one, task, pairs=pairs)) is not None]
    if sum(one.probability for one in wanted if isinstance(one, Mixing)) > 1:
        message = "the probabilities of mixup and cutmix add up to more than 1: a row takes one of them"
        problems.append(Problem("/augmentation", message, "lower them"))
    return problems


def _misfit(index: int, one: Augmentation, task: str, *, pairs: bool) -> Problem | None:
    field = f"/augmentation/{index}"
    if isinstance(one, TextAugmentation) == (task == _IMAGES):
        what = "texts" if isinstance(one, TextAugmentation) else "images"
        hint = "leave it out; a preset (light, medium, strong) goes by the task"
        return Problem(field, f"{one.type} is for {what}, and the task is {task}", hint)
    if task == "token-classification" and not _keeps_words(one):
        fitting = ", ".join(get_args(kind.model_fields["type"].annotation)[0] for kind in _TEXT if kind.keeps_words)
        return Problem(field, f"{one.type} moves words from their tags", f"use one of {fitting}")
    if isinstance(one, MixTexts) and (pairs or task != "text-classification"):
        why = "changes how two texts relate" if pairs else f"needs classes, and {task} has none"
        return Problem(field, f"{one.type} {why}", "leave it out")
    return _misplaced(index, one) if isinstance(one, BackTranslation) else None


def _misplaced(index: int, one: BackTranslation) -> Problem | None:
    field = f"/augmentation/{index}"
    if index:
        message = f"{one.type} takes the place of the dataset's own texts, so it comes first, and once"
        return Problem(field, message, "move it to the front")
    if (one.language is None) != (one.pivot_language is None):
        missing = "language" if one.language is None else "pivot_language"
        message = "is missing: a model of many languages is told both"
        return Problem(f"{field}/{missing}", message, "give both codes, or neither")
    return None


_TEXT = get_args(TextAugmentation)


def _keeps_words(one: Augmentation) -> bool:
    if isinstance(one, SpanMask) and one.unit == "span":
        return False
    return isinstance(one, TextAugmentation) and one.keeps_words
