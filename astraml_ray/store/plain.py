"""Plain data: what both databases and every JSON reader take, and times as text. Pure."""

from __future__ import annotations

import json
import math
import re
from datetime import datetime, timedelta, timezone
from typing import Any

__all__ = ["iso_time", "plain_data", "plain_text", "to_json"]

# What json.dumps writes for NUL and for halves of surrogate pairs; whole pairs are looked at more closely.
_SUSPECT = re.compile(r"\\u(0000|d[89a-f])")
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


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


def iso_time(seconds: float | None) -> str | None:
    """ISO 8601 in UTC with milliseconds, of seconds since the epoch; None for none, or beyond the calendar."""
    if seconds is None:
        return None
    try:
        moment = _EPOCH + timedelta(milliseconds=round(seconds * 1000))
    except (OverflowError, ValueError):
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
