"""Times, spans, sizes and others' texts as people can read them. Pure."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Any

__all__ = ["age", "clock", "eta", "number", "printable", "seconds_between", "size", "span"]

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def span(seconds: float) -> str:
    """Seconds as "40s", "3m05s", "2h10m" or "3d04h"."""
    whole = max(0, int(seconds))
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d{hour:02d}h"
    if hours:
        return f"{hours}h{minute:02d}m"
    return f"{minutes}m{second:02d}s" if minutes else f"{whole}s"


def eta(bounds: Any) -> str:
    """The soonest and the latest end, in seconds from now, as "3m to 9m left"; "" if it is not known."""
    if not bounds or None in bounds:
        return ""
    soonest, latest = bounds
    low, high = span(soonest), span(latest)
    return f"{high} left" if low == high else f"{low} to {high} left"


def age(moment: str | None, now: datetime | None = None) -> str:
    """How long ago a time of the API was."""
    if moment is None:
        return ""
    return span(((now or datetime.now(timezone.utc)) - _parse(moment)).total_seconds())


def seconds_between(earlier: str | None, later: str | None) -> float | None:
    """Seconds between two times of the API; None if one is missing."""
    if earlier is None or later is None:
        return None
    return (_parse(later) - _parse(earlier)).total_seconds()


def clock(moment: str | None) -> str:
    """A time of the API as a date and a time of day of this machine's zone."""
    return "" if moment is None else _parse(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def number(value: Any) -> str:
    """A number with four significant digits; whole ones as they are; null as "nan", which is what it was."""
    if value is None:
        return "nan"
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def printable(text: str) -> str:
    """A text without control sequences: a training process may print anything, and the terminal is not its own."""
    return _CONTROL.sub("", text)


def size(count: float) -> str:
    """Bytes as "12 B", "3.4 kB", "5.6 MB" and so on, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _parse(moment: str) -> datetime:
    return datetime.fromisoformat(moment.replace("Z", "+00:00"))
