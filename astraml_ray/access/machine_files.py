"""Files of the service's own machine: a job reads them with the service's rights, which are not its submitter's."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from astraml_ray.access.fields import lookup
from astraml_ray.access.targets import AllowedTargets
from astraml_ray.errors import Problem

__all__ = ["guard_files"]

_AUGMENTATION = {"forward": "model", "backward": "model", "lexicon": "dataset"}
"""Fields of an augmentation that name files, and what those are like."""
_REMOTE = re.compile(r"(?:s3a?|gs|gcs|az|abfss?|https?)://", re.IGNORECASE)
_FIELDS = (
    ("dataset", "path"),
    ("dataset", "train"),
    ("dataset", "validation"),
    ("dataset", "test"),
    ("model", "name"),
)


def guard_files(document: Mapping[str, Any], *, allowed: AllowedTargets) -> list[Problem]:
    """Every dataset, model or lexicon of a job that lies on this machine, but for folders that the operator allowed.

    Args:
        document: A valid spec.
        allowed: By the operator.
    """
    message = "is on the service's machine, which only jobs of org_admins read"
    hint = "put it into a bucket; the operator can allow a folder: ASTRAML_ALLOWED_TARGETS"
    problems = []
    for pointer, kind, text in _named(document):
        if isinstance(text, str) and _is_local(text, kind) and not _is_in(text, allowed.folders):
            problems.append(Problem(pointer, message, hint))
    return problems


def _named(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Pointer, kind (`dataset` or `model`) and value of every field that may name files."""
    for parts in _FIELDS:
        yield "/" + "/".join(parts), parts[0], lookup(document, parts)[1]
    augmentations = lookup(document, ("augmentation",))[1]
    for index, one in enumerate(augmentations if isinstance(augmentations, (list, tuple)) else ()):
        for name, kind in _AUGMENTATION.items():
            yield f"/augmentation/{index}/{name}", kind, one.get(name)


def _is_local(text: str, kind: str) -> bool:
    """A chain of filesystems ("zip::/etc/x") begins or ends here, whatever it says."""
    text = text.strip()
    if _REMOTE.match(text):
        return "::" in text
    if kind != "model":
        return True
    # A model may also be an alias, or a hub id of two parts at most.
    return "://" in text or text.startswith((".", "/", "~")) or text.count("/") > 1 or "\\" in text


def _is_in(text: str, folders: tuple[str, ...]) -> bool:
    path = text.strip().removeprefix("file://")
    if "://" in path or "::" in path or not path.startswith("/"):
        return False
    real = os.path.realpath(path)
    return any(os.path.commonpath([real, os.path.realpath(folder)]) == os.path.realpath(folder) for folder in folders)
