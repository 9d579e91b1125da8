"""What a run on images needs before its first step: the size, the normalisation, the processor's file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from astraml_ray.data.encoding.images import ImageEncoder
from astraml_ray.errors import ModelError
from astraml_ray.spec.hyperparams import Hyperparams
from astraml_ray.training.models import Blueprint, fetch, image_sides

__all__ = ["image_encoder", "save_processor"]

_FILE = "preprocessor_config.json"
_DEFAULT_SIDE = 224
_BILINEAR = 2


def image_encoder(config: Any, blueprint: Blueprint, hyper: Hyperparams, classes: tuple[str, ...]) -> ImageEncoder:
    """How images become pixels: as the model's processor says, or by its size from scratch.

    Args:
        config: The model's (transformers); a model from scratch gets the size that the hyperparameters ask for.
        blueprint: Where it comes from.
        hyper: Hyperparameters.
        classes: The class names.

    Raises:
        ModelError: It is no model of colour images, or not for that size.
    """
    if getattr(config, "num_channels", None) != 3:
        raise ModelError(
            f"{config.model_type} takes no images of three channels",
            param="/model",
            hint="choose a ViT or a ResNet, for instance model vit-tiny or resnet-18",
        )
    if blueprint.scratch and hyper.image_size and image_sides(config):
        config.image_size = hyper.image_size
    height, width = _sides(config, blueprint, hyper)
    if blueprint.scratch:
        return ImageEncoder(height, width, classes, short_edge=min(height, width))
    return _published(_processor(blueprint), height, width, classes, resized=hyper.image_size is not None)


def _sides(config: Any, blueprint: Blueprint, hyper: Hyperparams) -> tuple[int, int]:
    sides = image_sides(config)
    if sides and hyper.image_size and sides != (hyper.image_size, hyper.image_size):
        raise ModelError(
            f"the model was made for images of {sides[0]}x{sides[1]} pixels, not {hyper.image_size}",
            param="/hyperparams/image_size",
            hint="leave it out",
        )
    patch = getattr(config, "patch_size", None)
    if sides and isinstance(patch, int) and (sides[0] % patch or sides[1] % patch):
        raise ModelError(
            f"its patches of {patch} pixels do not divide {sides[0]}x{sides[1]}",
            param="/hyperparams/image_size",
            hint=f"use a multiple of {patch}",
        )
    if sides:
        return sides
    own = blueprint.image_size if blueprint.scratch else _crop(_processor(blueprint))
    side = hyper.image_size or own or _DEFAULT_SIDE
    return (side, side) if isinstance(side, int) else side


def _processor(blueprint: Blueprint) -> dict[str, Any]:
    """The published processor's settings; without torchvision only their file can be read."""
    location = fetch(blueprint)
    try:
        path = cached_file(location, _FILE, revision=blueprint.revision, _raise_exceptions_for_missing_entries=False)
        settings: dict[str, Any] = json.loads(Path(path).read_text()) if path else {}
    except (OSError, ValueError) as error:
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{_FILE} cannot be read: {text}", param=location, hint="check that it is whole") from error
    return settings


def _published(
    settings: dict[str, Any], height: int, width: int, classes: tuple[str, ...], *, resized: bool
) -> ImageEncoder:
    mean, std = settings.get("image_mean", [0.5] * 3), settings.get("image_std", [0.5] * 3)
    if not settings.get("do_normalize", True):
        mean, std = [0.0] * 3, [1.0] * 3
    return ImageEncoder(
        height,
        width,
        classes,
        mean=(float(mean[0]), float(mean[1]), float(mean[2])),
        std=(float(std[0]), float(std[1]), float(std[2])),
        short_edge=min(height, width) if resized else _short_edge(settings, min(height, width)),
        resample=int(settings.get("resample", _BILINEAR)),
    )


def _short_edge(settings: dict[str, Any], side: int) -> int | None:
    """None where the processor stretches images to height and width."""
    size = settings.get("size", {})
    if isinstance(size, int) or "shortest_edge" in size:
        edge = size if isinstance(size, int) else int(size["shortest_edge"])
        share = settings.get("crop_pct")  # ConvNeXt's and ResNet's: of the resized image, so much is kept
        return int(edge / share) if share and edge < 384 else max(edge, side)
    return None if "height" in size else side


def _crop(settings: dict[str, Any]) -> tuple[int, int] | None:
    """What a processor leaves of an image."""
    for name in ("crop_size", "size"):
        size = settings.get(name)
        if isinstance(size, int):
            return size, size
        if isinstance(size, dict) and "height" in size:
            return int(size["height"]), int(size["width"])
        if isinstance(size, dict) and "shortest_edge" in size:
            return int(size["shortest_edge"]), int(size["shortest_edge"])
    return None


def save_processor(encoder: ImageEncoder, folder: Path) -> None:
    """Writes the file by which transformers' pipelines treat images as training did."""
    crop = {"height": encoder.height, "width": encoder.width}
    settings: dict[str, Any] = {
        "do_convert_rgb": True,
        "do_resize": True,
        "size": crop,
        "resample": encoder.resample,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(encoder.mean),
        "image_std": list(encoder.std),
        "image_processor_type": "ViTImageProcessor",
    }
    if encoder.short_edge is not None:
        settings |= {"size": {"shortest_edge": encoder.short_edge}, "do_center_crop": True, "crop_size": crop}
        settings["image_processor_type"] = "CLIPImageProcessor"
    (folder / _FILE).write_text(json.dumps(settings, indent=2))
