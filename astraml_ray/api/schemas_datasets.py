"""The shapes of what a dataset holds, for OpenAPI; data.inspection.inspect tells what each key means."""

from __future__ import annotations

from typing import Any, Literal

from astraml_ray.api.schemas import OpenShape

__all__ = ["DatasetFinding", "Inspection", "Preview"]


class DatasetFinding(OpenShape):
    """Something about a dataset that matters."""

    level: Literal["error", "warning", "note"]
    """`error`: training would refuse the dataset."""
    code: str
    split: str | None
    message: str
    hint: str


class Inspection(OpenShape):
    """What a dataset holds."""

    rows_are: Literal["texts", "images", "words"]
    columns: list[dict[str, Any]]
    """Each with `name`, `type`, `role` (text, text_pair, image, tokens, label or null) and `why`."""
    splits: dict[str, dict[str, Any]]
    """Each with `files`, `bytes`, `formats`, `rows`, `rows_read`, `unnamed_images`, `refused`, `text`, `image`,
    `label`, `duplicates`."""
    leakage: list[dict[str, Any]]
    """For validation and test: how many of their rows are training rows too."""
    hashing: dict[str, Any]
    """`share` of the texts that duplicates and leakage were sought in."""
    limit: int | None
    """Rows of each split that were read at most."""
    split_off: float | None
    """The share of the training rows that becomes the validation set."""
    findings: list[DatasetFinding]
    """Worst first."""


class Preview(OpenShape):
    """Training rows before and after augmentation; data.inspection.preview tells what each key means."""

    kind: Literal["texts", "pairs", "words", "images"]
    epoch: int
    seed: int
    augmentation: list[dict[str, Any]]
    """As applied, in order."""
    rows: list[dict[str, Any]]
    """Each with `position`, `before` and `after`: texts, lists of words, or files of images in base64."""
    left_out: int
    """Rows that would have made the answer too large."""
