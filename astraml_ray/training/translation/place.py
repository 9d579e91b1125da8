"""Which translations a run reads, and where they are; pinned by the models that they began with."""

from __future__ import annotations

import json

from astraml_ray.data.translation.keep import TranslationKeep, recipe_of
from astraml_ray.errors import ModelError
from astraml_ray.settings import load_settings
from astraml_ray.spec.augmentation import back_translation_of
from astraml_ray.spec.text_augmentation import BackTranslation
from astraml_ray.training.preparation import RunInputs
from astraml_ray.training.run_folder import RunFolder
from astraml_ray.training.translation.translator import FIELD, SIDES, identity_of

__all__ = ["TRANSLATIONS", "rule_of", "translation_keep", "unchanged"]

TRANSLATIONS = "translations"
"""The folder of a run that they are in."""


def rule_of(inputs: RunInputs) -> BackTranslation | None:
    """The back-translation of a run, if it has one."""
    return back_translation_of(inputs.spec.augmentation)


def translation_keep(inputs: RunInputs) -> TranslationKeep | None:
    """Where a run's translations are; None if it has none.

    The models count as they were when the run first asked: what they were is written beside the translations.

    Raises:
        ModelError: A model is not there, or is none that translates.
        StorageError: The folder cannot be read or written.
    """
    rule = rule_of(inputs)
    if rule is None:
        return None
    assert inputs.translations is not None, "whoever runs it says where they are"
    folder = RunFolder(inputs.translations)
    recipe = recipe_of(rule, **_pinned(rule, folder))
    return TranslationKeep(folder.path(TRANSLATIONS), load_settings().cache / TRANSLATIONS, recipe)


def unchanged(rule: BackTranslation, place: str) -> None:
    """Does nothing if the models are those that the run began with.

    Raises:
        ModelError: One is another by now, and there are texts yet to be translated.
    """
    pinned = _pinned(rule, RunFolder(place))
    for side in SIDES:
        if identity_of(rule, side) != pinned[side]:
            raise ModelError(
                f"{getattr(rule, side)} has changed since the run began, and not all rows are translated yet",
                param=f"{FIELD}/{side}",
                hint="put it back, or start a new run",
            )


def _pinned(rule: BackTranslation, folder: RunFolder) -> dict[str, str]:
    """The identities of both models, written down when they are first asked for."""
    name = f"{TRANSLATIONS}/{recipe_of(rule, rule.forward, rule.backward)}.json"
    if not folder.exists(name):
        folder.write(name, json.dumps({side: identity_of(rule, side) for side in SIDES}).encode())
    pinned: dict[str, str] = json.loads(folder.read(name))
    return pinned
