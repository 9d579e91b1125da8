"""Plain data: what both databases and every JSON reader take. Pure."""

from __future__ import annotations

import json
import math
import re
from typing import Any

__all__ = ["plain_data", "plain_text", "to_json"]

# What json.dumps writes for NUL and for halves of surrogate pairs; whole pairs are looked at more closely.
_SUSPECT = re.compile(r"\\u(0000|d[89a-f])")


def plain_text(text: str) -> str:
    """The text with NULs and lone surrogates replaced by U+FFFD."""
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    try:
        text.encode()
    except UnicodeEncodeError:
        # Surrogate pairs become the characters they stand for.
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def plain_data(value: Any) -> Any:
    """JSON data with plain texts, and null for what is not finite."""
    if isinstance(value, str):
        return plain_text(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {plain_text(str(key)): plain_data(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_data(item) for item in value]
    return value


def to_json(value: Any) -> str:
    """Compact JSON of plain data."""
    try:
        text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    except ValueError:
        text = "\\u0000"
    if _SUSPECT.search(text):
        text = json.dumps(plain_data(value), allow_nan=False, separators=(",", ":"))
    return text
