"""Files of the service's own machine: a job reads them with the service's rights, which are not its submitter's."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from astraml_ray.access.fields import lookup
from astraml_ray.access.targets import AllowedTargets
from astraml_ray.errors import Problem

__all__ = ["guard_files"]

_REMOTE = re.compile(r"(?:s3a?|gs|gcs|az|abfss?|https?)://", re.IGNORECASE)
_FIELDS = (
    ("dataset", "path"),
    ("dataset", "train"),
    ("dataset", "validation"),
    ("dataset", "test"),
    ("model", "name"),
)


def guard_files(document: Mapping[str, Any], *, allowed: AllowedTargets) -> list[Problem]:
    """Every dataset or model of a job that lies on this machine, but for the folders that the operator allowed.

    Args:
        document: A valid spec.
        allowed: By the operator.
    """
    message = "is on the service's machine, which only jobs of org_admins read"
    hint = "put it into a bucket; the operator can allow a folder: ASTRAML_ALLOWED_TARGETS"
    problems = []
    for parts in _FIELDS:
        text = lookup(document, parts)[1]
        if isinstance(text, str) and _is_local(text, parts) and not _is_in(text, allowed.folders):
            problems.append(Problem("/" + "/".join(parts), message, hint))
    return problems


def _is_local(text: str, parts: tuple[str, ...]) -> bool:
    """A chain of filesystems ("zip::/etc/x") begins or ends here, whatever it says."""
    text = text.strip()
    if _REMOTE.match(text):
        return "::" in text
    if parts[0] != "model":
        return True
    # A model may also be an alias, or a hub id of two parts at most.
    return "://" in text or text.startswith((".", "/", "~")) or text.count("/") > 1 or "\\" in text


def _is_in(text: str, folders: tuple[str, ...]) -> bool:
    path = text.strip().removeprefix("file://")
    if "://" in path or "::" in path or not path.startswith("/"):
        return False
    real = os.path.realpath(path)
    return any(os.path.commonpath([real, os.path.realpath(folder)]) == os.path.realpath(folder) for folder in folders)
