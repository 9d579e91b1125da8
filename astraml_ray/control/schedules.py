"""Which instants of a schedule are due, and what becomes of each. Pure: the time is given."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice, takewhile
from typing import Literal
from zoneinfo import ZoneInfo

from astraml_ray.spec.base import seconds_of
from astraml_ray.spec.schedule import Schedule, seconds_or_zero

__all__ = [
    "BATCH",
    "Due",
    "Upcoming",
    "delay_of",
    "due_instants",
    "next_due",
    "overlapping",
    "passed_instants",
    "upcoming",
]

BATCH = 20
"""Jobs made of one schedule at a time; the others follow at the next look."""
_LATE_S = 60.0
"""So late, an instant was missed; `catchup: none` makes up for none of those."""
_TOLD = 100
"""Missed instants that are told of, the latest ones."""
_NEAR_S = 3600.0

Overlap = Literal["start", "skip", "wait", "cancel"]


@dataclass(frozen=True)
class Due:
    """What is to be done now.

    Attributes:
        fire: Instants that get a job, in order.
        missed: Instants that get none, the latest of them.
        handled: All is decided up to this time, and so nothing before it is looked at again.
    """

    fire: tuple[int, ...]
    missed: tuple[int, ...]
    handled: float


@dataclass(frozen=True)
class Upcoming:
    """An instant that is to come.

    Attributes:
        instant: Seconds since the epoch.
        local: The same in the schedule's zone.
        mark: What is special about it: the clocks change, or have just been changed.
    """

    instant: int
    local: datetime
    mark: str | None


def delay_of(schedule_id: str, instant: int, jitter_s: float) -> float:
    """By how much an instant's start is put off: from 0 up to the jitter, the same whenever it is asked for."""
    digest = hashlib.sha256(f"{schedule_id} {instant}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 * jitter_s


def next_due(schedule_id: str, schedule: Schedule, handled: float) -> float | None:
    """When there is something to decide next; None never again."""
    instant = next(schedule.instants(handled), None)
    return None if instant is None else instant + delay_of(schedule_id, instant, seconds_or_zero(schedule.jitter))


def due_instants(schedule_id: str, schedule: Schedule, *, handled: float, now: float) -> Due:
    """What is due of a schedule.

    Args:
        schedule_id: Its id, which the jitter depends on.
        schedule: The schedule.
        handled: All was decided up to this time.
        now: Seconds since the epoch.
    """
    jitter_s = seconds_or_zero(schedule.jitter)
    window_s = seconds_of(schedule.catchup_window)

    def is_due(instant: int) -> bool:
        return instant + delay_of(schedule_id, instant, jitter_s) <= now

    if schedule.catchup == "all":
        after = max(handled, now - window_s - jitter_s)
        ripe = takewhile(is_due, schedule.instants(after))
        fire = tuple(islice(ripe, BATCH))
        return Due(fire, (), float(fire[-1]) if fire else handled)
    # Of the latest only, and so only near the present is looked at, unless there is nothing.
    passed = list(takewhile(is_due, _latest(schedule, handled, now, now - window_s - jitter_s, _TOLD + 1)))
    if not passed:
        return Due((), (), handled)
    latest = passed[-1]
    late_s = now - latest - delay_of(schedule_id, latest, jitter_s)
    fires = late_s <= (window_s if schedule.catchup == "latest" else _LATE_S)
    missed = passed[:-1] if fires else passed
    return Due((latest,) if fires else (), tuple(missed[-_TOLD:]), float(latest))


def _latest(schedule: Schedule, after: float, until: float, lowest: float, count: int) -> list[int]:
    """The latest instants in a stretch of time, found from its end: it may be long, and have any number of them."""
    after = max(after, lowest)
    near_s = _NEAR_S
    while True:
        begin = max(after, until - near_s)
        found = list(takewhile(lambda instant: instant <= until, schedule.instants(begin)))
        if len(found) >= count or begin <= after:
            return found[-count:]
        near_s *= 4


def passed_instants(schedule: Schedule, *, first: float, last: float, limit: int) -> list[int]:
    """The instants of a stretch of time, both ends in it; one more than the limit tells that there are too many."""
    return list(islice(takewhile(lambda instant: instant <= last, schedule.instants(first - 1)), limit + 1))


def overlapping(schedule: Schedule, *, live: Sequence[object], waiting: int) -> Overlap:
    """What becomes of an instant.

    Args:
        schedule: The schedule.
        live: Its jobs that have not ended.
        waiting: How many wait already.
    """
    if schedule.overlap == "allow" or not (live or waiting):
        return "start"
    match schedule.overlap:
        case "cancel_running":
            return "cancel"
        case "queue_one":
            return "skip" if waiting else "wait"
        case _:
            return "skip"


def upcoming(schedule: Schedule, *, after: float, count: int) -> list[Upcoming]:
    """The next instants in local time, with a mark where the clocks are changed."""
    zone = ZoneInfo(schedule.timezone)
    return list(islice(_with_marks(schedule, zone, after), count))


def _with_marks(schedule: Schedule, zone: ZoneInfo, after: float) -> Iterator[Upcoming]:
    for instant in schedule.instants(after):
        local = datetime.fromtimestamp(instant, zone)
        yield Upcoming(instant, local, _mark_of(local))


def _mark_of(local: datetime) -> str | None:
    """In words, what a change of the clocks has to do with a time."""
    first, second = (local.replace(fold=fold).utcoffset() for fold in (0, 1))
    if first != second:
        which = "second" if local.fold else "first"
        return f"the clocks go back: this local time comes twice, and this is the {which}"
    midnight = local.replace(hour=0, minute=0, second=0, fold=0)
    before, after = midnight.utcoffset(), local.utcoffset()
    if before is None or after is None or before == after:
        return None
    way = "forward" if after > before else "back"
    return f"the clocks go {way} on this day: UTC{_offset(before)} before, UTC{_offset(after)} now"


def _offset(offset: timedelta) -> str:
    minutes = round(offset.total_seconds() / 60)
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
