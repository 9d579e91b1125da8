"""SpecModel, the base of every spec: strict, frozen, nothing unknown at any depth; and durations."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict

__all__ = ["Duration", "SpecModel", "seconds_of"]

_DURATION = re.compile(r"^(\d{1,9}(?:\.\d{1,3})?)\s*([smhd])$")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds_of(text: str) -> float:
    """Seconds of a duration such as "90s", "30m", "2h" or "7d".

    Raises:
        ValueError: It is none, or not above zero.
    """
    match = _DURATION.match(text)
    if not match or float(match[1]) <= 0:
        raise ValueError('write it as "90s", "30m", "2h" or "7d", above zero')
    return float(match[1]) * _UNITS[match[2]]


def _check_duration(text: str) -> str:
    seconds_of(text)
    return text


Duration = Annotated[str, AfterValidator(_check_duration)]


class SpecModel(BaseModel):
    """A frozen, strictly typed value; unknown fields are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    def canonical(self) -> dict[str, Any]:
        """Plain JSON data with every default written out."""
        return self.model_dump(mode="json")

    def digest(self) -> str:
        """SHA-256 of the canonical JSON, keys sorted."""
        text = json.dumps(self.canonical(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()
