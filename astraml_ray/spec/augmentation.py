"""Augmentations of the training rows; validation and test rows are never touched."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Discriminator, Field, Tag

from astraml_ray.errors import Problem
from astraml_ray.spec.text_augmentation import MixTexts, SpanMask, TextAugmentation, text_preset

__all__ = ["PRESETS", "Augmentation", "Augmentations", "Preset", "augmentations_of", "misfits"]

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
    return () if wanted == "none" else text_preset(wanted, task)


def misfits(augmentations: tuple[Augmentation, ...], task: str, *, pairs: bool = False) -> list[Problem]:
    """The augmentations after which a task's labels would no longer be true.

    Args:
        augmentations: In their order.
        task: Not `auto`.
        pairs: Each row has two texts.
    """
    if task == "token-classification":
        fitting = ", ".join(get_args(kind.model_fields["type"].annotation)[0] for kind in _TEXT if kind.keeps_words)
        found = [(i, rule) for i, rule in enumerate(augmentations) if not _keeps_words(rule)]
        return [_misfit(i, rule, "moves words from their tags", f"use one of {fitting}") for i, rule in found]
    if task == "text-classification" and not pairs:
        return []
    found = [(i, rule) for i, rule in enumerate(augmentations) if isinstance(rule, MixTexts)]
    why = "changes how two texts relate" if pairs else f"needs classes, and {task} has none"
    return [_misfit(i, rule, why, "leave it out") for i, rule in found]


_TEXT = get_args(TextAugmentation)


def _keeps_words(rule: Augmentation) -> bool:
    return rule.keeps_words and not (isinstance(rule, SpanMask) and rule.unit == "span")


def _misfit(index: int, rule: Augmentation, why: str, hint: str) -> Problem:
    return Problem(f"/augmentation/{index}", f"{rule.type} {why}", hint)
