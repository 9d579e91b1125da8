"""A preview of a job's dataset as JSON data: texts, pairs of texts, tagged words or images."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from astraml_ray.data.augmentation.draws import Means
from astraml_ray.data.augmentation.lexicons import read_lexicons
from astraml_ray.data.blocks import BlockReader
from astraml_ray.data.columns import classification_of
from astraml_ray.data.encoding.images import ImageEncoder
from astraml_ray.data.images.mixing import mixings_of
from astraml_ray.data.inspection.image_previews import Picture, RowPreview, preview_images
from astraml_ray.data.inspection.previews import preview
from astraml_ray.data.manifest import Manifest
from astraml_ray.data.prepare import build_manifest, find_roles
from astraml_ray.data.sampling import make_sampler
from astraml_ray.data.translation.candidates import Translate
from astraml_ray.errors import Problem, SpecError
from astraml_ray.spec import JobSpec
from astraml_ray.spec.augmentation import Augmentation, augmentations_of, back_translation_of, check_augmentations
from astraml_ray.spec.sampling import sampling_problems
from astraml_ray.spec.text_augmentation import BackTranslation, MixTexts

__all__ = ["MOST_IMAGE_ROWS", "preview_dataset", "within"]

MOST_IMAGE_ROWS = 256
_DEFAULT_SIDE = 224
Json = dict[str, Any]


def preview_dataset(
    spec: JobSpec,
    *,
    rows: int,
    draws: int = 1,
    cache: Path,
    secret: Callable[[], str] | None = None,
    mask_token: str = "[MASK]",
    unknown_token: str = "[UNK]",
    translator: Callable[[BackTranslation], Translate] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Json:
    """The first training rows of epoch 0, before and after the spec's augmentation, as a run of its seed has them.

    Args:
        spec: Of it count dataset, task, augmentation, sampling, seed, and the size of images.
        rows: How many.
        draws: Of images: epochs to show of each row.
        cache: Folder that remembers what was counted.
        secret: Gives the dataset's credentials; None is this machine's own.
        mask_token: Of the model's tokenizer.
        unknown_token: Of the same.
        translator: Loads the models of a back-translation; None where there is no place for them.
        progress: Told what is begun.

    Returns:
        `kind` (`texts`, `pairs`, `words` or `images`), `epoch`, `seed`, `augmentation`, and `rows`.
        Of texts `mask_token`, and rows of `position`, `before`, `after`; pairs have `before_pair` and `after_pair`
        too; words are lists, with their `tags`.
        Of images `size` (pixels of a side), `draws`, and rows of `position`, `label`, `before` (`media_type`, `data` in
        base64) and `after`: for each epoch these two, `epoch`, `position`, `partner_label` and `partner_weight`.

    Raises:
        SpecError: There is no augmentation, or one that does not fit the task.
        DataError: The dataset cannot be read.
    """
    tell = progress or (lambda _: None)
    tell("looking at the dataset")
    roles = find_roles(spec.dataset, task=spec.task, secret=secret)
    # Both tasks without labels, one of which the model would choose, are augmented alike.
    found_task = classification_of(roles) if "label" in roles else "masked-lm"
    task = spec.task if spec.task != "auto" else found_task
    check_augmentations(spec.augmentation, task, pairs="text_pair" in roles)
    augmentations = augmentations_of(spec.augmentation, task)
    if not augmentations:
        hint = "give --augmentation light, or a spec with one"
        raise SpecError([Problem("/augmentation", "there is none to show", hint)])
    if "image" in roles and rows > MOST_IMAGE_ROWS:
        raise SpecError([Problem("", f"{rows} rows of images are too many", f"ask for {MOST_IMAGE_ROWS} at most")])
    tell("counting its rows")
    sampled = spec.sampling != "natural"
    # Which rows there are, and in which order, depends on labels only where bad rows are left out.
    labelled = sampled or "text" not in roles or "text_pair" in roles or spec.dataset.on_bad_row != "fail"
    labelled = labelled or any(isinstance(rule, MixTexts) for rule in augmentations)
    manifest = build_manifest(
        spec.dataset, task=task if labelled else "masked-lm", cache=cache, secret=secret, count_classes=sampled
    )
    classes = manifest.labels if manifest.target == "class" else None
    if problems := sampling_problems(spec.sampling, task, classes):
        raise SpecError(problems)
    found = {
        "epoch": 0,
        "seed": spec.seed,
        "augmentation": [one.model_dump(mode="json") for one in augmentations],
    }
    if "image" in manifest.columns:
        return {**found, **_images(spec, manifest, augmentations, rows, draws, tell)}
    tell("reading the first rows")
    rule = back_translation_of(augmentations)
    if rule is not None and translator is None:
        raise SpecError([Problem("/augmentation/0", "is not shown by the service", "look at it where the models are")])
    translate = None
    if rule is not None and translator is not None:
        tell("translating the first rows")
        translate = translator(rule)
    pairs = preview(
        manifest,
        augmentations,
        seed=spec.seed,
        rows=rows,
        means=Means(mask_token, unknown_token, read_lexicons(augmentations, manifest.access)),
        sampler=make_sampler(manifest, spec.sampling, seed=spec.seed),
        translate=translate,
    )
    kind = "words" if "tokens" in manifest.columns else "pairs" if "text_pair" in manifest.columns else "texts"
    return {**found, "kind": kind, "mask_token": mask_token, "rows": [pair.as_dict() for pair in pairs]}


def within(found: Json, *, most_bytes: int, most_characters: int) -> Json:
    """A preview that is no larger than may be sent: long texts are cut, and the last rows are left out.

    Args:
        found: What preview_dataset gave.
        most_bytes: Of all rows together, as JSON.
        most_characters: Of a text.

    Returns:
        The same, and how many rows were left out in `left_out`.
    """
    rows: list[Json] = []
    total = 0
    for row in found["rows"]:
        kept = _cut(row, most_characters)
        total += len(json.dumps(kept))
        if total > most_bytes and rows:
            break
        rows.append(kept)
    return {**found, "rows": rows, "left_out": len(found["rows"]) - len(rows)}


def _images(
    spec: JobSpec,
    manifest: Manifest,
    augmentations: Sequence[Augmentation],
    rows: int,
    draws: int,
    tell: Callable[[str], None],
) -> Json:
    side = spec.hyperparams.image_size or _DEFAULT_SIDE
    # As a model from scratch takes them; a published one may cut or stretch in its own way.
    encoder = ImageEncoder(side, side, manifest.labels, short_edge=side, mixes=bool(mixings_of(augmentations)))
    reader = BlockReader(
        manifest,
        manifest.splits["train"],
        encoder,
        spec.seed,
        batch_size=1,
        world_size=1,
        augmentations=tuple(augmentations),
        sampler=make_sampler(manifest, spec.sampling, seed=spec.seed),
    )
    found = preview_images(
        reader, rows=rows, draws=draws, progress=lambda epoch: tell(f"epoch {epoch + 1} of {draws}: reading images")
    )
    return {"kind": "images", "size": side, "draws": draws, "rows": [_image_row(row) for row in found]}


def _image_row(row: RowPreview) -> Json:
    return {
        "position": row.before.position,
        "label": row.label,
        "before": _file(row.before),
        "after": [
            {
                **_file(one),
                "epoch": one.epoch,
                "position": one.position,
                "partner_label": one.partner_label,
                "partner_weight": round(one.partner_weight, 4),
            }
            for one in row.after
        ],
    }


def _file(picture: Picture) -> Json:
    media_type, data = picture.file()
    return {"media_type": media_type, "data": base64.b64encode(data).decode()}


def _cut(row: Json, most: int) -> Json:
    """Texts and words are cut; files of images are not."""
    if isinstance(row["before"], dict):
        return row
    return {name: _cut_value(value, most) for name, value in row.items()}


def _cut_value(value: Any, most: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= most else value[:most] + "…"
    if isinstance(value, list):
        return [_cut_value(one, most) for one in value[:most]]
    return value
