"""Documents with other values in them, by the dotted paths of their fields; nothing is validated. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["changed"]


def changed(document: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a document with values (dotted path -> value) over it; what is no mapping on the way becomes one."""
    copy: dict[str, Any] = json.loads(json.dumps(document, default=str))
    for path, value in values.items():
        _assign(copy, path, value)
    return copy


def _assign(document: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.strip().split(".")
    place = document
    for depth, name in enumerate(parents):
        child = place.setdefault(name, {})
        if isinstance(child, str) and depth == 0 and name in ("dataset", "model"):
            child = place[name] = {"path" if name == "dataset" else "name": child}
        if not isinstance(child, dict):
            child = place[name] = {}
        place = child
    if isinstance(place.get(last), dict) and isinstance(value, str) and last in ("dataset", "model") and not parents:
        # A flag replaces where the rows are; columns and the like stay.
        kept = {k: v for k, v in place[last].items() if k not in ("path", "train", "validation", "test", "name")}
        value = {**kept, "path" if last == "dataset" else "name": value}
    place[last] = value
