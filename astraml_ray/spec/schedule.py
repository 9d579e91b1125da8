"""Schedule: when the service makes a job of a spec, again and again; and the instants that it names. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from itertools import islice, pairwise
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, Field, StringConstraints, field_validator, model_validator

from astraml_ray.spec.base import Duration, SpecModel, seconds_of

__all__ = ["DATASET_UNCHANGED", "Schedule", "moment_of", "seconds_or_zero"]

DATASET_UNCHANGED = "dataset_unchanged"
"""Why an occurrence was left out, and its job ended as a success without training."""

_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d(?::\d\d)?)([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_ZERO = re.compile(r"0+\s*[smhd]")
_YEARS = range(2000, 2201)
# 29 February comes after eight years at most. What is rarer is a mistake, and slow to find besides.
_RAREST = timedelta(days=9 * 366)
_REFERENCE = datetime(2026, 1, 1, tzinfo=timezone.utc)
_LONGEST_WINDOW_S = 31 * 86400.0
_LONGEST_JITTER_S = 3600.0
_SAMPLE = 50
_CHANGE_S = 4 * 3600.0
"""So long before, clocks that were changed had not been yet."""


def moment_of(text: str) -> float:
    """Seconds since the epoch of a time such as 2026-11-25T20:50:09+01:00.

    Raises:
        ValueError: It is none, or in no year that anyone plans for.
    """
    match = _MOMENT.fullmatch(text)
    if match is None:
        raise ValueError("write it as 2026-11-25T20:50:00+01:00 or 2026-11-25T19:50:00Z, with its zone")
    date, clock, offset = match.groups()
    try:
        moment = datetime.fromisoformat(f"{date}T{clock}{'+00:00' if offset in 'Zz' else offset}")
    except ValueError:
        raise ValueError(f"{text!r} is no time") from None
    if moment.year not in _YEARS:
        raise ValueError(f"the year must be from {_YEARS[0]} to {_YEARS[-1]}")
    return moment.timestamp()


def seconds_or_zero(text: str) -> float:
    """Seconds of a duration that may be none, such as "0s"."""
    return 0.0 if _ZERO.fullmatch(text) else seconds_of(text)


def _checked_moment(text: str) -> str:
    moment_of(text)
    return text


def _checked_delay(text: str) -> str:
    if seconds_or_zero(text) > _LONGEST_JITTER_S:
        raise ValueError("must be at most 1h")
    return text


Moment = Annotated[str, StringConstraints(max_length=40), AfterValidator(_checked_moment)]
Delay = Annotated[str, AfterValidator(_checked_delay)]


class Schedule(SpecModel):
    """When the service makes the job, again and again; `astraml run` runs it once, now, and says so."""

    cron: Annotated[str, StringConstraints(max_length=256)]
    """Five fields: minute, hour, day of month, month, day of week."""
    timezone: Annotated[str, StringConstraints(max_length=64)] = "UTC"
    """An IANA time zone, such as Europe/Paris. A time that a day does not have fires at the next one that there is;
    one that it has twice fires once."""
    overlap: Literal["skip", "queue_one", "cancel_running", "allow"] = "skip"
    """While the job before has not ended: leave this one out, make it afterwards (one at most), cancel the one before,
    or make another."""
    catchup: Literal["latest", "all", "none"] = "latest"
    """Which of those are made up for that passed while the service was away."""
    catchup_window: Duration = "1d"
    """None that are older, at most 31d."""
    jitter: Delay = "0s"
    """Spreads the start over this time: each occurrence by its own amount, the same at every try. At most 1h, and less
    than lies between two occurrences."""
    start: Moment | None = None
    """None before this time, such as 2026-12-01T00:00:00+01:00."""
    end: Moment | None = None
    """None after this time."""
    pause_after_failures: int | None = Field(default=None, ge=1, le=1000)
    """Pauses the schedule after so many failures in a row; null never does."""
    only_if_changed: Literal["dataset"] | None = None
    """Trains only if the dataset, by its listing, is not the one that the last job to succeed has trained on. Its job
    looks, and ends at once if nothing is new; made by hand, it always trains."""

    @field_validator("timezone")
    @classmethod
    def _is_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError) as error:
            raise ValueError(f"{name!r} is no IANA time zone, such as Europe/Paris") from error
        return name

    @field_validator("cron")
    @classmethod
    def _is_cron(cls, cron: str) -> str:
        if len(cron.split()) != 5:
            raise ValueError("a cron expression has five fields: minute hour day month weekday")
        try:
            first = next(CronSim(cron, _REFERENCE), None)
        except CronSimError as error:
            raise ValueError(f"not a cron expression, or no day has it: {error}") from error
        if first is None or first - _REFERENCE > _RAREST:
            raise ValueError("fires less than once in nine years, or never: no month has such a day")
        return cron

    @field_validator("catchup_window")
    @classmethod
    def _is_bounded(cls, window: str) -> str:
        if seconds_of(window) > _LONGEST_WINDOW_S:
            raise ValueError("must be at most 31d")
        return window

    @model_validator(mode="after")
    def _begins_before_it_ends(self) -> Schedule:
        if self.start is not None and self.end is not None and moment_of(self.start) >= moment_of(self.end):
            raise ValueError("`end` must be after `start`")
        return self

    @model_validator(mode="after")
    def _keeps_its_order(self) -> Schedule:
        jitter_s = seconds_or_zero(self.jitter)
        found = list(islice(CronSim(self.cron, _REFERENCE), _SAMPLE)) if jitter_s else []
        if any((second - first).total_seconds() <= jitter_s for first, second in pairwise(found)):
            raise ValueError("`jitter` must be shorter than the time between two occurrences")
        return self

    def instants(self, after: float) -> Iterator[int]:
        """Seconds since the epoch of all that follow a time, each once and in order."""
        zone = ZoneInfo(self.timezone)
        if self.start is not None:
            after = max(after, moment_of(self.start) - 1)
        end = None if self.end is None else moment_of(self.end)
        last = after
        for local in CronSim(self.cron, _seed(after, zone)):
            instant = int(local.timestamp())
            if end is not None and instant > end:
                return
            # On the day that clocks change, cron's times are neither in order nor all different.
            if instant > last:
                last = instant
                yield instant


def _seed(after: float, zone: ZoneInfo) -> datetime:
    """Where to begin to look: before a change of the clocks that has just been, so that all see the same times."""
    seed, before = (datetime.fromtimestamp(at, zone) for at in (after, after - _CHANGE_S))
    return seed if seed.utcoffset() == before.utcoffset() else before
