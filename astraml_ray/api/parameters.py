"""Parameters of queries: times, states, labels, cursors. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from datetime import datetime

from astraml_ray.api.errors import ParameterError
from astraml_ray.api.problems import did_you_mean
from astraml_ray.spec.states import JobStatus

__all__ = [
    "JOB_ID",
    "LABEL_PATTERN",
    "PROJECT_PATTERN",
    "STATUS_PATTERN",
    "decode_cursor",
    "encode_cursor",
    "parse_labels",
    "parse_project",
    "parse_states",
    "parse_time",
]

JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
PROJECT_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
LABEL_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}=[^\x00-\x1f]{0,128}$"
_STATES = "|".join(status.value for status in JobStatus)
STATUS_PATTERN = f"^({_STATES})(,({_STATES}))*$"
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def parse_time(name: str, text: str | None) -> float | None:
    """Seconds since the epoch, of a time as RFC 3339 has it.

    Raises:
        ParameterError: It is none.
    """
    if text is None:
        return None
    match = _TIME.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        date, time, fraction, offset = match.groups()
        zone = "+00:00" if offset in "Zz" else offset
        return datetime.fromisoformat(f"{date}T{time}.{(fraction or '')[:6]:0<6}{zone}").timestamp()
    except (ValueError, OverflowError):
        hint = "write it as 2026-11-25T20:50:09Z; a + in a URL is written %2B"
        raise ParameterError(f"{name}: {text[:80]!r} is no time", param=name, hint=hint) from None


def parse_project(text: str) -> str:
    """A project's id.

    Raises:
        ParameterError: It cannot be one.
    """
    if not re.fullmatch(PROJECT_PATTERN, text):
        raise ParameterError(f"{text[:80]!r} can be no project", param="project_id", hint="letters, digits, . _ and -")
    return text


def parse_states(texts: Sequence[str]) -> list[JobStatus]:
    """States, one or several with commas in each text.

    Raises:
        ParameterError: There is no such state.
    """
    words = [word for text in texts for word in text.split(",")]
    known = [status.value for status in JobStatus]
    for word in words:
        if word not in known:
            raise ParameterError(f"there is no status {word[:80]!r}", param="status", hint=did_you_mean(word, known))
    return [JobStatus(word) for word in words]


def parse_labels(texts: Sequence[str]) -> dict[str, str]:
    """Labels of `key=value` texts.

    Raises:
        ParameterError: One is of another form, or one key is to have two values.
    """
    labels: dict[str, str] = {}
    for text in texts:
        if not re.fullmatch(LABEL_PATTERN, text):
            raise ParameterError(f"{text[:80]!r} can be no label", param="label", hint="write it as key=value")
        key, _, value = text.partition("=")
        if labels.setdefault(key, value) != value:
            raise ParameterError(f"the label {key} cannot have two values", param="label", hint="give it once")
    return labels


def encode_cursor(last: str) -> str:
    """The cursor of the page after a job, or after whatever else is listed."""
    return base64.urlsafe_b64encode(last.encode()).decode().rstrip("=")


def decode_cursor(cursor: str | None, known: re.Pattern[str] = JOB_ID) -> str | None:
    """What the page before ended with: the id of a job, or what else the pattern describes.

    Raises:
        ParameterError: It is no cursor of ours.
    """
    if cursor is None:
        return None
    try:
        last = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        last = ""
    if not known.fullmatch(last):
        raise ParameterError(
            f"{cursor[:80]!r} is no cursor", param="cursor", hint="use next_cursor of the page before, unchanged"
        )
    return last
