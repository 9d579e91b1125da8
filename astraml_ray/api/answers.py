"""Answers: JSON that every reader takes, and times as text."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import JSONResponse

from astraml_ray.store.plain import iso_time, plain_data

__all__ = ["JsonAnswer", "ProblemAnswer", "iso_time", "json_bytes"]


def json_bytes(data: Any) -> bytes:
    """One line of UTF-8 JSON; what is not finite becomes null, what is no text becomes U+FFFD."""
    try:
        return _dump(data)
    except (ValueError, UnicodeEncodeError):
        return _dump(plain_data(data))


def _dump(data: Any) -> bytes:
    return json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()


class JsonAnswer(JSONResponse):
    """An answer in JSON."""

    def render(self, content: Any) -> bytes:
        """The body."""
        return json_bytes(content)


class ProblemAnswer(JsonAnswer):
    """An error as RFC 9457 has it."""

    media_type = "application/problem+json"
