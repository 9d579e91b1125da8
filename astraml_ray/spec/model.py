"""Which model is trained, and from what."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import StringConstraints

from astraml_ray.spec.base import SpecModel

__all__ = ["ModelSpec", "model_from_input"]


class ModelSpec(SpecModel):
    """A model by alias, hub id, local path or s3:// prefix."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=2048, strip_whitespace=True)]
    """An alias (`astraml models` lists them), a hub id, a folder, or an s3:// prefix."""
    init: Literal["auto", "pretrained", "scratch"] = "auto"
    """`pretrained` loads weights; `scratch` starts from random ones and trains a tokenizer on the dataset.
    `auto` is what the alias says, and `pretrained` for everything else."""
    revision: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = None
    """Branch, tag or commit of a hub model."""


def model_from_input(value: Any) -> Any:
    """A model given as a string is its name."""
    return {"name": value} if isinstance(value, str) else value
