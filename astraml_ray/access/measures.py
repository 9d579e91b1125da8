"""What a field's value amounts to, where a bound is not compared with the value itself. Pure.

`gpus: auto` with eight workers is eight GPUs; no `max_duration` is no limit at all. A bound that took these for
"no number" would bound nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from astraml_ray.access.fields import Field, field_of, lookup, size_of
from astraml_ray.access.policies import Rule

__all__ = ["bounds_of", "followers", "gpus_of", "measure", "show", "workers_of"]

_NULL_IS_NO_LIMIT = {
    "limits.max_duration",
    "limits.queue_timeout",
    "hyperparams.max_steps",
    "hyperparams.max_grad_norm",
}


def gpus_of(document: Mapping[str, Any]) -> int:
    """The most GPUs that a canonical job can take."""
    resources = document["resources"]
    gpus = resources["gpus"]
    return int(gpus) if gpus != "auto" else int(resources["workers"] or 1)


def workers_of(document: Mapping[str, Any]) -> int:
    """The workers that a canonical job takes."""
    resources = document["resources"]
    gpus = resources["gpus"]
    return int(resources["workers"] or (gpus if gpus != "auto" else 1) or 1)


def measure(field: Field, document: Mapping[str, Any]) -> float | None:
    """What a field of a canonical job amounts to, to compare with a bound; None if nothing can be compared."""
    if field.path == "resources.gpus":
        return gpus_of(document)
    if field.path == "resources.workers":
        return workers_of(document)
    value = lookup(document, field.parts)[1]
    if value is None and field.path in _NULL_IS_NO_LIMIT:
        return math.inf
    return size_of(field, value)


def bounds_of(field: Field, rule: Rule) -> tuple[float, float]:
    """`min` and `max` of a rule as numbers."""
    low, high = size_of(field, rule.min), size_of(field, rule.max)
    return (-math.inf if low is None else low, math.inf if high is None else high)


def followers(field: Field, bound: Any, document: Mapping[str, Any]) -> list[tuple[Field, Any]]:
    """Other fields that must go along when a field is moved to a bound: a worker has one GPU."""
    resources = document["resources"]
    if field.path == "resources.gpus" and resources["workers"] is not None and bound:
        return [(field_of("resources.workers"), None)]
    if field.path == "resources.workers" and resources["gpus"] not in ("auto", 0):
        return [(field_of("resources.gpus"), bound)]
    return []


def show(value: Any) -> str:
    """A value in a sentence."""
    if isinstance(value, str):
        return value if value and value.isprintable() and len(value) <= 200 else json.dumps(value[:200])
    return json.dumps(value, ensure_ascii=False)
